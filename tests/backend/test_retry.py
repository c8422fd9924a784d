import threading

import pytest

from nydusd.backend import retry
from nydusd.backend.retry import RetryPolicy, may_retry
from nydusd.base.errors import BackendError, FailureKind
from nydusd.config.model import Connection


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        ("100000", retry.RETRY_AFTER_MAX_SECONDS),
        ("-3", 0.0),
        ("soon", 0.0),
        ("", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", retry.RETRY_AFTER_MAX_SECONDS),
    ],
)
def test_retry_after(text, seconds):
    assert retry.retry_after_seconds(text) == seconds


def broken():
    return BackendError("gone", FailureKind.BROKEN)


@pytest.mark.parametrize(
    ("limit", "background", "tries"), [(0, False, 4), (2, False, 3), (0, True, 2), (9, True, 2)]
)
def test_how_often_it_is_tried(limit, background, tries, monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.0)
    attempts = RetryPolicy(Connection(retry_limit=limit)).attempts(background=background)

    for _ in range(tries - 1):
        attempts.fail(broken())
    with pytest.raises(BackendError, match=f"tried {tries} times"):
        attempts.fail(broken())


def test_no_attempt_starts_after_the_end_of_the_read(monkeypatch):
    monkeypatch.setattr(retry, "READ_SECONDS", 0.0)
    attempts = RetryPolicy(Connection(timeout=0)).attempts()

    with pytest.raises(BackendError, match="gone"):
        attempts.fail(broken())


def test_an_attempt_has_what_is_left_of_the_read(monkeypatch):
    monkeypatch.setattr(retry, "READ_SECONDS", 1.0)
    assert RetryPolicy(Connection(timeout=1)).attempts().seconds <= 1.0
    assert 5.0 < RetryPolicy(Connection(timeout=7)).attempts().seconds <= 7.0
    assert RetryPolicy(Connection(timeout=0)).attempts().seconds == 0.0


def test_all_readers_leave_a_server_alone_that_asks_for_it(monkeypatch):
    monkeypatch.setattr(retry, "READ_SECONDS", 5.0)
    policy = RetryPolicy(Connection())
    told = BackendError("busy", FailureKind.STATUS, status=429, retry_after=30.0)

    with pytest.raises(BackendError, match="busy"):
        policy.attempts().fail(told)
    with pytest.raises(BackendError, match="longer pause"):
        policy.attempts().wait_to_start()


def test_closing_ends_a_pause(monkeypatch):
    for name in ("READ_SECONDS", "FIRST_PAUSE_SECONDS", "LONGEST_PAUSE_SECONDS"):
        monkeypatch.setattr(retry, name, 1000.0)  # a test has less
    policy = RetryPolicy(Connection())
    threading.Timer(0.05, policy.close).start()

    with pytest.raises(BackendError, match="gone"):
        policy.attempts().fail(broken())


@pytest.mark.parametrize(
    ("kind", "status", "again"),
    [
        (FailureKind.BROKEN, 0, True),
        (FailureKind.TIMEOUT, 0, True),
        (FailureKind.STATUS, 503, True),
        (FailureKind.STATUS, 429, True),
        (FailureKind.STATUS, 404, False),
        (FailureKind.AUTH, 401, False),
        (FailureKind.REDIRECT, 0, False),
        (FailureKind.CONFIG, 0, False),
        (FailureKind.CANCELLED, 0, False),
    ],
)
def test_what_is_worth_a_retry(kind, status, again):
    assert may_retry(BackendError("x", kind, status=status)) is again
