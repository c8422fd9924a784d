"""Fail-over and hedging, between real servers and with the real transfer thread."""

import threading
from functools import partial

import pytest

from nydusd.backend.attempt import Attempt
from nydusd.backend.endpoints import HEDGE_BURST, HEDGE_SHARE, Endpoints
from nydusd.backend.request import Request
from nydusd.backend.transfer import Transfer
from nydusd.base.errors import BackendError, FailureKind
from nydusd.config.model import Connection, Mirror, Proxy
from tests.servers import faults
from tests.servers.forward_proxy import ForwardProxy
from tests.servers.loopback import LoopbackServer

DATA = bytes(range(256)) * 64
TIMEOUT_S = 10.0


@pytest.fixture
def transfer():
    engine = Transfer()
    yield engine
    engine.close()


@pytest.fixture
def servers():
    """An origin and two mirrors."""
    running = [LoopbackServer({"/blob": DATA}) for _ in range(3)]
    for server in running:
        server.start()
    yield running
    for server in running:
        server.stop()


def mirrored(servers, **settings):
    mirrors = tuple(Mirror(server.url, auth_through=True) for server in servers[1:])
    return Endpoints(Connection(mirrors=mirrors, **settings))


class Reads:
    """Reads of the blob from *servers* by *endpoints*."""

    def __init__(self, transfer, endpoints, origin, timeout=TIMEOUT_S):
        self.transfer = transfer
        self.endpoints = endpoints
        self.url = f"{origin.url}/blob"
        self.timeout = timeout
        self.left_out = []

    def make(self, route, buffer):
        return Request(
            route.url(self.url),
            headers=route.headers,
            buffer=buffer,
            offset=self.offset,
            timeout=self.timeout,
            proxy=route.proxy_url,
        )

    def __call__(self, offset=100, size=1000):
        self.offset = offset
        buffer = bytearray(size)
        attempt = Attempt(
            self.transfer,
            self.endpoints,
            self.make,
            buffer,
            lambda route, why: self.left_out.append((route.number, why)),
        )
        answer = attempt.run(self.endpoints.routes())
        return answer, bytes(buffer)

    def learn(self, times=10):
        """Read so often that the sources' latencies are known."""
        for _ in range(times):
            self()


@pytest.fixture
def reads(transfer, servers):
    return Reads(transfer, mirrored(servers, hedged_reads=False), servers[0])


@pytest.fixture
def hedged(transfer, servers):
    return Reads(transfer, mirrored(servers), servers[0])


def counts(servers):
    return [len(server.requests) for server in servers]


def test_the_first_mirror_serves_the_read(reads, servers):
    answer, data = reads()

    assert data == DATA[100:1100]
    assert answer.route.number == 1
    assert counts(servers) == [0, 1, 0]


@pytest.mark.parametrize(
    "fault",
    [
        faults.reset,
        faults.close,
        faults.close_in_body,
        faults.short_body,
        faults.other_range,
        faults.garbage,
        faults.error_page,
        partial(faults.status, code=500),
        partial(faults.status, code=503),
        partial(faults.status, code=404),
        partial(faults.status, code=429),
    ],
)
def test_a_read_goes_on_to_the_next_source_within_itself(reads, servers, fault):
    servers[1].script(fault)
    answer, data = reads()

    assert data == DATA[100:1100]
    assert answer.route.number == 2
    assert answer.response.status == 206


def test_a_source_that_hangs_costs_its_time_limit(transfer, servers):
    reads = Reads(transfer, mirrored(servers, hedged_reads=False), servers[0], timeout=1.0)
    servers[1].script(faults.stall)
    servers[2].script(faults.stall_in_body)
    answer, data = reads()

    assert data == DATA[100:1100]
    assert answer.route.kind == "origin"


def test_a_dead_mirror_is_left_out_after_its_failures_and_that_is_told_once(reads, servers):
    servers[1].stop()
    for _ in range(8):
        assert reads()[1] == DATA[100:1100]

    assert [number for number, _ in reads.left_out] == [1]
    assert "refused" in reads.left_out[0][1] or "connect" in reads.left_out[0][1]
    assert reads.endpoints.routes()[0].number == 2


def test_the_read_fails_when_every_source_has(reads, servers):
    for server in servers:
        server.script(faults.reset)

    with pytest.raises(BackendError) as caught:
        reads()
    assert caught.value.kind is FailureKind.BROKEN
    assert counts(servers) == [1, 1, 1]


def test_what_the_origin_refuses_is_the_answer(reads, servers):
    servers[1].script(faults.reset)
    servers[2].script(faults.reset)
    servers[0].script(partial(faults.status, code=404))
    answer, _ = reads()

    assert (answer.route.kind, answer.response.status) == ("origin", 404)


