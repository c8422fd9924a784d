import pytest

from nydusd.backend.redirects import RedirectCache, expiry_of, next_url, origin_parts
from nydusd.base.errors import BackendError

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("query", "ends"),
    [
        ("X-Amz-Date=20231114T221320Z&X-Amz-Expires=600", NOW + 600),
        ("X-Goog-Date=20231114T221320Z&X-Goog-Expires=60", NOW + 60),
        ("x-oss-date=20231114T221320Z&x-oss-expires=60", NOW + 60),
        ("Expires=1700000300&Signature=x", NOW + 300),
        ("se=2023-11-14T22%3A23%3A20Z&sig=x", NOW + 600),
        ("Expires=5", None),
        ("Expires=x", None),
        ("X-Amz-Date=x&X-Amz-Expires=600", None),
        ("X-Amz-Date=20231114T221320Z&X-Amz-Expires=1e999", None),
        ("se=x", None),
        ("", None),
    ],
)
def test_when_a_signed_url_ends(query, ends):
    found = expiry_of(f"https://store/blob?{query}", NOW)

    assert found == ends or (ends is None and found == float("inf"))


@pytest.mark.parametrize(
    ("location", "scheme", "host", "url"),
    [
        ("/x?y=1#z", "", "", "https://r:5000/x?y=1"),
        ("http://cdn:81/x", "", "", "http://cdn:81/x"),
        ("http://cdn:81/x", "https", "edge", "https://edge:81/x"),
        ("http://cdn/x", "", "edge:444", "http://edge/x"),
        ("http://cdn:81/x", "", "[::1]:9", "http://[::1]:81/x"),
    ],
)
def test_where_a_redirect_leads(location, scheme, host, url):
    assert next_url("https://r:5000/v2/blob", location, scheme, host) == url


@pytest.mark.parametrize("url", ["", "x", "http:///x", "http://h:99999/", "http://[", "ws://h/"])
def test_what_is_no_url_to_be_asked(url):
    with pytest.raises(BackendError, match="not a URL"):
        origin_parts(url)


def test_origins_are_equal_by_what_they_mean():
    assert origin_parts("HTTP://Host/x") == origin_parts("http://host:80/y")
    assert origin_parts("https://host/") != origin_parts("http://host/")


def test_a_newer_target_is_not_dropped_with_an_older():
    cache = RedirectCache()
    cache.keep("b", "http://one/")
    cache.keep("b", "http://two/")

    cache.drop("b", "http://one/")

    assert cache.get("b") == "http://two/"


def test_a_target_is_not_used_in_its_last_seconds(monkeypatch):
    cache = RedirectCache()
    monkeypatch.setattr("time.time", lambda: NOW)
    cache.keep("b", f"http://one/?Expires={int(NOW) + 60}")
    assert cache.get("b")

    monkeypatch.setattr("time.time", lambda: NOW + 51)

    assert cache.get("b") is None
