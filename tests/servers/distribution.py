"""A real registry (Debian's docker-registry) on loopback, with the logins that registries have.

`Distribution(folder)` is open to all; `htpasswd=True` wants the password of `USER`; `tokens` is a
`TokenServer`, whose tokens it verifies by their signature. All it keeps is below *folder*.
`push` brings a blob in by the OCI distribution protocol. A process in the foreground.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from urllib.parse import parse_qs, urlencode

from tests.disclosure import login, secret
from tests.servers.certificates import Authority
from tests.servers.loopback import Exchange, LoopbackServer
from tests.servers.nginx import listens
from tests.servers.ports import free_port

START_TIMEOUT_S = 60
PROGRAM = shutil.which("docker-registry", path="/usr/bin:/usr/local/bin")
USER = "user"
PASSWORD = secret("password")
AUTH = login(USER, "password")
# htpasswd -nbB -C 4 user UNSPOKEN-password
HTPASSWD = "user:$2y$04$rJ6phblsoZPg64y8FRBq4ufDK9L80xAjsINN0VZjZvT8qf2/UESoq"
SERVICE, ISSUER = "test registry", "test issuer"


class TokenServer(LoopbackServer):
    """Gives JWTs, signed with ES256, to who knows the password; *anonymous*: to everybody.

    `life` is how long a token is good, in seconds; `asked` counts them.
    """

    def __init__(self, folder: Path, *, anonymous: bool = False) -> None:
        authority = Authority(folder)
        self.bundle, self._key = authority.pair("localhost")
        der = subprocess.run(
            ["openssl", "x509", "-in", str(self.bundle), "-outform", "DER"],
            check=True,
            capture_output=True,
            timeout=30,
        ).stdout
        self._header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        self._anonymous = anonymous
        self.life = 300
        self.asked = 0
        super().__init__()

    def respond(self, exchange: Exchange) -> None:
        """A token at `/token`, 401 to who may not have one."""
        request = exchange.request
        if request.path != "/token":
            exchange.answer(404)
            return
        _, _, secret = request.headers.get("authorization", "").partition(" ")
        if secret != AUTH and not (self._anonymous and not secret):
            exchange.answer(401)
            return
        text = request.body.decode() if request.body else request.target.partition("?")[2]
        fields = parse_qs(text)
        token = self.token(fields["service"][0], fields["scope"][0])
        body = json.dumps({"token": token, "expires_in": self.life}).encode()
        exchange.answer(200, body, Content_Type="application/json")

    def token(self, service: str, scope: str) -> str:
        """A signed token for *scope* (`repository:NAME:ACTIONS`)."""
        self.asked += 1
        kind, name, actions = scope.split(":")
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": USER,
            "aud": service,
            "iat": now,
            "nbf": now - 10,
            "exp": now + self.life,
            "jti": secret(str(self.asked)),
            "access": [{"type": kind, "name": name, "actions": actions.split(",")}],
        }
        text = f"{encoded(self._header)}.{encoded(claims)}"
        signed = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", str(self._key)],
            input=text.encode(),
            check=True,
            capture_output=True,
            timeout=30,
        ).stdout
        return f"{text}.{urlsafe(raw_signature(signed))}"


def urlsafe(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def encoded(value: object) -> str:
    return urlsafe(json.dumps(value).encode())


def raw_signature(der: bytes) -> bytes:
    """The two numbers of an ECDSA signature side by side, as JWT wants them (RFC 7518, 3.4)."""
    numbers = []
    at = 2
    for _ in range(2):
        size = der[at + 1]
        numbers.append(der[at + 2 : at + 2 + size].lstrip(b"\0").rjust(32, b"\0"))
        at += 2 + size
    return b"".join(numbers)


class Distribution:
    """A running registry; `host` is its `name:port`."""

    def __init__(
        self, folder: Path, *, htpasswd: bool = False, tokens: TokenServer | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.host = f"localhost:{self.port}"
        self._tokens = tokens
        self._basic = AUTH if htpasswd else ""
        auth: dict[str, object] = {}
        if htpasswd:
            (folder / "htpasswd").write_text(HTPASSWD + "\n")
            auth = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
        if tokens is not None:
            auth = {
                "token": {
                    "realm": f"{tokens.url}/token",
                    "service": SERVICE,
                    "issuer": ISSUER,
                    "rootcertbundle": str(tokens.bundle),
                }
            }
        config = {
            "version": 0.1,
            "log": {"level": "info", "formatter": "json"},
            "storage": {
                "filesystem": {"rootdirectory": str(folder / "data")},
                "maintenance": {"uploadpurging": {"enabled": False}},
            },
            "http": {"addr": f"127.0.0.1:{self.port}", "secret": secret("http")},
            **({"auth": auth} if auth else {}),
        }
        (folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML

    def __enter__(self) -> Distribution:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, on the same port as before."""
        assert PROGRAM is not None
        self._log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            [PROGRAM, "serve", str(self.folder / "config.yml")], stdout=self._log, stderr=self._log
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not listens(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError((self.folder / "log").read_text())
            time.sleep(0.01)

    def stop(self) -> None:
        """End it; what was pushed stays."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def push(self, repo: str, data: bytes) -> str:
        """Bring *data* in as a blob of *repo*; its id (64 hex digits)."""
        blob_id = hashlib.sha256(data).hexdigest()
        headers = {}
        if self._basic:
            headers["Authorization"] = f"Basic {self._basic}"
        if self._tokens is not None:
            token = self._tokens.token(SERVICE, f"repository:{repo}:pull,push")
            headers["Authorization"] = f"Bearer {token}"
        base = f"http://{self.host}/v2/{repo}/blobs/uploads/"
        with call("POST", base, headers, b"") as reply:
            location = reply.headers["Location"]
        joint = "&" if "?" in location else "?"
        url = location + joint + urlencode({"digest": f"sha256:{blob_id}"})
        with call("PUT", url, headers, data) as reply:
            assert reply.status == 201
        return blob_id


def call(method: str, url: str, headers: dict[str, str], data: bytes):
    """One request, without the proxies of the environment."""
    request = urllib.request.Request(url, data=data, headers=headers, method=method)
    request.add_header("Content-Type", "application/octet-stream")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(request, timeout=30)
