import errno
import logging

import pytest

from nydusd.base.errors import BackendError, ChunkCorrupt, ConfigError, check, errno_of


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
