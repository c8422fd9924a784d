"""A registry on loopback with a login, which plays faults by rules besides.

`ScriptedRegistry(auth="bearer")` wants a token of its token server (the same server, `/token`),
`auth="basic"` the password itself, `auth=""` nothing. `revoke()` makes every token bad. It knows
nothing of JWT: that is tested with a real registry.
"""

import json
from urllib.parse import parse_qs

from tests.disclosure import MARK, login
from tests.servers.loopback import Exchange, LoopbackServer

USER = login("user", "password")
REPO = "team/app"


class ScriptedRegistry(LoopbackServer):
    def __init__(self, blobs=(), *, auth="", life=300, post=True, forbids=False):
        named = {f"/v2/{REPO}/blobs/sha256:{name}": data for name, data in dict(blobs).items()}
        super().__init__(named)
        self.auth = auth
        self.life = life
        self.post = post  # whether the token server takes POST
        self.refusal = 403 if forbids else 401  # of a token that is not good any more
        self.users = {USER}
        self.tokens = set()
        self.token_number = 0

    def revoke(self):
        self.tokens.clear()

    def config(self, **more):
        """Keys of a registry backend that reads from here."""
        return {"host": self.netloc, "repo": REPO, "scheme": "http", **more}

    def tokens_asked(self):
        return [each for each in self.requests if each.path == "/token"]

    def respond(self, exchange: Exchange) -> None:
        """A blob or a token to who may have it."""
        if exchange.request.path == "/token":
            self._give_token(exchange)
        else:
            self._give_blob(exchange)

    def _give_blob(self, exchange):
        scheme, _, secret = exchange.request.headers.get("authorization", "").partition(" ")
        if self.auth == "basic" and not (scheme == "Basic" and secret in self.users):
            exchange.answer(401, WWW_Authenticate='Basic realm="here"')
        elif self.auth == "bearer" and not (scheme == "Bearer" and secret in self.tokens):
            challenge = (
                f'Bearer realm="{self.url}/token",service="s",scope="repository:{REPO}:pull"'
            )
            exchange.answer(self.refusal if scheme else 401, b"{}", WWW_Authenticate=challenge)
        else:
            exchange.serve()

    def _give_token(self, exchange):
        request = exchange.request
        if request.method == "POST" and not self.post:
            exchange.answer(405)
            return
        _, _, secret = request.headers.get("authorization", "").partition(" ")
        if secret and secret not in self.users:
            exchange.answer(401, b"bad credentials for " + secret.encode())
            return
        text = request.body.decode() if request.body else request.target.partition("?")[2]
        fields = parse_qs(text)
        assert fields["client_id"]
        assert fields["scope"] == [f"repository:{REPO}:pull"]
        self.token_number += 1
        token = f"{MARK}-token-{self.token_number}"
        self.tokens.add(token)
        body = json.dumps({"token": token, "expires_in": self.life}).encode()
        exchange.answer(200, body)
