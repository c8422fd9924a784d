import errno
import logging
import time

import pytest

from nydusd.base.errors import BackendError, ChunkCorrupt, ConfigError, ErrorLog, check, errno_of


@pytest.mark.parametrize(
    ("exc", "code"),
    [
        (ConfigError("bad"), errno.EINVAL),
        (BackendError("gone"), errno.EIO),
        (ChunkCorrupt("ab", 3, "digest does not match"), errno.EIO),
        (OSError(errno.ENOSPC, "full"), errno.ENOSPC),
        (ZeroDivisionError(), errno.EIO),
        (KeyboardInterrupt(), errno.EIO),
    ],
)
def test_every_exception_has_an_errno_and_is_logged_once(exc, code, caplog):
    with caplog.at_level(logging.ERROR, logger="nydusd"):
        assert errno_of(exc) == code

    assert len(caplog.records) == 1


def test_a_corrupt_chunk_says_which():
    assert (
        str(ChunkCorrupt("ab", 3, "size 4, expected 5")) == "blob ab: chunk 3: size 4, expected 5"
    )


def test_check_lets_success_through():
    check(0, "nothing")
    check(7, "a count")


def test_check_turns_a_code_into_its_exception():
    with pytest.raises(FileNotFoundError, match="chunk 9: No such file"):
        check(-errno.ENOENT, "chunk %d", 9)


def test_the_same_error_is_logged_once_in_a_while(caplog, monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: now)
    now = 1000.0
    errors = ErrorLog()
    for _ in range(100):
        assert errors.errno_of(BackendError("the registry is down")) == errno.EIO
        assert errors.errno_of(OSError(errno.ENOSPC, "full")) == errno.ENOSPC
    assert len(caplog.records) == 2
    now += 61.0
    errors.errno_of(BackendError("the registry is down"))
    assert len(caplog.records) == 3


def test_corrupt_data_is_logged_once(caplog, monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: now)
    now = 1000.0
    errors = ErrorLog()
    errors.errno_of(ChunkCorrupt("b", 1, "bad"))
    now += 1e6
    errors.errno_of(ChunkCorrupt("b", 1, "bad"))
    assert len(caplog.records) == 1


def test_many_different_errors_cannot_flood_the_log(caplog, monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: now)
    now = 1000.0
    errors = ErrorLog()
    for number in range(5000):
        assert errors.errno_of(BackendError(f"no byte {number}")) == errno.EIO
    assert len(caplog.records) == 64
    now += 1.5
    errors.errno_of(BackendError("another"))
    assert "4936 more errors" in caplog.text
    assert "another" in caplog.text
    for number in range(5000):
        now += 1.5
        errors.errno_of(BackendError(f"slow {number}"))
    assert len(errors._seen) <= 1024
