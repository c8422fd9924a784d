import pytest

from nydusd.backend.endpoints import HEDGE_BURST, LOST_IN_A_ROW, Endpoints, Route
from nydusd.base.errors import BackendError
from nydusd.config.model import Connection, Mirror, Proxy

URL = "https://origin.example/v2/a/blobs/sha256:0?x=1"
FIRST = Mirror("http://one.example:81", auth_through=True, headers=(("X-Mirror", "1"),))
SECOND = Mirror("https://two.example", failure_limit=2, ping_url="https://two.example/alive")


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def mirrored(clock):
    return Endpoints(Connection(mirrors=(FIRST, SECOND)), clock)


def proxied(clock, **settings):
    return Endpoints(Connection(proxy=Proxy("http://proxy.example:65001", **settings)), clock)


def names(routes):
    return [f"{route.kind} {route.number}" for route in routes]


def fail(endpoints, route, times):
    return [endpoints.failed(route) for _ in range(times)]


def answer(endpoints, route, seconds=0.05, times=10):
    for _ in range(times):
        endpoints.succeeded(route, 1000, seconds)


def test_without_mirrors_and_proxy_there_is_the_origin(clock):
    endpoints = Endpoints(Connection(), clock)
    (route,) = endpoints.routes()

    assert route.url(URL) == URL
    assert (route.headers, route.proxy_url) == ((), "")
    assert endpoints.hedge_after([route], 1) is None
    assert endpoints.seconds_to_check() is None


def test_mirrors_come_in_their_order_and_the_origin_last(mirrored):
    routes = mirrored.routes()

    assert names(routes) == ["mirror 1", "mirror 2", "origin 0"]
    assert [route.url(URL) for route in routes] == [
        "http://one.example:81/v2/a/blobs/sha256:0?x=1",
        "https://two.example/v2/a/blobs/sha256:0?x=1",
        URL,
    ]
    assert [route.headers for route in routes] == [FIRST.headers, (), ()]


def test_without_credentials_only_mirrors_that_pass_them_through_are_asked(mirrored):
    assert names(mirrored.routes(authorized=False)) == ["mirror 1", "origin 0"]


def test_failures_in_a_row_leave_a_mirror_out(mirrored):
    second = mirrored.routes()[1]

    assert fail(mirrored, second, 1) == [False]
    mirrored.succeeded(second, 1, 0.1)
    assert fail(mirrored, second, 2) == [False, True]
    assert names(mirrored.routes()) == ["mirror 1", "origin 0", "mirror 2"]


def test_what_is_left_out_is_still_tried_after_the_origin(mirrored):
    first, second, _ = mirrored.routes()
    fail(mirrored, first, 5)
    fail(mirrored, second, 2)

    assert names(mirrored.routes()) == ["origin 0", "mirror 1", "mirror 2"]


def test_the_origin_is_never_left_out(mirrored):
    assert not any(fail(mirrored, mirrored.routes()[2], 100))
    assert "origin 0" in names(mirrored.routes())


def test_a_mirror_is_checked_only_while_it_is_left_out(mirrored, clock):
    assert mirrored.due_checks() == []
    assert mirrored.seconds_to_check() is None
    fail(mirrored, mirrored.routes()[1], 2)
    assert mirrored.due_checks() == []
    assert mirrored.seconds_to_check() == 5.0
    clock.now += 5.0
    (check,) = mirrored.due_checks()

    assert check.url == "https://two.example/alive"
    assert mirrored.due_checks() == []
    clock.now += 5.0
    assert len(mirrored.due_checks()) == 1


def test_a_mirror_without_a_ping_url_is_asked_for_the_root_of_the_registry(mirrored, clock):
    fail(mirrored, mirrored.routes()[0], 5)
    clock.now += 5.0

    assert [check.url for check in mirrored.due_checks()] == ["http://one.example:81/v2"]


@pytest.mark.parametrize(
    ("status", "alive"), [(200, True), (404, True), (500, False), (None, False)]
)
def test_a_mirror_comes_back_by_any_answer_below_500(mirrored, clock, status, alive):
    fail(mirrored, mirrored.routes()[1], 2)
    clock.now += 5.0
    (check,) = mirrored.due_checks()

    assert mirrored.checked(check, status) == alive
    assert (names(mirrored.routes())[1] == "mirror 2") == alive
    if alive:  # and starts from zero
        assert fail(mirrored, mirrored.routes()[1], 1) == [False]


