"""Every endpoint of the API on a real daemon, and what each kind of wrong request gets.

One daemon serves all of them; docs/operations/api.md says which test covers which endpoint.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.system.control import ask, connect, mount_body, wait_for
from tests.system.daemon import Daemon, v1_config
from tests.system.images import GOLDEN, Image

pytestmark = [pytest.mark.root, pytest.mark.fuse]

V5, V6 = Image(GOLDEN / "v5-lz4"), Image(GOLDEN / "v6-zstd")
SWITCHES = {"iostats_files": True, "access_pattern": True, "latest_read_files": True}
NO_COUNTER = "Metrics(Stats(NoCounter))"


class Served:
    """A daemon with one image at `/one`, and how to ask it."""

    def __init__(self, daemon, sock, folder):
        self.daemon = daemon
        self.sock = sock
        self.folder = folder
        self.root = daemon.mountpoint / "one"

    def ask(self, method, target, body=None, **query):
        return ask(self.sock, method, target, body, **query)

    def body(self, image, **changes):
        made = mount_body(image, self.folder / "cache")
        return {**made, **changes}


def body_with(image, cache, name, **settings):
    """A mount request whose configuration is called *name* and has *settings* at its top."""
    body = mount_body(image, cache)
    config = json.loads(body["config"])
    config.update(settings)
    config["device"]["id"] = name
    return {**body, "config": json.dumps(config)}


@pytest.fixture(scope="module")
def served(nydusd, tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    (folder / "mnt").mkdir()
    sock = folder / "api.sock"
    options = ("--apisock", str(sock), "--metrics-address", "127.0.0.1:0")
    with Daemon(nydusd.argv, folder / "mnt", options=options, env=nydusd.env) as daemon:
        wait_for(sock)
        found = Served(daemon, sock, folder)
        body = body_with(V6, folder / "cache", "first", **SWITCHES)
        assert found.ask("POST", "/api/v1/mount", body, mountpoint="/one").status == 204
        yield found


# --- the daemon


def test_get_daemon(served):
    info = served.ask("GET", "/api/v1/daemon").json

    assert set(info) == {"version", "id", "supervisor", "state", "backend_collection"}
    assert set(info["version"]) == {
        "package_ver", "git_commit", "build_time", "profile", "rustc",
    }  # fmt: skip
    assert info["state"] == "RUNNING"
    mount = info["backend_collection"]["/one"]
    assert set(mount) == {"backend_type", "mountpoint", "mounted_time", "config"}
    assert mount["backend_type"] == "Rafs"
    assert mount["mounted_time"].endswith(" +00:00:00")
    assert mount["config"]["version"] == 2
    assert mount["config"]["backend"]["registry"] is None


def test_get_v2_daemon(served):
    first, second = (served.ask("GET", f"/api/{v}/daemon").json for v in ("v1", "v2"))

    assert second == {**first, "backend_collection": None}


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_put_daemon_changes_the_log_level(served, version):
    target = f"/api/{version}/daemon"

    assert served.ask("PUT", target, {"log_level": "Error"}).status == 204
    refused = served.ask("PUT", target, {"log_level": "loud"})
    assert (refused.status, refused.message) == (500, "Configure(ResponsePayloadType)")
    assert served.ask("PUT", target).message == "BadRequest"
    assert served.ask("PUT", target, {}).message.startswith('ParseBody(Error("missing field')


@pytest.mark.parametrize(
    ("target", "status", "message"),
    [
        ("start", 400, 'Configure(DaemonAbnormal(UnexpectedEvent("Start")))'),
        ("fuse/takeover", 400, 'Upgrade(DaemonAbnormal(UnexpectedEvent("Takeover")))'),
        ("fuse/sendfd", 500, 'Upgrade(DaemonAbnormal(UpgradeManager("MissingSupervisorPath")))'),
    ],
)
def test_events_that_do_not_fit_a_running_daemon_are_refused(served, target, status, message):
    reply = served.ask("PUT", f"/api/v1/daemon/{target}")

    assert (reply.status, reply.message) == (status, message)
    with_body = served.ask("PUT", f"/api/v1/daemon/{target}", {})
    assert (with_body.status, with_body.message) == (400, "BadRequest")
    assert served.ask("GET", "/api/v1/daemon").json["state"] == "RUNNING"


def test_get_backend_of_v6(served):
    found = served.ask("GET", "/api/v1/daemon/backend", mountpoint="/one").json

    assert found["magic"] == 3774210530
    assert found["version"] == 1536
    assert found["root_nid"] == 128
    assert found["flags"]["bits"] == 180
    assert found["inodes_count"] == 226
    assert found["chunk_size"] == 1 << 20
    assert found["attr_timeout"] == {"secs": 1 << 32, "nanos": 0}


def test_get_backend_of_v5(served):
    assert served.ask("POST", "/api/v1/mount", served.body(V5), mountpoint="/v5").status == 204
    found = served.ask("GET", "/api/v1/daemon/backend", mountpoint="/v5").json
    served.ask("DELETE", "/api/v1/mount", mountpoint="/v5")

    assert found["magic"] == 1380009555
    assert found["version"] == 1280
    assert found["sb_size"] == 8192
    assert found["inodes_count"] == 224
    assert found["inode_table_offset"] == 8192


def test_get_backend_needs_a_mountpoint_that_is_one(served):
    missing = served.ask("GET", "/api/v1/daemon/backend")
    assert (missing.status, missing.message) == (
        400,
        "QueryString(\"'mountpoint' should be specified in query string\")",
    )
    unknown = served.ask("GET", "/api/v1/daemon/backend", mountpoint="/none")
    assert (unknown.status, unknown.message) == (
        500,
        'FsBackendInfo(Metrics(Daemon(Other("object or filesystem doesn\'t exist"))))',
    )


def test_get_events_has_what_the_backend_refused(served, tmp_path):
    before = served.ask("GET", "/api/v1/daemon/events").json
    assert (before["max_errors"], before["max_size"]) == (500, 51200)
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    short = blobs / V6.blob.name
    short.write_bytes(V6.blob.read_bytes()[:100])
    body = body_with(V6, tmp_path / "cache", "broken")
    config = json.loads(body["config"])
    config["device"]["backend"]["config"]["dir"] = str(blobs)
    body["config"] = json.dumps(config)
    assert served.ask("POST", "/api/v1/mount", body, mountpoint="/broken").status == 204
    with pytest.raises(OSError, match="Input/output error"):
        (served.daemon.mountpoint / "broken" / "file-20000").read_bytes()
    served.ask("DELETE", "/api/v1/mount", mountpoint="/broken")

    after = served.ask("GET", "/api/v1/daemon/events").json
    assert after["total_errors"] > before["total_errors"]
    assert str(short) in after["errors"][-1]
    assert served.root.joinpath("file-1").read_bytes()  # the others do not notice


# --- mounts


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize(
    ("change", "mountpoint", "status", "message"),
    [
        ({}, None, 400, "QueryString("),
        ({}, "relative", 500, "must be an absolute path"),
        ({}, "/a/../b", 500, "'..'"),
        (
            {"fs_type": "erofs"},
            "/y",
            500,
            "only 'rafs' and 'passthrough_fs' are supported, but erofs",
        ),
        ({"fs_type": None}, "/y", 500, "are supported, but  was specified"),
        ({"config": "{"}, "/y", 500, "Failed to load config: failed to parse configuration"),
        ({"config": 3}, "/y", 400, "ParseBody(Error("),
        ({"source": None}, "/y", 400, "ParseBody(Error("),
        ({"prefetch_files": ["usr/bin"]}, "/y", 500, "invalid prefetch file list"),
        ({"prefetch_files": "usr"}, "/y", 400, "expected a sequence"),
    ],
)
def test_a_mount_request_that_makes_no_sense_is_refused(
    served, method, change, mountpoint, status, message
):
    query = {} if mountpoint is None else {"mountpoint": mountpoint}
    reply = served.ask(method, "/api/v1/mount", served.body(V6, **change), **query)

    assert reply.status == status
    assert message in reply.message
    assert list(served.ask("GET", "/api/v1/daemon").json["backend_collection"]) == ["/one"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/none", "Failed to fill superBlock: No such file or directory (os error 2)"),
        (os.fspath(Path(__file__)), "Failed to fill superBlock: "),
    ],
)
def test_a_bootstrap_that_is_none_is_refused(served, source, message):
    body = served.body(V6, source=source)
    reply = served.ask("POST", "/api/v1/mount", body, mountpoint="/y")

    assert reply.status == 500
    assert message in reply.message


def test_a_path_is_mounted_once(served):
    reply = served.ask("POST", "/api/v1/mount", served.body(V6), mountpoint="/one")
    assert (reply.status, reply.message) == (
        500,
        'Mount(MountFilesystem(Other("object or filesystem already exists")))',
    )
    for hidden in ("/one/inside", "/"):
        assert served.ask("POST", "/api/v1/mount", served.body(V6), mountpoint=hidden).status == 500


def test_only_what_is_mounted_is_remounted_and_unmounted(served):
    for method, body in (("PUT", served.body(V6)), ("DELETE", None)):
        reply = served.ask(method, "/api/v1/mount", body, mountpoint="/none")
        assert (reply.status, reply.message) == (
            500,
            'Mount(MountFilesystem(Other("object or filesystem doesn\'t exist")))',
        )
    assert served.ask("DELETE", "/api/v1/mount").status == 400


# --- counters


def test_get_metrics(served):
    before = served.ask("GET", "/api/v1/metrics", id="/one").json
    assert served.root.joinpath("file-4097").read_bytes()
    after = served.ask("GET", "/api/v1/metrics").json

    assert [len(after[name]) for name in ("fop_hits", "fop_errors", "read_latency_dist")] == [
        15, 15, 8,
    ]  # fmt: skip
    assert after["id"] == "/one"
    assert after["data_read"] - before["data_read"] == 4097
    assert after["fop_hits"][4] - before["fop_hits"][4] == 1
    assert sum(after["block_count_read"]) == after["fop_hits"][4] == sum(after["read_latency_dist"])
    assert after["files_account_enabled"]
    assert after["access_pattern_enabled"]
    assert after["record_latest_read_files_enabled"]


def test_get_metrics_files_and_latest(served):
    served.ask("GET", "/api/v1/metrics/files", id="/one", latest="true")
    path = served.root / "file-4096"
    ino = path.stat().st_ino & ((1 << 48) - 1)
    assert len(path.read_bytes()) == 4096

    files = served.ask("GET", "/api/v1/metrics/files", id="/one").json
    assert files[str(ino)]["data_read"] == 4096
    assert files[str(ino)]["fop_hits"][4] == 1
    latest = served.ask("GET", "/api/v1/metrics/files", id="/one", latest="true").json
    assert latest == [[ino]]
    assert served.ask("GET", "/api/v1/metrics/files", id="/one", latest="true").json == []


def test_get_metrics_pattern(served):
    path = served.root / "file-100"
    ino = path.stat().st_ino & ((1 << 48) - 1)
    path.read_bytes()

    (found,) = [
        each
        for each in served.ask("GET", "/api/v1/metrics/pattern", id="/one").json
        if each["ino"] == ino
    ]
    assert found["nr_read"] == 1
    assert set(found) == {
        "ino", "nr_read", "first_access_time_secs", "first_access_time_nanos",
    }  # fmt: skip


def test_get_metrics_backend(served):
    served.root.joinpath("file-20000").read_bytes()
    found = served.ask("GET", "/api/v1/metrics/backend", id="/one").json

    assert found["backend_type"] == "localfs"
    assert found["read_count"] == sum(found["read_count_block_size_dist"]) > 0
    assert found["read_count"] == sum(map(sum, found["read_latency_sizes_dist"]))
    assert len(found["read_cumulative_latency_millis_dist"]) == 8


def test_get_metrics_blobcache(served):
    for _ in range(2):
        served.root.joinpath("file-20000").read_bytes()
        os.posix_fadvise(
            fd := os.open(served.root / "file-20000", os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED
        )
        os.close(fd)
    found = served.ask("GET", "/api/v1/metrics/blobcache", id="first").json

    assert found["underlying_files"] == [f"{V6.blob.name}.blob.data"]
    assert found["store_path"] == str(served.folder / "cache")
    assert found["entries_count"] > 0
    assert found["partial_hits"] + found["whole_hits"] <= found["total"]
    assert found["total"] > 0
    assert all(isinstance(value, int) for name, value in found.items() if "prefetch" in name)


def test_get_metrics_inflight_is_empty_when_nothing_hangs(served):
    assert served.ask("GET", "/api/v1/metrics/inflight").status == 204


@pytest.mark.parametrize(
    ("target", "outer"),
    [
        ("metrics", "GlobalMetrics"),
        ("metrics/files", "FsFilesMetrics"),
        ("metrics/pattern", "Pattern"),
        ("metrics/backend", "BackendMetrics"),
        ("metrics/blobcache", "BlobcacheMetrics"),
    ],
)
def test_an_unknown_id_has_no_counters(served, target, outer):
    reply = served.ask("GET", f"/api/v1/{target}", id="/none")

    assert (reply.status, reply.message) == (404, f"{outer}({NO_COUNTER})")


def test_get_prefetch_and_blobs(served):
    assert served.ask("GET", "/api/v1/metrics/prefetch").json == {"/one": None}
    (blob,) = served.ask("GET", "/api/v1/metrics/blobs", id="/one").json

    assert blob["blob_id"] == V6.blob.name
    assert 0 < blob["ready_chunks"] <= blob["chunks"]


def test_prometheus_finds_the_series_of_the_snapshotter(served):
    reply = served.ask("GET", "/metrics")
    lines = reply.body.decode().splitlines()

    assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    for name in (
        "nydusd_total_read_bytes",
        "nydusd_read_hits",
        "nydusd_read_errors",
        "nydusd_cumulative_read_block_bytes_count",
        "nydusd_read_latency_microseconds_count",
        "nydusd_cache_partial_hits",
        "nydusd_cache_total_requests",
        "nydusd_cache_entries_count",
        "nydusd_cache_prefetch_data_bytes",
    ):
        assert any(line.startswith(f'{name}{{mountpoint="/one"') for line in lines), name
    assert "nydusd_hung_io_counts 0" in lines
    for line in lines:
        assert line.startswith("# ") or len(line.rsplit(" ", 1)) == 2


def listening_port(pid):
    """The TCP port that process *pid* listens on."""
    links = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}  # noqa: PTH115
    (port,) = [
        int(fields[1].partition(":")[2], 16)
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if (fields := line.split())[3] == "0A" and f"socket:[{fields[9]}]" in links
    ]
    return port


def test_counters_can_be_had_over_tcp_and_nothing_else(served):
    connection = HTTPConnection("127.0.0.1", listening_port(served.daemon.pid), timeout=10)
    statuses = []
    for path in ("/metrics", "/api/v1/daemon", "/metrics"):
        connection.request("GET", path)
        reply = connection.getresponse()
        reply.read()
        statuses.append(reply.status)
    connection.request("PUT", "/api/v1/daemon/exit")
    statuses.append(connection.getresponse().status)
    connection.close()

    assert statuses == [200, 404, 200, 404]


# --- settings that change


def test_config_of_a_backend_without_settings_is_refused(served):
    reply = served.ask("PUT", "/api/v1/config", {"registry_auth": "bmV3Om5ldw=="}, id="/one")
    assert reply.status == 500
    assert "has no setting registry_auth" in reply.message
    unknown = served.ask("PUT", "/api/v1/config", {"colour": "red"}, id="/one")
    assert (unknown.status, unknown.message) == (500, "Configure(ResponsePayloadType)")
    number = served.ask("PUT", "/api/v1/config", {"registry_auth": 3}, id="/one")
    assert number.status == 400
    assert "invalid type: integer `3`, expected a string" in number.message


def test_get_config(served):
    assert served.ask("GET", "/api/v1/config", id="/one").json == {}
    assert served.ask("GET", "/api/v1/config").json == {}


# --- blobs of a block service


@pytest.mark.parametrize(
    ("method", "body", "query", "status", "message"),
    [
        ("PUT", {}, {}, 400, "ParseBody(Error("),
        ("PUT", {"type": "bootstrap", "id": "b"}, {}, 400, "BadRequest"),
        (
            "PUT",
            {
                "type": "bootstrap",
                "id": "b",
                "config": {"backend_type": "localfs", "backend_config": {"dir": "/"}},
            },
            {},
            501,
            "CreateBlobObject(DaemonAbnormal(Unsupported))",
        ),
        ("DELETE", None, {"domain_id": "d"}, 501, "DeleteBlobObject(DaemonAbnormal(Unsupported))"),
        ("DELETE", None, {"blob_id": "b"}, 204, ""),
        ("DELETE", None, {}, 400, "BadRequest"),
        ("GET", None, {}, 400, "BadRequest"),
        ("GET", None, {"domain_id": "d"}, 501, "GetBlobObject(DaemonAbnormal(Unsupported))"),
    ],
)
def test_blobs_of_a_fuse_daemon(served, method, body, query, status, message):
    reply = served.ask(method, "/api/v2/blobs", body, **query)

    assert reply.status == status
    assert status == 204 or message in reply.message


# --- the protocol


@pytest.mark.parametrize(
    ("method", "target", "status", "message"),
    [
        ("GET", "/", 404, "NoRoute"),
        ("GET", "/api/v1/daemon/", 404, "NoRoute"),
        ("POST", "/api/v1/daemon", 400, "BadRequest"),
        ("DELETE", "/api/v1/metrics", 400, "BadRequest"),
        ("PATCH", "/api/v1/mount", 400, "BadRequest"),
    ],
)
def test_unknown_paths_and_methods(served, method, target, status, message):
    reply = served.ask(method, target)

    assert (reply.status, reply.message) == (status, message)


def talk(served, data, ends=True):
    """What the daemon sends for *data* until it closes, or until two answers have come."""
    with connect(served.sock) as sock:
        sock.sendall(data)
        received = b""
        while piece := sock.recv(65536):
            received += piece
            if not ends and received.count(b"HTTP/1.1 ") == 2:
                break
        return received


def test_answers_have_the_shape_of_the_reference(served):
    data = (
        b"PUT /api/v1/daemon HTTP/1.1\r\nHost: x\r\nContent-Length: 21\r\n\r\n"
        b'{"log_level":"Error"}' + b"PUT /api/v1/daemon HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
    )

    body = b'{"code":"UNDEFINED","message":"BadRequest"}'
    assert talk(served, data, ends=False) == (
        b"HTTP/1.1 204 \r\nServer: Nydus API\r\nConnection: keep-alive\r\n\r\n"
        b"HTTP/1.1 400 \r\nServer: Nydus API\r\nConnection: keep-alive\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    )


@pytest.mark.parametrize(
    "data",
    [
        b"OPTIONS / HTTP/1.1\r\n\r\n",
        b"\0" * 100 + b"\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        b"PUT / HTTP/1.1\r\nContent-Length: 60000\r\n\r\n",
        b"PUT / HTTP/1.1\r\nContent-Length: ten\r\n\r\n",
        b"A" * 100000,
    ],
)
def test_malformed_http_is_answered_and_ends_the_connection(served, data):
    reply = talk(served, data + b"GET /api/v1/daemon HTTP/1.1\r\n\r\n")

    assert reply.startswith(b"HTTP/1.1 400 \r\nServer: Firecracker API\r\n")
    assert b'"error": "' in reply
    assert reply.count(b"HTTP/1.1") == 1
    assert served.ask("GET", "/api/v1/daemon").status == 200


def test_pipelined_requests_are_answered_in_order(served):
    targets = ["/api/v2/daemon", "/nope", "/api/v1/metrics/inflight"]
    data = b"".join(f"GET {target} HTTP/1.1\r\n\r\n".encode() for target in targets)
    with connect(served.sock) as sock:
        sock.sendall(data)
        received = b""
        while received.count(b"HTTP/1.1 ") < 3 or not received.endswith(b"\r\n\r\n"):
            received += sock.recv(65536)

    statuses = [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"404", b"204"]


def test_a_silent_connection_outlives_many_others(served):
    with connect(served.sock) as silent:
        for _ in range(300):
            served.ask("GET", "/api/v1/metrics/inflight")
        silent.sendall(b"GET /api/v1/daemon HTTP/1.1\r\n\r\n")

        assert silent.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_goes_before_its_answer_harms_nobody(served):
    body = json.dumps(served.body(V5)).encode()
    head = b"POST /api/v1/mount?mountpoint=/gone HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body)
    connect_and_leave = connect(served.sock)
    connect_and_leave.sendall(head + body)
    connect_and_leave.close()
    # what was asked for is done all the same, and before the next of its kind
    assert served.ask("DELETE", "/api/v1/mount", mountpoint="/gone").status in (204, 500)
    served.ask("DELETE", "/api/v1/mount", mountpoint="/gone")

    assert list(served.ask("GET", "/api/v1/daemon").json["backend_collection"]) == ["/one"]


def test_curl_sends_a_large_body_with_expect_and_in_chunks(served, tmp_path):
    body = served.body(V5, prefetch_files=["/" + "x" * 200] * 30)
    file = tmp_path / "body.json"
    file.write_text(json.dumps(body))
    curl = ["curl", "-sS", "--max-time", "10", "--unix-socket", served.sock, "-o", os.devnull]
    url = "http://localhost/api/v1/mount?mountpoint=%2Fcurl"
    for header in ("Expect: 100-continue", "Transfer-Encoding: chunked"):
        sent = [*curl, "-w", "%{http_code}", "-H", header, "-X", "POST", "-d", f"@{file}", url]
        assert subprocess.run(sent, capture_output=True, text=True, check=True).stdout == "204"
        assert served.ask("DELETE", "/api/v1/mount", mountpoint="/curl").status == 204


# --- nydusctl


def nydusctl(served, *words):
    return subprocess.run(
        [sys.executable, "-m", "nydusd.cli.nydusctl", "-S", served.sock, *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["info"], 'Status:                 "RUNNING"\n'),
        (["metrics", "fsstats"], "FOP Counters:\nGetattr("),
        (["metrics", "backend"], 'Backend Type:       "localfs"\n'),
        (["metrics", "cache"], "Partial Hits:               "),
        (["-r", "metrics", "cache"], '{"buffered_backend_size":0,'),
        (["set", "log-level", "error"], ""),
        (["top", "-n", "1"], "RUNNING  mounts 1  requests in flight 0\n"),
        (["prefetch", "--progress"], "/one                 none"),
        (["cache"], V6.blob.name[:16]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_nydusctl_shows(served, words, shown):
    result = nydusctl(served, *words)

    assert result.returncode == 0, result.stderr
    assert shown in result.stdout


def test_nydusctl_mounts_and_unmounts(served, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(v1_config(V5.blobs, tmp_path)))
    mount = ["mount", "-s", str(V5.bootstrap), "-c", str(config), "-m", "/ctl", "-t", "rafs"]

    assert nydusctl(served, *mount).returncode == 0
    assert (served.daemon.mountpoint / "ctl" / "file-1").read_bytes()
    assert nydusctl(served, "umount", "-m", "/ctl").returncode == 0
    failed = nydusctl(served, "umount", "-m", "/ctl")
    assert failed.returncode == 1
    assert failed.stderr.startswith('Error: Request failed. Object({"code": String("UNDEFINED")')


# The reference's client, to hold ours against it.
REFERENCE = os.environ.get("NYDUSCTL_TEST_REFERENCE")


@pytest.mark.skipif(not REFERENCE, reason="NYDUSCTL_TEST_REFERENCE names no nydusctl")
@pytest.mark.parametrize(
    "words",
    [
        ["info"],
        ["-r", "info"],
        ["metrics", "fsstats"],
        ["metrics", "cache"],
        ["set", "log-level", "x"],
    ],
    ids=" ".join,
)
def test_the_reference_nydusctl_says_the_same(served, words):
    theirs = subprocess.run(
        [REFERENCE, "-S", served.sock, *words], capture_output=True, text=True, check=False
    )
    ours = nydusctl(served, *words)

    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
    assert ours.stderr == theirs.stderr
