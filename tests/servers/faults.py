"""Answers that a sound server never gives, each by its name.

Every one is a function of an `Exchange`; `functools.partial` sets what it can be told. Together
they are what the fault matrix plays.
"""

from __future__ import annotations

import gzip

from tests.servers.loopback import Exchange, Gone, Play


def delay(exchange: Exchange, seconds: float = 0.3) -> None:
    """The right answer, late."""
    exchange.hang(seconds)
    exchange.server.respond(exchange)


def delay_then(play: Play, seconds: float) -> Play:
    """*play*, late."""

    def run(exchange: Exchange) -> None:
        exchange.hang(seconds)
        play(exchange)

    return run


def stall(exchange: Exchange) -> None:
    """Nothing at all."""
    exchange.hang()


def stall_in_headers(exchange: Exchange) -> None:
    """A status line and half a header, then nothing."""
    exchange.send(b"HTTP/1.1 206 Partial Content\r\nContent-Le")
    exchange.hang()


def stall_in_body(exchange: Exchange) -> None:
    """Half the body, then nothing."""
    body = _part_head(exchange)
    exchange.send(body[: len(body) // 2])
    exchange.hang()


def trickle(exchange: Exchange, pause: float = 0.1) -> None:
    """The right answer, a byte at a time."""
    for byte in _part_head(exchange):
        exchange.send(bytes([byte]))
        exchange.hang(pause)


def trickle_headers(exchange: Exchange, pause: float = 0.1) -> None:
    """A header line at a time, without an end."""
    exchange.send(b"HTTP/1.1 206 Partial Content\r\n")
    number = 0
    while not exchange.server.healed.is_set():
        exchange.send(f"X-Line-{number}: {number}\r\n".encode())
        number += 1
        exchange.hang(pause)
    raise Gone


def reset(exchange: Exchange) -> None:
    """RST instead of an answer."""
    exchange.reset()


def reset_in_body(exchange: Exchange) -> None:
    """Half the body, then RST."""
    body = _part_head(exchange)
    exchange.send(body[: len(body) // 2])
    exchange.reset()


def close(exchange: Exchange) -> None:
    """The end of the connection instead of an answer."""
    raise Gone


def close_in_body(exchange: Exchange, size: int = -1) -> None:
    """Fewer bytes than the length promises, then the end of the connection.

    *size* is how many; -1: all but one.
    """
    body = _part_head(exchange)
    exchange.send(body[:size])
    raise Gone


def short_body(exchange: Exchange, size: int | None = None) -> None:
    """A sound 206 of fewer bytes than were asked for.

    *size* is how many; None: half.
    """
    body = exchange.part[: len(exchange.part) // 2 if size is None else size]
    first = (exchange.request.range or (0, None))[0]
    total = len(exchange.content or b"")
    exchange.answer(206, body, Content_Range=f"bytes {first}-{first + len(body) - 1}/{total}")


def empty_body(exchange: Exchange) -> None:
    """A 206 without a byte."""
    exchange.answer(206, b"", Content_Range=exchange.part_headers().get("Content-Range", ""))


def long_body(exchange: Exchange, extra: bytes = b"\xaa" * 4096) -> None:
    """More bytes than were asked for; the first ones are right."""
    _send_part(exchange, exchange.part + extra)


def endless_body(exchange: Exchange) -> None:
    """No length, and bytes that never end."""
    exchange.head(206, exchange.part_headers())
    exchange.send(exchange.part)
    while not exchange.server.healed.is_set():
        exchange.send(b"\xaa" * 65536)
    raise Gone


def corrupt_body(exchange: Exchange) -> None:
    """The right number of wrong bytes."""
    _send_part(exchange, bytes(byte ^ 0x5A for byte in exchange.part))


def other_range(exchange: Exchange) -> None:
    """A sound 206 of another place in the object."""
    size = len(exchange.part)
    first = 0 if (exchange.request.range or (0, 0))[0] else 1
    content = exchange.content or b""
    body = content[first : first + size].ljust(size, b"\0")
    exchange.answer(206, body, Content_Range=f"bytes {first}-{first + size - 1}/{len(content)}")


def no_content_range(exchange: Exchange) -> None:
    """A 206 that does not say which bytes it has; they are right."""
    exchange.answer(206, exchange.part)


def garbled_content_range(exchange: Exchange) -> None:
    """A 206 whose Content-Range cannot be read."""
    exchange.answer(206, exchange.part, Content_Range="bytes x-y/" + "9" * 400)


def whole_object(exchange: Exchange) -> None:
    """200 and everything, for a range."""
    exchange.answer(200, exchange.content or b"")


def error_page(exchange: Exchange) -> None:
    """200 and a page of HTML: a captive portal."""
    exchange.answer(200, b"<html>please log in</html>", Content_Type="text/html")


def no_content(exchange: Exchange) -> None:
    """204."""
    exchange.head(204, {})


def status(
    exchange: Exchange, code: int = 500, retry_after: str = "", body: bytes | None = None
) -> None:
    """An error status; *body* may hold what must not be repeated."""
    headers = {"Retry_After": retry_after} if retry_after else {}
    exchange.answer(code, f"status {code}\n".encode() if body is None else body, **headers)


def echo_request(exchange: Exchange, code: int = 403) -> None:
    """An error whose body repeats the request with all its headers, as debugging pages do."""
    lines = [f"{name}: {value}" for name, value in exchange.request.headers.items()]
    exchange.answer(code, "\n".join([exchange.request.target, *lines]).encode())


def redirect(exchange: Exchange, location: str, code: int = 307) -> None:
    """To *location*, whatever that is."""
    exchange.answer(code, Location=location)


def redirect_loop(exchange: Exchange) -> None:
    """To where the request came from."""
    exchange.answer(307, Location=exchange.server.url + exchange.request.path)


def redirect_growing(exchange: Exchange) -> None:
    """To a new place of the same server each time, without an end."""
    exchange.answer(307, Location=f"{exchange.server.url}{exchange.request.path}x")


def redirect_without_location(exchange: Exchange) -> None:
    """307, and no word of where."""
    exchange.answer(307)


def garbage(
    exchange: Exchange, data: bytes = b"\x00\x01\x02 this is not http \xff\r\n\r\n"
) -> None:
    """What is no HTTP at all."""
    exchange.send(data)
    raise Gone


def garbled_header(exchange: Exchange) -> None:
    """Header lines without a colon, and with control characters; the rest is right."""
    part = exchange.part
    exchange.send(
        b"HTTP/1.1 206 Partial Content\r\nno colon here\r\nX-\x01\x02: \x7f\r\n"
        + f"Content-Range: {exchange.part_headers().get('Content-Range', '')}\r\n".encode()
        + f"Content-Length: {len(part)}\r\n\r\n".encode()
    )
    exchange.send(part)


def huge_header(exchange: Exchange, size: int = 4 << 20) -> None:
    """A header of megabytes."""
    exchange.send(b"HTTP/1.1 206 Partial Content\r\nX-Huge: ")
    for _ in range(size // 65536):
        exchange.send(b"a" * 65536)
    exchange.send(f"\r\nContent-Length: {len(exchange.part)}\r\n\r\n".encode())
    exchange.send(exchange.part)


def many_headers(exchange: Exchange, count: int = 100_000) -> None:
    """A hundred thousand headers."""
    exchange.send(b"HTTP/1.1 206 Partial Content\r\n")
    for first in range(0, count, 1000):
        exchange.send(b"".join(b"X-%d: y\r\n" % each for each in range(first, first + 1000)))
    exchange.send(f"Content-Length: {len(exchange.part)}\r\n\r\n".encode())
    exchange.send(exchange.part)


def endless_early_answers(exchange: Exchange) -> None:
    """100 Continue again and again, and never an answer."""
    while not exchange.server.healed.is_set():
        exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        exchange.hang(0.02)
    raise Gone


def two_lengths(exchange: Exchange) -> None:
    """Two Content-Length headers that contradict each other."""
    part = exchange.part
    head = f"HTTP/1.1 206 Partial Content\r\nContent-Length: {len(part)}\r\nContent-Length: 3\r\n"
    range_line = f"Content-Range: {exchange.part_headers().get('Content-Range', '')}\r\n\r\n"
    exchange.send((head + range_line).encode())
    exchange.send(part)
    raise Gone


def negative_length(exchange: Exchange) -> None:
    """A Content-Length below zero."""
    exchange.send(b"HTTP/1.1 206 Partial Content\r\nContent-Length: -5\r\n\r\n")
    exchange.send(exchange.part)
    raise Gone


def chunked(exchange: Exchange) -> None:
    """The right answer in transfer chunks: allowed, if seldom seen."""
    _chunked_head(exchange)
    part = exchange.part
    half = max(1, len(part) // 2)
    for piece in (part[:half], part[half:]):
        if piece:
            exchange.send(b"%x\r\n%s\r\n" % (len(piece), piece))
    exchange.send(b"0\r\n\r\n")


def broken_chunks(exchange: Exchange) -> None:
    """Transfer chunks whose sizes are no numbers."""
    _chunked_head(exchange)
    exchange.send(b"zz\r\n" + exchange.part[:100])
    raise Gone


def cut_chunks(exchange: Exchange) -> None:
    """Transfer chunks without the last one."""
    _chunked_head(exchange)
    part = exchange.part[:-1]
    exchange.send(b"%x\r\n%s\r\n" % (len(part), part))
    raise Gone


def compressed(exchange: Exchange) -> None:
    """A body compressed for the way, which nobody asked for."""
    body = gzip.compress(exchange.part)
    headers = {name.replace("-", "_"): value for name, value in exchange.part_headers().items()}
    exchange.answer(206, body, Content_Encoding="gzip", **headers)


def multipart(exchange: Exchange) -> None:
    """The range as one of several parts."""
    inner = exchange.part_headers().get("Content-Range", "")
    body = (
        f"--cut\r\nContent-Type: text/plain\r\nContent-Range: {inner}\r\n\r\n".encode()
        + exchange.part
        + b"\r\n--cut--\r\n"
    )
    exchange.answer(206, body, Content_Type="multipart/byteranges; boundary=cut")


def old_protocol(exchange: Exchange) -> None:
    """The right answer in HTTP/1.0: no length, the end of the connection ends it."""
    inner = exchange.part_headers().get("Content-Range", "")
    exchange.send(f"HTTP/1.0 206 Partial Content\r\nContent-Range: {inner}\r\n\r\n".encode())
    exchange.send(exchange.part)
    raise Gone


def always_close(exchange: Exchange) -> None:
    """The right answer, and a new connection needed for each."""
    exchange.keep_alive = False
    headers = {name.replace("-", "_"): value for name, value in exchange.part_headers().items()}
    exchange.answer(206, exchange.part, Connection="close", **headers)


def first(play: Play, times: int) -> Play:
    """*play* for the first *times* requests, then the right answer."""
    left = [times]

    def run(exchange: Exchange) -> None:
        if left[0] > 0:
            left[0] -= 1
            play(exchange)
        else:
            exchange.server.respond(exchange)

    return run


def _part_head(exchange: Exchange) -> bytes:
    """Send the head of the right answer; its body, for the caller to send."""
    length = {"Content-Length": str(len(exchange.part))}
    exchange.head(206, {**exchange.part_headers(), **length})
    return exchange.part


def _send_part(exchange: Exchange, body: bytes) -> None:
    headers = {name.replace("-", "_"): value for name, value in exchange.part_headers().items()}
    exchange.answer(206, body, **headers)


def _chunked_head(exchange: Exchange) -> None:
    exchange.head(206, {**exchange.part_headers(), "Transfer-Encoding": "chunked"})