def test_a_mirror_that_serves_a_read_is_used_again(mirrored):
    second = mirrored.routes()[1]
    fail(mirrored, second, 2)
    mirrored.succeeded(second, 1, 0.1)

    assert names(mirrored.routes())[1] == "mirror 2"


def test_a_failure_limit_of_none_is_one(clock):
    endpoints = Endpoints(Connection(mirrors=(FIRST._replace(failure_limit=0),)), clock)

    assert fail(endpoints, endpoints.routes()[0], 1) == [True]


@pytest.mark.parametrize("status", [403, 404, 416, 429, 500, 503])
def test_an_error_of_a_mirror_is_no_answer(mirrored, status):
    first, _, origin = mirrored.routes()

    assert not mirrored.is_answer(first, status)
    assert mirrored.is_answer(origin, status)


def test_who_passes_no_authentication_through_cannot_ask_for_credentials(clock):
    endpoints = Endpoints(Connection(mirrors=(SECOND,)), clock, login=True)

    assert not endpoints.is_answer(endpoints.routes()[0], 401)
    assert endpoints.is_answer(endpoints.routes()[0], 307)


@pytest.mark.parametrize("status", [301, 307, 401])
def test_login_and_redirects_are_answers_of_a_mirror_where_the_backend_knows_them(clock, status):
    for login in (False, True):
        endpoints = Endpoints(Connection(mirrors=(FIRST,)), clock, login=login)
        assert endpoints.is_answer(endpoints.routes()[0], status) == login


def test_a_request_through_the_proxy_says_that_it_is_for_p2p(clock):
    endpoints = proxied(clock)
    on_demand, prefetch = endpoints.routes(), endpoints.routes(prefetch=True)

    assert names(on_demand) == ["proxy 1", "origin 0"]
    assert on_demand[0].proxy_url == "http://proxy.example:65001"
    assert on_demand[1].proxy_url == ""
    for route in on_demand:
        assert dict(route.headers) == {"x-dragonfly-use-p2p": "true", "x-dragonfly-priority": "6"}
    for route in prefetch:
        assert dict(route.headers) == {
            "x-dragonfly-use-p2p": "true",
            "x-dragonfly-priority": "3",
            "x-dragonfly-prefetch": "true",
        }


def test_the_proxy_may_be_asked_for_http_while_the_origin_keeps_https(clock):
    proxy, origin = proxied(clock, use_http=True).routes()

    assert proxy.url(URL) == URL.replace("https", "http", 1)
    assert origin.url(URL) == URL


@pytest.mark.parametrize(
    ("status", "with_fallback"), [(206, True), (403, True), (404, True), (429, False), (500, False)]
)
def test_what_the_proxy_has_from_the_origin_is_an_answer(clock, status, with_fallback):
    falls_back, stays = proxied(clock), proxied(clock, fallback=False)

    assert falls_back.is_answer(falls_back.routes()[0], status) == with_fallback
    assert stays.is_answer(stays.routes()[0], status)


def test_a_proxy_is_pinged_at_once_and_then_in_its_interval(clock):
    endpoints = proxied(clock, ping_url="http://proxy.example/ping", check_interval=7)

    assert [check.url for check in endpoints.due_checks()] == ["http://proxy.example/ping"]
    assert endpoints.due_checks() == []
    assert endpoints.seconds_to_check() == 7.0
    clock.now += 7.0
    assert len(endpoints.due_checks()) == 1


def test_a_proxy_is_not_pinged_while_nobody_reads(clock):
    endpoints = proxied(clock, ping_url="http://proxy.example/ping", check_pause_elapsed=60)
    endpoints.due_checks()
    clock.now += 61.0
    assert endpoints.due_checks() == []
    endpoints.routes()
    clock.now += 5.0

    assert len(endpoints.due_checks()) == 1


@pytest.mark.parametrize(
    ("status", "alive"), [(200, True), (302, True), (404, False), (None, False)]
)
def test_an_unhealthy_proxy_is_passed_by(clock, status, alive):
    endpoints = proxied(clock, ping_url="http://proxy.example/ping")
    (check,) = endpoints.due_checks()
    endpoints.checked(check, status)

    assert names(endpoints.routes()) == (["proxy 1"] if alive else []) + ["origin 0"]


