"""Traces of a real daemon's reads, as a collector gets them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from functools import partial

import pytest

from tests.disclosure import MARK, login, secret
from tests.servers import faults
from tests.servers.collector import Collector
from tests.servers.loopback import LoopbackServer
from tests.system.images import GOLDEN, Image

V6 = Image(GOLDEN / "v6-zstd")
REPO = "team/app"
SECRET = login("user", "traced")
OTEL = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def paths():
    return {f"/v2/{REPO}/blobs/sha256:{V6.blob.name}": V6.blob.read_bytes()}


def registry(netloc):
    config = {"scheme": "http", "host": netloc, "repo": REPO, "auth": SECRET, "retry_limit": 3}
    return {"type": "registry", "config": config}


def read_all(root):
    """Read every file of the tree."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            path.read_bytes()


def inodes(root):
    return {path.lstat().st_ino & ((1 << 56) - 1) for path in root.rglob("*")}


@pytest.fixture
def traced(nydusd, serve, tmp_path, monkeypatch):
    """A function that serves the image from a registry with traces to a collector."""
    with Collector() as collector, LoopbackServer(paths()) as server:
        monkeypatch.setenv(OTEL[0], collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")

        def make(**settings):
            return serve(V6, backend=registry(server.netloc), **settings)

        yield collector, server, make


def children(spans, parent, name):
    return [each for each in spans if each.parent == parent.id and each.name == name]


@pytest.mark.root
@pytest.mark.fuse
def test_a_missed_read_is_a_tree_down_to_its_requests(traced):
    collector, server, make = traced
    with make() as daemon:
        read_all(daemon.mountpoint)
        known = inodes(daemon.mountpoint)
        spans = collector.wait_for(
            lambda spans: (
                any(each.name == "read" for each in spans)
                and any(each.name == "fetch" for each in spans)
            )
        )
    roots = [each for each in spans if each.name == "read"]
    read = next(each for each in roots if children(spans, each, "fetch"))
    assert read.parent == b""
    assert read.attributes["nydusd.mountpoint"] == "/"
    assert read.attributes["nydusd.inode"] in known
    assert read.attributes["nydusd.size"] > 0
    assert read.attributes["nydusd.offset"] >= 0
    assert not read.failed

    fetch = children(spans, read, "fetch")[-1]
    assert fetch.trace == read.trace
    assert fetch.attributes["nydusd.blob"] == V6.blob.name
    assert fetch.attributes["nydusd.backend"] == "registry"
    assert fetch.attributes["nydusd.prefetch"] is False
    assert fetch.attributes["nydusd.retries"] == 0
    assert read.start <= fetch.start <= fetch.end

    (request, *_) = children(spans, fetch, "GET")
    assert request.attributes["http.response.status_code"] == 206
    assert request.attributes["server.port"] == server.port
    assert request.attributes["url.full"].endswith(f"sha256:{V6.blob.name}")
    assert request.attributes["nydusd.size"] == fetch.attributes["nydusd.size"]
    assert request.attributes["nydusd.received"] == fetch.attributes["nydusd.size"]
    assert fetch.start <= request.start <= request.end
    assert read.resource["service.name"] == "nydusd"
    assert read.resource["service.version"]


@pytest.mark.root
@pytest.mark.fuse
def test_what_is_cached_is_not_traced(traced):
    collector, _, make = traced
    with make() as daemon:
        read_all(daemon.mountpoint)
    before = len(collector.spans)
    assert before
    with make() as daemon:
        read_all(daemon.mountpoint)
    assert [each.name for each in collector.spans[before:] if each.name == "read"] == []


@pytest.mark.root
@pytest.mark.fuse
def test_retries_and_failures_are_seen(traced):
    collector, server, make = traced
    server.script(partial(faults.status, code=503), "GET", "/blobs/", times=2)
    with make() as daemon:
        read_all(daemon.mountpoint)
        spans = collector.wait_for(
            lambda spans: any(each.attributes.get("nydusd.retries") for each in spans)
        )
    fetch = next(each for each in spans if each.attributes.get("nydusd.retries"))
    assert fetch.events == ["retry"] * fetch.attributes["nydusd.retries"]
    requests = sorted(children(spans, fetch, "GET"), key=lambda each: each.start)
    failed = [each for each in requests if each.failed]
    assert {each.attributes["http.response.status_code"] for each in failed} == {503}
    assert len(failed) == fetch.attributes["nydusd.retries"]
    assert requests[-1].attributes["http.request.resend_count"] == len(failed)


@pytest.mark.root
@pytest.mark.fuse
def test_a_read_that_fails_says_so(traced):
    collector, server, make = traced
    server.script(partial(faults.status, code=404), "GET", "/blobs/")
    with make() as daemon:
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            read_all(daemon.mountpoint)
        spans = collector.wait_for(
            lambda spans: any(each.name == "read" and each.failed for each in spans)
        )
    read = next(each for each in spans if each.name == "read" and each.failed)
    assert read.attributes["error.type"] == os.strerror(errno.EIO)
    (fetch, *_) = children(spans, read, "fetch")
    assert fetch.failed


@pytest.mark.root
@pytest.mark.fuse
def test_no_secret_and_no_query_leaves(traced):
    collector, server, make = traced
    server.objects = {"/moved": V6.blob.read_bytes()}
    location = f"{server.url}/moved?Signature={secret('signature')}&x=1"
    server.script(partial(faults.redirect, location=location), "GET", "/v2/")
    with make() as daemon:
        read_all(daemon.mountpoint)
        collector.wait_for(lambda spans: any("/moved" in str(each.attributes) for each in spans))
    everything = b"".join(collector.raw)
    for hidden in (SECRET.encode(), MARK.encode(), b"Signature"):
        assert hidden not in everything


@pytest.mark.root
@pytest.mark.fuse
def test_what_is_left_is_given_away_at_the_end(traced, monkeypatch):
    collector, _, make = traced
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    with make() as daemon:
        read_all(daemon.mountpoint)
        assert collector.spans == []
    assert any(each.name == "read" for each in collector.spans)


@pytest.mark.root
@pytest.mark.fuse
def test_a_collector_that_is_away_holds_nothing_up(serve, monkeypatch):
    monkeypatch.setenv(OTEL[0], "http://127.0.0.1:9")
    with serve(V6) as daemon:
        read_all(daemon.mountpoint)
    assert daemon.wait() == 0


def imported(environment):
    """Names of the modules that a daemon has loaded after the switch."""
    code = (
        "import os, sys\nfrom nydusd.base import tracing\ntracing.switch_on(os.environ)\n"
        "import nydusd.daemon.daemon, nydusd.cache.metered, nydusd.backend.retry\n"
        "print(*sorted(sys.modules)); print(tracing.tracer())"
    )
    base = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**base, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return done.stdout


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {OTEL[0]: "http://x", "OTEL_SDK_DISABLED": "true"},
        {OTEL[0]: "http://x", "OTEL_TRACES_EXPORTER": "none"},
        {OTEL[0]: ""},
    ],
)
def test_switched_off_nothing_is_imported(environment):
    text = imported(environment)

    assert "opentelemetry" not in text
    assert text.endswith("None\n")


@pytest.mark.parametrize("name", OTEL)
def test_an_endpoint_switches_it_on(name):
    assert "OtelTracer" in imported({name: "http://127.0.0.1:9"})


def test_another_protocol_is_refused_with_a_reason(caplog):
    from nydusd.base.otel import open_tracer

    assert open_tracer({OTEL[0]: "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}) is None
    assert "http/protobuf only" in caplog.text


def test_without_the_packages_a_line_says_so(caplog, monkeypatch):
    from nydusd.base.otel import open_tracer

    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert open_tracer({OTEL[0]: "http://127.0.0.1:9"}) is None
    assert "nydusd[otel]" in caplog.text
