"""The examples of `--check-backend` in docs/operations/backends.md: run here, shown there.

Each is a configuration with servers that do not exist, which stand for servers on loopback while it
runs. `python -m tests.cli.backend_examples` prints the section as it should be.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.disclosure import login, secret
from tests.servers import faults
from tests.servers.certificates import Authority
from tests.servers.loopback import LoopbackServer
from tests.servers.oss import OssServer
from tests.servers.ports import free_port
from tests.servers.registry import USER, ScriptedRegistry

DATA = bytes(range(256)) * 16
BLOB = "cb47b18f5a0d7ed7b17c220f1cce170136bc0d32df0d7f2f3b3767dd756f514b"
PROGRAM = [sys.executable, "-m", "nydusd.cli.nydusd"]
REST = """
[cache]
type = "blobcache"
[cache.filecache]
work_dir = "/var/cache/nydus"
[rafs]
mode = "direct"
"""
REGISTRY = """[backend]
type = "registry"
[backend.registry]
scheme = "http"
host = "registry.example"
repo = "team/app"
auth = "AUTH"
"""


class Example(NamedTuple):
    """A title and the backend part of a configuration."""

    title: str
    backend: str

    @property
    def config(self) -> str:
        """The whole file."""
        return f"version = 2\n{self.backend}{REST}"


EXAMPLES = (
    Example(
        "All is well: a registry with a login, and a mirror",
        REGISTRY.replace("AUTH", USER)
        + """[[backend.registry.mirrors]]
host = "http://mirror.example"
ping_url = "http://mirror.example/ping"
""",
    ),
    Example(
        "A wrong port, and a name that nobody knows",
        """[backend]
type = "http-proxy"
[backend.http-proxy]
addr = "http://down.example/blobs"
[[backend.http-proxy.mirrors]]
host = "http://nosuchname.invalid"
""",
    ),
    Example(
        "A certificate of an authority that is not trusted",
        """[backend]
type = "http-proxy"
[backend.http-proxy]
addr = "https://tls.example/blobs"
""",
    ),
    Example("A wrong password", REGISTRY.replace("AUTH", login("user", "wrong"))),
    Example(
        "A wrong key",
        """[backend]
type = "oss"
[backend.oss]
scheme = "http"
endpoint = "oss.example"
bucket_name = "images"
access_key_id = "UNSPOKEN-someone"
access_key_secret = "UNSPOKEN-wrong"
""",
    ),
    Example(
        "A path that does not exist, a mirror without ranges, and one that hangs",
        """[backend]
type = "http-proxy"
[backend.http-proxy]
addr = "http://empty.example/wrong"
timeout = 1
[[backend.http-proxy.mirrors]]
host = "http://plain.example"
[[backend.http-proxy.mirrors]]
host = "http://slow.example"
""",
    ),
    Example(
        "A P2P proxy that is down: reads would fall back to the origin",
        """[backend]
type = "http-proxy"
[backend.http-proxy]
addr = "http://mirror.example/v2/team/app/blobs/sha256:"
[backend.http-proxy.proxy]
url = "http://down.example"
ping_url = "http://sick.example/health"
""",
    ),
    Example(
        "Mistakes in the file: nothing is asked before they are mended",
        """[backend]
type = "registry"
[backend.registry]
host = "registry.example"
repo = 7
timeout = "5s"
[backend.registry.proxy]
url = "p2p.example:65001"
[[backend.registry.mirrors]]
host = "http://mirror.example/v2"
""",
    ),
)


class Outcome(NamedTuple):
    """What the command printed, with the names of the example, and how it ended."""

    output: str
    code: int


class World:
    """The servers that the examples' names stand for; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stack = ExitStack()
        self.places: dict[str, str] = {}  # name in the examples -> name and port here

    def __enter__(self) -> World:
        enter = self.stack.enter_context
        registry = enter(ScriptedRegistry({BLOB: DATA}, auth="bearer"))
        path = f"/v2/team/app/blobs/sha256:{BLOB}"
        joined = f"/v2/team/app/blobs/sha256:/{BLOB}"
        mirror = enter(LoopbackServer({path: DATA, joined: DATA, "/ping": b"pong"}))
        authority = Authority(self.folder / "authority")
        tls = enter(LoopbackServer(tls=authority.context("localhost")))
        oss = enter(OssServer("images", secret("someone"), secret("right")))
        empty = enter(LoopbackServer())
        plain = enter(LoopbackServer({f"/wrong/{BLOB}": DATA}))
        plain.script(faults.whole_object)
        slow = enter(LoopbackServer())
        slow.script(faults.stall)
        sick = enter(LoopbackServer())
        sick.script(partial(faults.status, code=503))
        self.places = {
            "registry.example": registry.netloc,
            "mirror.example": mirror.netloc,
            "down.example": f"127.0.0.1:{free_port()}",
            "tls.example": f"localhost:{tls.port}",
            "oss.example": f"localhost:{oss.port}",
            "empty.example": empty.netloc,
            "plain.example": plain.netloc,
            "slow.example": slow.netloc,
            "sick.example": sick.netloc,
        }
        return self

    def __exit__(self, *exc: object) -> None:
        self.stack.close()

    def run(self, example: Example) -> Outcome:
        """`nydusd --check-backend` with the configuration of *example*."""
        file = self.folder / "config.toml"
        text = example.config
        for name, place in self.places.items():
            text = text.replace(name, place)
        file.write_text(text)
        ended = subprocess.run(
            [*PROGRAM, "--check-backend", "--config", str(file), "--blob-id", BLOB],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        output = ended.stdout + ended.stderr
        for name, place in self.places.items():
            output = output.replace(place, name)
        output = output.replace(str(file), "config.toml")
        output = re.sub(r"(?<= )\d+ ms", "3 ms", output)
        output = re.sub(r"1\d\d\d milliseconds", "1000 milliseconds", output)
        return Outcome(output.replace("proxy 127.0.0.1 ", "proxy "), ended.returncode)


def section(world: World) -> str:
    """The section of the page."""
    parts = []
    for example in EXAMPLES:
        outcome = world.run(example)
        parts += [
            f"**{example.title}.**\n",
            f"```text\n{example.backend.rstrip()}\n```\n",
            f"```text\n{outcome.output.rstrip()}\n```\n",
            f"Exit code {outcome.code}.\n",
        ]
    return "\n".join(parts).rstrip()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place, World(Path(place)) as running:
        print(section(running))