def test_a_login_that_a_mirror_wants_is_the_answer_where_there_is_one(transfer, servers):
    mirrors = (Mirror(servers[1].url, auth_through=True),)
    reads = Reads(transfer, Endpoints(Connection(mirrors=mirrors), login=True), servers[0])
    servers[1].script(partial(faults.status, code=401))
    answer, _ = reads()

    assert (answer.route.number, answer.response.status) == (1, 401)
    assert counts(servers) == [0, 1, 0]


def test_the_proxy_is_asked_and_the_origin_when_it_fails(transfer, servers):
    origin = servers[0]
    with ForwardProxy() as proxy:
        reads = Reads(transfer, Endpoints(Connection(proxy=Proxy(proxy.url))), origin)
        assert reads()[0].route.kind == "proxy"
        proxy.script(partial(faults.status, code=502))
        answer, data = reads(offset=0)

    assert answer.route.kind == "origin"
    assert data == DATA[:1000]
    assert origin.requests[0].headers["x-dragonfly-use-p2p"] == "true"


def test_the_proxy_s_errors_are_final_without_fallback(transfer, servers):
    with ForwardProxy() as proxy:
        connection = Connection(proxy=Proxy(proxy.url, fallback=False))
        reads = Reads(transfer, Endpoints(connection), servers[0])
        proxy.script(partial(faults.status, code=502))
        answer, _ = reads()

    assert answer.response.status == 502
    assert not servers[0].requests


@pytest.mark.parametrize("fault", [faults.stall, faults.stall_in_headers, faults.stall_in_body])
def test_a_read_that_stalls_is_served_by_the_next_source(hedged, servers, fault):
    hedged.learn()
    servers[1].script(fault)
    answer, data = hedged(offset=5, size=3000)

    assert data == DATA[5:3005]
    assert answer.route.number == 2
    assert counts(servers)[2] == 1


def test_the_first_source_may_still_win(hedged, servers):
    second_is_asked = threading.Event()

    def answer_then(exchange):
        second_is_asked.wait(60)
        exchange.serve()

    def never_answer(exchange):
        second_is_asked.set()
        faults.stall(exchange)

    servers[1].script(answer_then)
    servers[2].script(never_answer)
    answer, data = hedged()

    assert data == DATA[100:1100]
    assert answer.route.number == 1
    assert counts(servers) == [0, 1, 1]


def test_who_fails_while_two_are_asked_leaves_it_to_the_other(hedged, servers):
    slow_failure = threading.Event()

    def fail_late(exchange):
        slow_failure.wait(60)
        exchange.reset()

    def answer_late(exchange):
        slow_failure.set()
        exchange.hang(0.1)
        exchange.serve()

    servers[1].script(fail_late)
    servers[2].script(answer_late)
    answer, data = hedged()

    assert data == DATA[100:1100]
    assert answer.route.number == 2


def test_the_origin_serves_when_both_that_were_asked_fail(hedged, servers):
    servers[1].script(faults.delay_then(faults.reset, 0.4))
    servers[2].script(faults.reset)
    answer, data = hedged()

    assert data == DATA[100:1100]
    assert answer.route.kind == "origin"


def test_a_slow_mirror_is_soon_asked_last(hedged, servers):
    hedged.learn()
    servers[1].script(partial(faults.delay, seconds=0.4))
    for _ in range(10):
        assert hedged()[1] == DATA[100:1100]

    assert len(servers[1].requests) - 10 <= 4


def test_extra_requests_are_bounded_when_every_source_is_slow(hedged, servers):
    hedged.learn()
    for server in servers:
        server.script(partial(faults.delay, seconds=0.03))
    before = sum(counts(servers))
    for _ in range(40):
        assert hedged()[1] == DATA[100:1100]

    assert sum(counts(servers)) - before <= 40 + 40 * 0.05 + HEDGE_BURST


@pytest.mark.parametrize("slow", [False, True], ids=["both healthy", "one slow"])
def test_hedging_two_mirrors_sends_at_most_a_tenth_more_requests(hedged, servers, slow):
    if slow:
        servers[1].script(partial(faults.delay, seconds=0.3))
    for _ in range(200):
        assert hedged()[1] == DATA[100:1100]

    # One of twenty, and a burst of ten at first (docs/operations/backends.md).
    assert 200 <= sum(counts(servers)) <= 200 + 200 * HEDGE_SHARE + HEDGE_BURST <= 220


def test_the_loser_s_bytes_never_reach_the_reader(hedged, servers):
    hedged.learn()
    servers[1].script(faults.delay_then(faults.corrupt_body, 0.05))
    others = [data for answer, data in (hedged() for _ in range(20)) if answer.route.number != 1]

    assert others
    assert set(others) == {DATA[100:1100]}
