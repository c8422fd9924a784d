"""The kernel's on-demand cachefiles requests, taken apart with every length checked.

Format: Linux, Documentation/filesystems/caching/cachefiles.rst, "On-demand Read", and
include/uapi/linux/cachefiles.h. One message a read; numbers are of the machine's byte order.
"""

import struct
from typing import Final

from nydusd.base.errors import NydusError
from nydusd.base.record import NamedTuple

# The kernel's are at most 1024 bytes; it refuses a read whose buffer is too small for one.
MOST_MESSAGE_BYTES: Final = 4096
HEADER: Final = struct.Struct("=IIII")  # message, operation, length of all, object
OPEN: Final = struct.Struct("=IIII")  # bytes of volume key and cookie key, descriptor, flags
READ: Final = struct.Struct("=QQ")  # offset, length

OPERATION_OPEN: Final = 0
OPERATION_CLOSE: Final = 1
OPERATION_READ: Final = 2

VOLUME_PREFIX: Final = "erofs,"


class MessageError(NydusError):
    """Bytes that are no request; nothing can be answered."""


class OpenRequest(NamedTuple):
    """The kernel has a cache file *fd* for us to write, and wants to know how large it is."""

    message_id: int
    object_id: int
    volume: str  # EROFS: the domain of the image
    cookie: str  # EROFS: the id of the blob
    fd: int  # now ours to close; cannot be read


class CloseRequest(NamedTuple):
    """The kernel needs the object no more; there is no answer."""

    object_id: int


class ReadRequest(NamedTuple):
    """Somebody waits for a range of the object's cache file to be written."""

    message_id: int
    object_id: int
    offset: int
    length: int


Request = OpenRequest | CloseRequest | ReadRequest


def parse_request(data: bytes) -> Request:
    """The request in *data*; `MessageError`."""
    if len(data) < HEADER.size:
        raise MessageError(f"a message of {len(data)} bytes")
    message_id, operation, length, object_id = HEADER.unpack_from(data)
    if length != len(data):
        raise MessageError(f"a message of {len(data)} bytes that says it has {length}")
    payload = data[HEADER.size :]
    if operation == OPERATION_OPEN:
        return _parse_open(message_id, object_id, payload)
    if operation == OPERATION_CLOSE:
        return CloseRequest(object_id)
    if operation == OPERATION_READ:
        if len(payload) < READ.size:
            raise MessageError(f"a read request with {len(payload)} bytes")
        return ReadRequest(message_id, object_id, *READ.unpack_from(payload))
    raise MessageError(f"operation {operation}")


def _parse_open(message_id: int, object_id: int, payload: bytes) -> OpenRequest:
    if len(payload) < OPEN.size:
        raise MessageError(f"an open request with {len(payload)} bytes")
    volume_bytes, cookie_bytes, fd, _flags = OPEN.unpack_from(payload)
    keys = payload[OPEN.size :]
    if volume_bytes > len(keys) or cookie_bytes > len(keys) - volume_bytes:
        raise MessageError(f"an open request with keys of {volume_bytes} and {cookie_bytes} bytes")
    if fd > 0x7FFF_FFFF:
        raise MessageError(f"an open request with descriptor {fd}")
    # A volume key ends with a NUL, a cookie key does not. What is not UTF-8 names nothing of ours.
    volume = keys[:volume_bytes].rstrip(b"\0").decode("utf-8", "replace")
    cookie = keys[volume_bytes : volume_bytes + cookie_bytes].decode("utf-8", "replace")
    return OpenRequest(message_id, object_id, volume.removeprefix(VOLUME_PREFIX), cookie, fd)
