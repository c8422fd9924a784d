"""Kills and upgrades of a real daemon while its mount is read: no read fails, no byte is wrong.

NYDUSD_TEST_KILLS and NYDUSD_TEST_UPGRADES set how many (`tox -e takeover` runs the long form).
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.system.control import ask, wait_for
from tests.system.daemon import Command, mount_id, parse_command, v1_config
from tests.system.images import GOLDEN, Image
from tests.system.succession import DAEMON, Readers, Succession

KILLS = int(os.environ.get("NYDUSD_TEST_KILLS", "5"))
UPGRADES = int(os.environ.get("NYDUSD_TEST_UPGRADES", "5"))

pytestmark = [
    pytest.mark.root,
    pytest.mark.fuse,
    pytest.mark.timeout(120 + 10 * (KILLS + UPGRADES)),
]


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    """A folder with `tree`, and an image of it as `bootstrap` and `blobs/`."""
    folder = tmp_path_factory.mktemp("packed")
    some = random.Random(6)
    for number in range(24):
        path = folder / "tree" / f"d{number % 3}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(some.randbytes(some.choice((3000, 70_000, 900_000))))
    (folder / "blobs").mkdir()
    pack = [sys.executable, "-m", "nydusd.cli.nydus_image", "create", "--chunk-size", "0x10000"]
    pack += ["--bootstrap", str(folder / "bootstrap"), "--blob-dir", str(folder / "blobs")]
    subprocess.run([*pack, str(folder / "tree")], check=True, stdout=subprocess.DEVNULL)
    return folder


def config_file(packed: Path, folder: Path, *, cached: bool = True) -> Path:
    cache = folder / "cache" if cached else None
    if cache is not None:
        cache.mkdir()
    config = folder / "config.json"
    config.write_text(json.dumps(v1_config(packed / "blobs", cache)))
    return config


def dedicated(packed: Path, folder: Path, *, cached: bool = True) -> tuple[str, ...]:
    """The options for one image, as the snapshotter gives them."""
    config = config_file(packed, folder, cached=cached)
    return ("--config", str(config), "--bootstrap", str(packed / "bootstrap"))


@pytest.fixture(params=["hits", "misses"])
def succession(request, nydusd, packed, tmp_path):
    """A daemon under a supervisor; with no cache every read waits for a fetch."""
    options = dedicated(packed, tmp_path, cached=request.param == "hits")
    with Succession(nydusd, tmp_path, options) as succession:
        yield succession


def test_the_first_answer_of_a_supervised_daemon_comes_when_the_mount_can_be_used(
    nydusd, packed, tmp_path
):
    succession = Succession(nydusd, tmp_path, dedicated(packed, tmp_path))
    try:
        succession.launch()
        wait_for(succession.socket)
        assert succession.state() == "RUNNING"
        assert mount_id(succession.mountpoint) is not None
    finally:
        succession.__exit__()


def test_a_supervised_daemon_that_cannot_start_leaves_no_socket(nydusd, packed, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    options = ("--config", str(tmp_path / "config.json"), "--bootstrap", str(packed / "bootstrap"))
    succession = Succession(nydusd, tmp_path, options)
    try:
        succession.launch()
        assert succession.process.wait(60) == 1
        assert not succession.socket.exists()
    finally:
        succession.__exit__()


def test_no_read_fails_while_daemons_are_killed(succession, packed):
    readers = Readers(packed / "tree", succession.mountpoint)
    for _ in range(KILLS):
        succession.fail_over()
    report = readers.stop(at_least=KILLS)
    assert report["failures"] == 0, succession.log_text()
    assert report["files"] > KILLS


def test_no_read_fails_while_daemons_are_upgraded(succession, packed):
    readers = Readers(packed / "tree", succession.mountpoint)
    for _ in range(UPGRADES):
        succession.upgrade()
    report = readers.stop(at_least=UPGRADES)
    assert report["failures"] == 0, succession.log_text()
    assert report["files"] > UPGRADES


@pytest.fixture
def one(nydusd: Command, packed: Path, tmp_path: Path):
    """A daemon of one image under a supervisor."""
    with Succession(nydusd, tmp_path, dedicated(packed, tmp_path)) as succession:
        yield succession


def test_upgrades_and_kills_may_follow_each_other(one, packed):
    readers = Readers(packed / "tree", one.mountpoint, count=1)
    one.upgrade()
    one.fail_over()
    one.upgrade()
    assert readers.stop()["failures"] == 0


READ_LATER = (
    "import sys; file = open(sys.argv[1], 'rb'); print(); input(); print(file.read().hex())"
)


def test_an_open_file_goes_on_with_the_successor(one, packed):
    # In a process of its own: one that starts a daemon would flush the file before, and wait.
    name = Path("d0") / "f0"
    with subprocess.Popen(
        [sys.executable, "-c", READ_LATER, str(one.mountpoint / name)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdout.readline() == "\n"
        one.fail_over()
        output, _ = reader.communicate("\n", timeout=60)
    assert bytes.fromhex(output) == (packed / "tree" / name).read_bytes()


def test_a_read_begun_without_a_daemon_waits_for_one(one, packed):
    one.process.kill()
    one.process.wait()
    readers = Readers(packed / "tree", one.mountpoint, count=1)
    one.launch()
    one.take_over()
    one.serve()
    report = readers.stop()
    assert report["failures"] == 0


def test_the_last_daemon_still_unmounts(one):
    one.upgrade()
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(60) == 0
    assert mount_id(one.mountpoint) is None


def test_a_daemon_that_was_told_to_leave_keeps_the_mount(one):
    before = mount_id(one.mountpoint)
    one.order("/exit")
    assert one.process.wait(60) == 0
    assert mount_id(one.mountpoint) == before is not None
    assert not one.socket.exists()


# --- many mounts


def test_mounts_of_a_shared_daemon_come_back_at_their_paths(nydusd, packed, tmp_path):
    config = config_file(packed, tmp_path).read_text()
    body = {"fs_type": "rafs", "source": str(packed / "bootstrap"), "config": config}
    with Succession(nydusd, tmp_path) as shared:
        for path in ("/a", "/b/c", "/b/d"):
            assert ask(shared.socket, "POST", "/api/v1/mount", body, mountpoint=path).status == 204
        assert ask(shared.socket, "DELETE", "/api/v1/mount", mountpoint="/a").status == 204
        shared.send()
        inodes = {path: (shared.mountpoint / path).stat().st_ino for path in ("b", "b/c", "b/d")}
        shared.fail_over()
        assert {path: (shared.mountpoint / path).stat().st_ino for path in inodes} == inodes
        mounted = json.loads(shared.ask("GET", DAEMON).body)["backend_collection"]
        assert set(mounted) == {"/b/c", "/b/d"}
        name = Path("d1/f1")
        for path in ("b/c", "b/d"):
            found = (shared.mountpoint / path / name).read_bytes()
            assert found == (packed / "tree" / name).read_bytes()
        assert list((shared.mountpoint / "a").iterdir()) == []
        assert ask(shared.socket, "POST", "/api/v1/mount", body, mountpoint="/a").status == 204
        assert (shared.mountpoint / "a" / name).exists()


def test_a_mount_that_was_taken_over_may_be_asked_for_again(nydusd, packed, tmp_path):
    config = config_file(packed, tmp_path).read_text()
    body = {"fs_type": "rafs", "source": str(packed / "bootstrap"), "config": config}
    other = {**body, "config": config.replace('"enable_xattr": true', '"enable_xattr": false')}
    assert other != body

    def mount(what: dict) -> int:
        return ask(shared.socket, "POST", "/api/v1/mount", what, mountpoint="/a").status

    with Succession(nydusd, tmp_path) as shared:
        assert mount(body) == 204
        assert mount(body) == 500
        shared.send()
        shared.fail_over()
        assert mount(body) == 204
        assert mount(other) == 500
        assert ask(shared.socket, "DELETE", "/api/v1/mount", mountpoint="/a").status == 204
        assert mount(body) == 204
        assert mount(body) == 500


def test_a_supervisor_that_hangs_holds_up_nothing_but_the_takeover(one, packed):
    one.process.kill()
    one.process.wait()
    one.launch()
    one.await_state("INIT")
    released = threading.Event()
    one.supervisor.play(lambda _connection: released.wait(60))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(one.ask, "PUT", DAEMON + "/fuse/takeover")
        for _ in range(5):
            assert one.state() == "INIT"
        assert not waiting.done()
        reply = waiting.result()
    released.set()
    assert reply.status == 500
    assert "RecvFd(Os { code: 110, kind: TimedOut" in reply.message
    one.take_over()
    one.serve()
    name = Path("d1/f1")
    found = (one.mountpoint / name).read_bytes()
    assert found == (packed / "tree" / name).read_bytes()


def test_an_image_that_is_gone_does_not_keep_the_others(nydusd, packed, tmp_path):
    config = config_file(packed, tmp_path).read_text()
    copy = tmp_path / "copy"
    copy.write_bytes((packed / "bootstrap").read_bytes())
    with Succession(nydusd, tmp_path) as shared:
        for path, source in (("/a", copy), ("/b", packed / "bootstrap")):
            body = {"fs_type": "rafs", "source": str(source), "config": config}
            assert ask(shared.socket, "POST", "/api/v1/mount", body, mountpoint=path).status == 204
        shared.send()
        copy.unlink()
        shared.fail_over()
        name = Path("d1/f1")
        found = (shared.mountpoint / "b" / name).read_bytes()
        assert found == (packed / "tree" / name).read_bytes()
        assert "/a cannot be mounted again" in shared.log_text()


# --- what goes wrong


def test_a_daemon_in_wait_says_so_and_hands_nothing_over(one):
    one.process.kill()
    one.process.wait()
    one.launch()
    one.await_state("INIT")
    waiting = one.supervisor.receive()
    reply = one.ask("PUT", DAEMON + "/fuse/sendfd")
    assert (reply.status, reply.message) == (503, "Upgrade(DaemonAbnormal(NotReady))")
    with pytest.raises(ValueError, match="without a descriptor"):  # yet it was not left waiting
        waiting.result(60)
    reply = one.ask("PUT", DAEMON + "/start")
    expected = 'Configure(DaemonAbnormal(UnexpectedEvent("Start")))'
    assert (reply.status, reply.message) == (400, expected)


def test_a_running_daemon_takes_nothing_over(one):
    reply = one.ask("PUT", DAEMON + "/fuse/takeover")
    expected = 'Upgrade(DaemonAbnormal(UnexpectedEvent("Takeover")))'
    assert (reply.status, reply.message) == (400, expected)


def test_a_wrong_state_is_refused_and_the_right_one_still_taken(one, packed):
    one.process.kill()
    one.process.wait()
    one.launch()
    one.await_state("INIT")
    reply = one.ask("PUT", DAEMON + "/fuse/takeover")
    assert reply.status == 500
    assert "CreateUnixStream(Os { code: 111, kind: ConnectionRefused" in reply.message

    right = one.supervisor.state
    for wrong, words in (
        (b"short", "Failed to load snapshot: InvalidSnapshotSize"),
        (right[:-1] + bytes([right[-1] ^ 1]), "Failed to load snapshot: Crc64("),
    ):
        one.supervisor.state = wrong
        one.supervisor.give()
        reply = one.ask("PUT", DAEMON + "/fuse/takeover")
        assert reply.status == 500
        assert words in reply.message
        assert one.state() == "INIT"

    one.supervisor.state = right
    one.take_over()
    one.serve()
    name = Path("d1/f1")
    found = (one.mountpoint / name).read_bytes()
    assert found == (packed / "tree" / name).read_bytes()


def test_a_daemon_without_a_supervisor_says_so(nydusd, packed, serve, tmp_path):
    sock = tmp_path / "api.sock"
    daemon = serve(None, options=("--apisock", str(sock)))
    with daemon:
        while not sock.exists():
            pass
        reply = ask(sock, "PUT", DAEMON + "/fuse/sendfd")
        words = 'Upgrade(DaemonAbnormal(UpgradeManager("MissingSupervisorPath")))'
        assert (reply.status, reply.message) == (500, words)
        assert daemon.is_up()


def test_a_successor_without_a_control_socket_is_refused_and_mounts_nothing(serve):
    daemon = serve(Image(GOLDEN / "v6-zstd"), options=("--upgrade",))
    daemon.launch()
    assert daemon.wait() == 1
    assert "--upgrade needs --apisock" in daemon.text
    assert mount_id(daemon.mountpoint) is None


# --- the original daemon, where there is one that hands over (NYDUSD_REFERENCE: its command)


@pytest.mark.skipif(
    "NYDUSD_REFERENCE" not in os.environ,
    reason="needs NYDUSD_REFERENCE, an original daemon after 2.2.0 (that one hands nothing over)",
)
@pytest.mark.parametrize("shared", [False, True], ids=["dedicated", "shared"])
@pytest.mark.parametrize("first", ["ours", "reference"])
def test_either_program_follows_the_other(nydusd, packed, tmp_path, first, shared):
    reference = parse_command(os.environ["NYDUSD_REFERENCE"])
    commands = [nydusd, reference] if first == "ours" else [reference, nydusd]
    options = () if shared else dedicated(packed, tmp_path)
    with Succession(commands[0], tmp_path, options) as mixed:
        mounted = mixed.mountpoint
        if shared:
            config = config_file(packed, tmp_path).read_text()
            body = {"fs_type": "rafs", "source": str(packed / "bootstrap"), "config": config}
            reply = ask(mixed.socket, "POST", "/api/v1/mount", body, mountpoint="/a/b")
            assert reply.status == 204
            mixed.send()
            mounted = mounted / "a" / "b"
        readers = Readers(packed / "tree", mounted)
        for step in (mixed.upgrade, mixed.fail_over, mixed.upgrade, mixed.fail_over):
            commands.reverse()
            step(command=commands[0])
        report = readers.stop()
        assert report["failures"] == 0, mixed.log_text()
        assert report["files"] > 4
