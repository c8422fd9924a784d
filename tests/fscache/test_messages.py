"""Messages of the kernel, and what only looks like one."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nydusd.fscache.messages import (
    CloseRequest,
    MessageError,
    OpenRequest,
    ReadRequest,
    parse_request,
)


def message(operation, payload=b"", length=None):
    total = 16 + len(payload) if length is None else length
    return struct.pack("=IIII", 7, operation, total, 9) + payload


def open_payload(volume=b"erofs,shop\0", cookie=b"app", fd=5, sizes=None):
    sizes = sizes or (len(volume), len(cookie))
    return struct.pack("=IIII", *sizes, fd, 0) + volume + cookie


def test_the_three_requests():
    assert parse_request(message(0, open_payload())) == OpenRequest(7, 9, "shop", "app", 5)
    assert parse_request(message(1)) == CloseRequest(9)
    read = struct.pack("=QQ", 1 << 40, (1 << 64) - 1)
    assert parse_request(message(2, read)) == ReadRequest(7, 9, 1 << 40, (1 << 64) - 1)


def test_a_volume_without_the_prefix_is_a_domain_too():
    assert parse_request(message(0, open_payload(volume=b"shop"))).volume == "shop"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        message(0)[:15],
        message(0),
        message(3),
        message(1, length=17),
        message(2, bytes(15)),
        message(0, open_payload(fd=0x8000_0000)),
        message(0, open_payload(sizes=(11, 4))),
        message(0, open_payload(sizes=(15, 0))),
        message(0, open_payload(sizes=(0xFFFF_FFFF, 0xFFFF_FFFF))),
    ],
)
def test_what_is_no_request_is_refused(data):
    with pytest.raises(MessageError):
        parse_request(data)


@given(st.binary(max_size=64), st.sampled_from([0, 1, 2, 3, 0xFFFF_FFFF]))
def test_any_bytes_are_a_request_or_refused(payload, operation):
    with contextlib.suppress(MessageError):
        parse_request(message(operation, payload))
