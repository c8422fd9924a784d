"""Containers over our nydusd, as production runs them: start, kill, upgrade, restart, removal.

Under the real snapshotter, containerd, runc and registry; see host.py for what is needed.
NYDUSD_SNAPSHOTTER_COMMAND runs another nydusd in the same scenarios.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shlex
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.snapshotter.host import Host, missing, mounts_below, pack, push_image, state_of
from tests.system.control import ask
from tests.system.images import Image
from tests.system.readback import differences
from tests.system.succession import Readers

KILLS = int(os.environ.get("NYDUSD_TEST_KILLS", "2"))
COMMAND = shlex.split(os.environ.get("NYDUSD_SNAPSHOTTER_COMMAND", "")) or None
APPLETS = ("sh", "cat", "sha256sum", "echo", "sleep", "ls", "touch")
# What the snapshotter knows as parts of a blob's cache; anything else it takes for another blob.
CACHE_SUFFIXES = (".blob.data", ".blob.data.chunk_map", ".blob.meta", ".chunk_map")
WAIT_S = 60

lacking = missing()
pytestmark = [
    pytest.mark.root,
    pytest.mark.fuse,
    pytest.mark.skipif(lacking is not None, reason=lacking or ""),
    pytest.mark.timeout(180 + 10 * KILLS),
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A root file system with a shell, and data."""
    root = tmp_path_factory.mktemp("root") / "tree"
    for name in ("bin", "data", "proc", "sys", "dev", "tmp", "etc", "run"):
        (root / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", root / "bin" / "busybox")
    for name in APPLETS:
        (root / "bin" / name).symlink_to("busybox")
    some = random.Random(7)
    for number in range(12):
        (root / "data" / f"f{number}").write_bytes(some.randbytes(some.choice((10_000, 700_000))))
    return root


@pytest.fixture(scope="module")
def image(tree, tmp_path_factory) -> tuple[Path, Path]:
    """Bootstrap and blob."""
    return pack(tree, tmp_path_factory.mktemp("image"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: sockets lie deep below it."""
    path = Path(tempfile.mkdtemp(prefix="nyd", dir="/tmp"))
    yield path
    left = mounts_below(path)
    assert not left
    shutil.rmtree(path)


@pytest.fixture
def now() -> float:
    """When the test began: what an image leaves at 0 is shown as a later time."""
    return time.time()


@pytest.fixture
def make_host(folder, image):
    """A function that starts a host, with the image pushed as `reference`."""
    hosts = []

    def make(mode: str, policy: str) -> Host:
        host = Host(folder, mode=mode, policy=policy, command=COMMAND)
        host.__enter__()
        hosts.append(host)
        host.reference = push_image(host.registry, "e2e/app", *image)
        return host

    yield make
    for host in hosts:
        host.__exit__(None, None, None)


def served(host: Host) -> Path:
    """Where the host shows the image, the lower directory of its containers."""
    (daemon,) = host.daemons()
    (instance,) = daemon["instances"].values()
    return Path(instance["mountpoint"])


def sums(tree: Path) -> str:
    """What `sha256sum` prints of the data."""
    return "".join(
        f"{hashlib.sha256((tree / 'data' / name).read_bytes()).hexdigest()}  /data/{name}\n"
        for name in sorted(os.listdir(tree / "data"))  # noqa: PTH208
    )


def sum_all(host: Host, name: str, number: int) -> str:
    return host.execute(name, number, "sh", "-c", "sha256sum /data/*")


def cache_files(host: Host) -> list[str]:
    return sorted(path.name for path in (host.root / "cache").iterdir() if not path.is_dir())


def await_nothing_left(host: Host, blob: str) -> None:
    """Wait until no file of *blob* is left in the cache."""
    deadline = time.monotonic() + WAIT_S
    while any(name.startswith(blob) for name in cache_files(host)):
        assert time.monotonic() < deadline, f"{cache_files(host)} {host.logs()}"
        time.sleep(0.1)


@pytest.mark.parametrize("mode", ["dedicated", "shared"])
def test_a_container_lives_through_kills_and_leaves_nothing_behind(make_host, tree, image, mode):
    host = make_host(mode, "failover")
    host.pull(host.reference)
    assert host.run(host.reference, "first", "sh", "-c", "echo hello") == "hello\n"
    host.run_detached(host.reference, "second", "sleep", "600")
    assert sum_all(host, "second", 1) == sums(tree)
    assert "written" in host.execute("second", 2, "sh", "-c", "echo written >/tmp/w; cat /tmp/w")

    readers = Readers(tree / "data", served(host) / "data")
    for number in range(KILLS):
        host.await_daemons(1)
        (pid,) = host.daemon_pids()
        os.kill(pid, signal.SIGKILL)
        assert sum_all(host, "second", 10 + number) == sums(tree)
        host.await_daemons(1)
        assert host.daemon_pids() != [pid]
    report = readers.stop()
    assert report["failures"] == 0, host.logs()

    blob = image[1].name
    names = cache_files(host)
    assert f"{blob}.blob.data" in names
    assert all(name.removeprefix(blob) in CACHE_SUFFIXES for name in names), names
    host.remove("second")
    host.remove_image(host.reference)
    await_nothing_left(host, blob)
    if mode == "dedicated":
        host.await_daemons(0)
        assert not [target for target in mounts_below(host.folder) if "/n/" in target]


def test_a_new_binary_takes_over_while_a_container_reads(make_host, tree):
    host = make_host("dedicated", "failover")
    host.pull(host.reference)
    host.run_detached(host.reference, "one", "sleep", "600")
    host.await_daemons(1)
    before = host.daemon_pids()
    newer = host.folder / "newer"
    newer.write_bytes(Path(host.settings["nydusd"]).read_bytes())
    newer.chmod(0o755)
    readers = Readers(tree / "data", served(host) / "data", count=1)
    body = {"nydusd_path": str(newer), "version": "next", "policy": "all"}
    reply = ask(host.folder / "system.sock", "PUT", "/api/v1/daemons/upgrade", body)
    assert reply.status == 200, f"{reply} {host.logs()}"
    host.await_daemons(1)
    assert host.daemon_pids() != before
    assert sum_all(host, "one", 1) == sums(tree)
    (pid,) = host.daemon_pids()
    os.kill(pid, signal.SIGKILL)  # the state of the new one was handed over as well
    assert sum_all(host, "one", 2) == sums(tree)
    host.await_daemons(1)
    assert readers.stop()["failures"] == 0, host.logs()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_daemons_outlive_the_snapshotter_and_are_adopted(make_host, tree, number):
    host = make_host("dedicated", "failover")
    host.pull(host.reference)
    host.run_detached(host.reference, "one", "sleep", "600")
    host.await_daemons(1)
    before = host.daemon_pids()
    host.stop("snapshotter", number)
    assert sum_all(host, "one", 1) == sums(tree)
    host.start_snapshotter()
    assert host.daemon_pids() == before
    assert host.run(host.reference, "two", "sh", "-c", "echo hello") == "hello\n"
    assert host.daemon_pids() == before  # the daemon of the image is used again
    deadline = time.monotonic() + WAIT_S
    while "receives states" not in host.logs().rpartition("Run daemons monitor")[2]:
        assert time.monotonic() < deadline, host.logs()
        time.sleep(0.05)
    os.kill(before[0], signal.SIGKILL)
    assert sum_all(host, "one", 2) == sums(tree)
    host.await_daemons(1)


def test_a_killed_daemon_is_started_anew_without_failover(make_host, tree):
    host = make_host("dedicated", "restart")
    host.pull(host.reference)
    assert host.run(host.reference, "one", "sh", "-c", "sha256sum /data/*") == sums(tree)
    (pid,) = host.daemon_pids()
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + WAIT_S
    while host.daemon_pids() in ([], [pid]):
        assert time.monotonic() < deadline, host.logs()
        time.sleep(0.05)
    host.await_daemons(1)
    assert host.run(host.reference, "two", "sh", "-c", "sha256sum /data/*") == sums(tree)


def test_a_daemon_is_told_what_to_prefetch(make_host, tree, image):
    host = make_host("dedicated", "none")
    host.stop("snapshotter")
    template = json.loads((host.folder / "nydusd.json").read_text())
    template["fs_prefetch"] = {"enable": True, "threads_count": 2, "merging_size": 1 << 20}
    (host.folder / "nydusd.json").write_text(json.dumps(template))
    host.start_snapshotter()
    listed = host.folder / "list"
    listed.write_text("/data/f1\n/data/f2\n")
    body = [{"image": host.reference, "prefetch": str(listed)}]
    reply = ask(host.folder / "system.sock", "PUT", "/api/v1/prefetch", body)
    assert reply.status == 200, reply
    host.pull(host.reference)
    host.run_detached(host.reference, "one", "sleep", "600")
    (socket,) = host.api_sockets()
    assert state_of(socket) == "RUNNING"
    deadline = time.monotonic() + WAIT_S
    while ask(socket, "GET", "/api/v1/metrics/blobcache").json["prefetch_data_amount"] == 0:
        assert time.monotonic() < deadline, host.logs()
        time.sleep(0.05)


@pytest.mark.parametrize("mode", ["dedicated", "shared"])
def test_a_reference_to_an_oci_layer_is_served_from_that_layer(folder, reference_images, now, mode):
    image = Image(reference_images / "v6-targz-ref")
    index, layer = sorted(image.blobs.iterdir(), key=lambda path: path.stat().st_size)
    with Host(folder, mode=mode, policy="failover", command=COMMAND) as host:
        reference = push_image(host.registry, "e2e/zran", image.bootstrap, index, layer)
        host.pull(reference)
        assert not differences(host.prepare(reference), image.manifest, now)
        names = cache_files(host)
        assert f"{layer.name}.blob.data" in names or f"{index.name}.blob.data" in names, names
