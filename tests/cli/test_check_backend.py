import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.backend_examples import World, section
from tests.disclosure import MARK
from tests.servers.loopback import LoopbackServer

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "operations" / "backends.md"
IMAGE = ROOT / "tests" / "golden" / "images" / "v6-zstd"


def check(*words, env=None):
    """Output lines and exit code of `nydusd --check-backend`."""
    ended = subprocess.run(
        [sys.executable, "-m", "nydusd.cli.nydusd", "--check-backend", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=env,
    )
    return (ended.stdout + ended.stderr).splitlines(), ended.returncode


def config(folder, kind, section):
    path = folder / "config.json"
    text = {
        "version": 2,
        "backend": {"type": kind, kind: section},
        "cache": {"type": "blobcache", "filecache": {"work_dir": str(folder / "cache")}},
        "rafs": {"mode": "direct"},
    }
    path.write_text(json.dumps(text))
    return path


def test_the_documentation_shows_what_is_printed(tmp_path):
    written = re.search(r"<!-- check-backend -->\n(.*?)\n<!-- end -->", PAGE.read_text(), re.S)
    with World(tmp_path) as world:
        shown = section(world)

    assert written is not None
    assert written[1] == shown


def test_the_blob_is_taken_from_the_bootstrap(tmp_path):
    (blob,) = (IMAGE / "blobs").iterdir()
    with LoopbackServer({f"/{blob.name}": blob.read_bytes()}) as server:
        file = config(tmp_path, "http-proxy", {"addr": server.url})
        lines, code = check("-C", file, "-B", IMAGE / "bootstrap")

    assert lines[0] == f"backend http-proxy, blob {blob.name}"
    assert lines[1].startswith(f"ok: origin {server.url}: byte 1 of blob {blob.name[:12]} read")
    assert code == 0
    assert not (tmp_path / "cache").exists()


def test_a_folder_of_blobs_is_looked_into(tmp_path):
    file = config(tmp_path, "localfs", {"dir": str(IMAGE / "blobs")})
    lines, code = check("-C", file, "-B", IMAGE / "bootstrap")

    assert re.fullmatch(r"ok: blob [0-9a-f]{64}: \d+ bytes, can be read", lines[1])
    assert code == 0


def test_a_blob_that_is_not_in_the_folder_is_an_error(tmp_path):
    file = config(tmp_path, "localfs", {"dir": str(tmp_path)})
    lines, code = check("-C", file, "--blob-id", "none")

    assert lines[1].startswith("error: blob none cannot be opened:")
    assert code == 1


def test_without_a_blob_to_ask_for_it_says_how_to_name_one(tmp_path):
    lines, code = check("-C", config(tmp_path, "localfs", {"dir": "/"}))

    assert lines == [
        "error: --check-backend asks for a blob: name it with --blob-id or --bootstrap"
    ]
    assert code == 1


def test_a_clock_that_is_wrong_is_told(tmp_path):
    def old(exchange):
        date = {"Date": "Mon, 01 Jan 2024 00:00:00 GMT"}
        exchange.head(206, {**exchange.part_headers(), **date, "Content-Length": "1"})
        exchange.send(exchange.part)

    with LoopbackServer({"/b": b"12345"}) as server:
        server.script(old)
        lines, code = check(
            "-C", config(tmp_path, "http-proxy", {"addr": server.url}), "--blob-id", "b"
        )

    assert re.search(
        r"warning: origin .*: this machine's clock is \d+ s ahead of the server's", lines[2]
    )
    assert code == 0


def test_no_secret_is_printed(tmp_path):
    with LoopbackServer() as server:
        address = server.url.replace("://", f"://user:{MARK}@")
        section = {"addr": address, "mirrors": [{"host": address, "headers": {"X-Key": MARK}}]}
        file = config(tmp_path, "http-proxy", section)
        lines, code = check(*("-C", file, "--blob-id", "b"), env={"NYDUS_HEADER_X-Other": MARK})

    assert server.requests[0].headers["x-other"] == MARK
    assert code == 1
    assert MARK not in "\n".join(lines)


@pytest.mark.parametrize("words", [["--blob-id", "b"], ["--check-config", "--check-backend"]])
def test_combinations_that_make_no_sense_are_usage_errors(words):
    ended = subprocess.run(
        [sys.executable, "-m", "nydusd.cli.nydusd", "-C", "c", *words],
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 2
