"""`nydusd singleton`: a real process that is told of blobs through its API."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.system.control import WAIT_S, ask, wait_for
from tests.system.images import GOLDEN, Image

V6, V5 = Image(GOLDEN / "v6-zstd"), Image(GOLDEN / "v5-lz4")
MOUNT = {"source": "/nowhere", "fs_type": "rafs", "config": "not looked at"}
UNSUPPORTED = "(DaemonAbnormal(Unsupported))"


def blob_entry(cache, image=V6, **changes):
    """The body that adds *image*."""
    config = {
        "backend_type": "localfs",
        "backend_config": {"dir": str(image.blobs)},
        "cache_type": "fscache",
        "cache_config": {"work_dir": str(cache)},
        "metadata_path": str(image.bootstrap),
    }
    return {"type": "bootstrap", "id": "boot", "domain_id": "d", "config": config, **changes}


class Singleton:
    """A process with a control socket."""

    def __init__(self, argv, env, folder, *options):
        self.sock = folder / "api.sock"
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*argv, "singleton", "--rlimit-nofile", "0", "-A", str(self.sock), *options],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def ask(self, method, target, body=None, **query):
        return ask(self.sock, method, target, body, **query)

    def until(self, state):
        wait_for(self.sock)
        deadline = time.monotonic() + WAIT_S
        while (found := self.ask("GET", "/api/v2/daemon").json["state"]) != state:
            assert time.monotonic() < deadline, found
            time.sleep(0.01)
        return self

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(20)


@pytest.fixture
def start(nydusd, tmp_path):
    """A function that starts a singleton with options; none is left running."""
    made = []

    def make(*options):
        folder = tmp_path / f"daemon{len(made)}"
        folder.mkdir()
        made.append(Singleton(nydusd.argv, {**os.environ, **nydusd.env}, folder, *options))
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture
def running(start):
    return start().until("RUNNING")


def test_it_runs_and_has_no_mounts(running):
    for version in ("v1", "v2"):
        info = running.ask("GET", f"/api/{version}/daemon").json
        assert info["state"] == "RUNNING"
        assert info["backend_collection"] is None


def test_blobs_are_added_and_removed(running, tmp_path):
    entry = blob_entry(tmp_path)
    assert running.ask("PUT", "/api/v2/blobs", entry).status == 204
    again = running.ask("PUT", "/api/v2/blobs", entry)
    assert (again.status, again.message) == (
        500,
        'CreateBlobObject(DaemonAbnormal(Other("blob_cache: bootstrap blob already exists")))',
    )
    assert running.ask("DELETE", "/api/v2/blobs", domain_id="d", blob_id="boot").status == 204
    gone = running.ask("DELETE", "/api/v2/blobs", domain_id="d", blob_id="boot")
    assert gone.status == 500
    assert gone.message.startswith(
        'DeleteBlobObject(DaemonAbnormal(Other("No such file or directory (os error 2)'
    )
    assert running.ask("PUT", "/api/v2/blobs", entry).status == 204
    assert running.ask("DELETE", "/api/v2/blobs", domain_id="d").status == 204
    assert running.ask("DELETE", "/api/v2/blobs", domain_id="d").status == 204
    assert running.ask("PUT", "/api/v2/blobs", entry).status == 204


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"config": None}, 400, "BadRequest"),
        ({"config": {}}, 400, "missing field `backend_type`"),
        ({"config": 3}, 400, "invalid type: integer `3`"),
        ({"config_v2": {}}, 400, "missing field `version`"),
        ({"config_v2": {"version": 2}}, 400, "BadRequest"),
        ({"domain_id": None}, 400, "invalid type: null, expected a string"),
        ({"type": "datablob"}, 500, "Invalid argument (os error 22)"),
        ({"id": "a/b"}, 500, "Invalid argument (os error 22)"),
    ],
)
def test_an_entry_that_makes_no_sense(running, tmp_path, changes, status, message):
    reply = running.ask("PUT", "/api/v2/blobs", blob_entry(tmp_path, **changes))

    assert reply.status == status
    assert message in reply.message


def test_a_v5_image_cannot_be_read_by_erofs(running, tmp_path):
    reply = running.ask("PUT", "/api/v2/blobs", blob_entry(tmp_path, V5))

    assert reply.status == 500
    assert "Invalid argument (os error 22)" in reply.message


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "message"),
    [
        ("POST", "/api/v1/mount?mountpoint=/x", MOUNT, 501, f"Mount{UNSUPPORTED}"),
        ("PUT", "/api/v1/mount?mountpoint=/x", MOUNT, 501, f"Mount{UNSUPPORTED}"),
        ("DELETE", "/api/v1/mount?mountpoint=/x", None, 501, f"Mount{UNSUPPORTED}"),
        ("GET", "/api/v1/daemon/backend?mountpoint=/", None, 501, f"FsBackendInfo{UNSUPPORTED}"),
        ("GET", "/api/v1/metrics/inflight", None, 501, f"InflightMetrics{UNSUPPORTED}"),
        ("GET", "/api/v1/metrics", None, 404, "GlobalMetrics(Metrics(Stats(NoCounter)))"),
        ("GET", "/api/v1/metrics/blobcache", None, 404, "NoCounter"),
        ("PUT", "/api/v1/daemon/start", None, 400, 'UnexpectedEvent("Start")'),
        ("PUT", "/api/v1/daemon/fuse/takeover", None, 400, 'UnexpectedEvent("Takeover")'),
        ("DELETE", "/api/v2/blobs?blob_id=b", None, 501, f"DeleteBlobFile{UNSUPPORTED}"),
        ("DELETE", "/api/v2/blobs", None, 400, "BadRequest"),
        ("GET", "/api/v2/blobs", None, 400, "BadRequest"),
        ("GET", "/api/v2/blobs?domain_id=d", None, 501, f"GetBlobObject{UNSUPPORTED}"),
        ("PUT", "/api/v2/blobs", {}, 400, "missing field `type`"),
    ],
)
def test_what_a_singleton_refuses(running, method, target, body, status, message):
    reply = running.ask(method, target, body)

    assert reply.status == status
    assert message in reply.message


def test_the_metrics_of_a_daemon_without_mounts(running):
    text = running.ask("GET", "/metrics").body.decode()

    assert "nydusd_running 1" in text
    assert "nydusd_mounts 0" in text


def test_its_configuration_names_blobs(start, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"blobs": [blob_entry(tmp_path)], "other": 1}))
    daemon = start("--config", str(config)).until("RUNNING")

    assert daemon.ask("PUT", "/api/v2/blobs", blob_entry(tmp_path)).status == 500
    assert daemon.ask("DELETE", "/api/v2/blobs", domain_id="d", blob_id="boot").status == 204


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nope", "invalid configuration file"),
        ('{"blobs": 3}', "blobs is not a list"),
        ('{"blobs": [3]}', "blobs[0]: not an object"),
        ('{"blobs": [{"type": "bootstrap"}]}', "blobs[0]: id: missing"),
        ('{"blobs": [{"type": "bootstrap", "id": "x"}]}', "needs config"),
    ],
)
def test_a_configuration_that_makes_no_sense_ends_the_start(start, tmp_path, text, words):
    config = tmp_path / "config.json"
    config.write_text(text)
    daemon = start("--config", str(config))

    assert daemon.process.wait(60) == 1
    assert words in daemon.log.read_text()
    assert not daemon.sock.exists()


@pytest.mark.skipif(Path("/dev/cachefiles").exists(), reason="this kernel has cachefiles")
def test_without_the_kernels_cache_it_ends_in_the_words_of_the_reference(start, tmp_path):
    daemon = start("--fscache", str(tmp_path))

    assert daemon.process.wait(60) == 1
    words = 'Error: Os { code: 2, kind: NotFound, message: "No such file or directory" }'
    assert words in daemon.log.read_text()
    assert not daemon.sock.exists()


@pytest.mark.parametrize(("name", "code"), [("missing", "code: 2"), ("file", "InvalidInput")])
def test_the_cache_directory_must_be_one(start, tmp_path, name, code):
    (tmp_path / "file").touch()
    daemon = start("--fscache", str(tmp_path / name))

    assert daemon.process.wait(60) == 1
    assert code in daemon.log.read_text()


def test_with_upgrade_it_waits(start):
    daemon = start("--upgrade", "--id", "i", "--supervisor", "/nowhere/s").until("INIT")

    assert daemon.ask("PUT", "/api/v1/daemon/start").status == 400


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_takes_the_socket(running, number):
    running.process.send_signal(number)

    assert running.process.wait(60) == 0
    assert not running.sock.exists()


def test_exit_ends_it(running):
    assert running.ask("PUT", "/api/v1/daemon/exit").status == 204

    assert running.process.wait(60) == 0
    assert not running.sock.exists()