def test_an_unhealthy_proxy_without_fallback_fails_the_read(clock):
    endpoints = proxied(clock, ping_url="http://proxy.example/ping", fallback=False)
    (check,) = endpoints.due_checks()
    endpoints.checked(check, None)

    with pytest.raises(BackendError, match="not healthy and fallback is disabled"):
        endpoints.routes()
    endpoints.checked(check, 200)
    assert names(endpoints.routes()) == ["proxy 1"]


def test_a_proxy_that_nobody_pings_is_left_out_while_it_fails(clock):
    endpoints = proxied(clock)
    fail(endpoints, endpoints.routes()[0], 5)
    assert names(endpoints.routes()) == ["origin 0"]
    clock.now += 5.0

    assert names(endpoints.routes()) == ["proxy 1", "origin 0"]  # one read finds out
    assert names(endpoints.routes()) == ["origin 0"]
    endpoints.succeeded(Route("proxy", 1), 1, 0.1)
    assert names(endpoints.routes()) == ["proxy 1", "origin 0"]


def test_a_read_is_hedged_after_the_first_source_s_own_p95(mirrored):
    routes = mirrored.routes()
    answer(mirrored, routes[0], 0.05)
    answer(mirrored, routes[1], 0.5)

    assert mirrored.hedge_after(routes, 1000) == 0.05
    assert mirrored.hedge_after(routes[1:], 1000) == 0.5


def test_hedging_can_be_turned_off_and_needs_a_second_source(clock, mirrored):
    off = Endpoints(Connection(mirrors=(FIRST,), hedged_reads=False), clock)

    assert off.hedge_after(off.routes(), 1) is None
    assert mirrored.hedge_after(mirrored.routes()[:1], 1) is None
    assert proxied(clock).hedge_after(proxied(clock).routes(), 1) is None


def test_a_source_that_is_down_is_not_asked_to_help(mirrored):
    first, second, origin = mirrored.routes()
    fail(mirrored, second, 2)

    assert mirrored.hedge_after([first, second, origin], 1) is None


def test_at_most_one_request_of_twenty_is_sent_twice(mirrored):
    routes = mirrored.routes()
    sent_twice = 0
    for _ in range(2000):
        mirrored.hedge_after(routes, 1)
        sent_twice += mirrored.may_hedge()

    assert sent_twice <= 2000 * 0.05 + HEDGE_BURST


def test_a_source_that_has_become_slow_is_asked_last_for_a_while(mirrored, clock):
    first, second, _ = mirrored.routes()
    answer(mirrored, first, 0.05)
    answer(mirrored, second, 0.02)
    for _ in range(LOST_IN_A_ROW):
        mirrored.lost(first)
    assert names(mirrored.routes()) == ["mirror 2", "origin 0", "mirror 1"]
    clock.now += 10.0
    on_trial = mirrored.routes()

    assert names(on_trial)[0] == "mirror 1"
    assert mirrored.hedge_after(on_trial, 1000) == 0.02
    mirrored.lost(first)  # one more is enough, and it is for twice as long
    clock.now += 19.0
    assert names(mirrored.routes())[0] == "mirror 2"
    clock.now += 1.0
    assert names(mirrored.routes())[0] == "mirror 1"
    mirrored.succeeded(first, 1000, 0.05)
    mirrored.lost(first)
    assert names(mirrored.routes())[0] == "mirror 1"


def test_a_route_is_not_shown_with_what_may_be_secret():
    route = Route(
        "mirror", 1, "http://user:word@host", (("Authorization", "token"),), "http://p:q@h"
    )

    assert repr(route) == "Route(mirror 1)"
    assert f"{route}" == "Route(mirror 1)"


def test_wrong_bytes_put_a_mirror_behind_the_others_for_a_while(mirrored, clock):
    first, _, origin = mirrored.routes()

    assert mirrored.distrust(first)
    assert names(mirrored.routes()) == ["mirror 2", "origin 0", "mirror 1"]
    assert not mirrored.distrust(origin)
    clock.now += 80.0
    assert names(mirrored.routes())[0] == "mirror 1"


def test_wrong_bytes_of_a_proxy_send_reads_to_the_origin_where_that_is_allowed(clock):
    falls_back, stays = proxied(clock), proxied(clock, fallback=False)

    assert falls_back.distrust(falls_back.routes()[0])
    assert names(falls_back.routes()) == ["origin 0"]
    assert not stays.distrust(stays.routes()[0])
    assert names(stays.routes()) == ["proxy 1"]
