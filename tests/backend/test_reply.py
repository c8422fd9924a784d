import pytest
from hypothesis import given
from hypothesis import strategies as st

from nydusd.backend.reply import Reply

SIZE = 100


def ranged(buffer, offset=50, skip_max=0):
    return Reply(buffer, offset, 0, True, skip_max)


def feed(reply, status, headers, *pieces):
    """Hand a response over as libcurl does; what `take_body` said of each piece."""
    reply.take_header(b"HTTP/1.1 %d Text\r\n" % status)
    for name, value in headers.items():
        reply.take_header(f"{name}: {value}\r\n".encode("latin-1"))
    reply.take_header(b"\r\n")
    return [reply.take_body(piece) for piece in pieces]


def test_a_range_in_pieces_fills_the_buffer():
    buffer = bytearray(SIZE)
    reply = ranged(buffer)

    said = feed(reply, 206, {"Content-Range": "bytes 50-149/1000"}, b"a" * 60, b"b" * 40)

    assert said == [60, 40]
    assert buffer == b"a" * 60 + b"b" * 40
    assert (reply.received, reply.refusal) == (SIZE, "")


def test_one_byte_too_many_is_refused_before_it_is_written():
    buffer = bytearray(SIZE)
    reply = ranged(buffer)

    assert feed(reply, 206, {"Content-Range": "bytes 50-149/1000"}, b"a" * 101) == [0]
    assert reply.refusal == "more bytes than were asked for"
    assert buffer == bytes(SIZE)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Length": "99"},
        {"Content-Range": "bytes 49-148/1000"},
        {"Content-Range": "bytes 50-150/1000"},
        {"Content-Range": "bytes */1000"},
        {"Content-Range": "items 50-149/1000"},
        {"Content-Range": "bytes 50-149/1000", "Content-Encoding": "gzip"},
        {"Content-Range": "bytes " + "9" * 5000 + "-149/1000"},
        {"Content-Type": "multipart/byteranges; boundary=x"},
    ],
)
def test_headers_that_do_not_promise_the_range_are_refused(headers):
    buffer = bytearray(SIZE)
    reply = ranged(buffer)

    assert feed(reply, 206, headers, b"a" * SIZE) == [0]
    assert reply.refusal
    assert buffer == bytes(SIZE)


def test_the_right_length_stands_for_a_content_range_that_is_missing():
    reply = ranged(bytearray(SIZE))

    assert feed(reply, 206, {"Content-Length": "100"}, b"a" * SIZE) == [SIZE]


def test_of_a_whole_blob_the_range_is_taken_and_the_rest_not_read():
    buffer = bytearray(SIZE)
    reply = ranged(buffer, skip_max=50)

    said = feed(reply, 200, {}, bytes(range(40)), bytes(range(40, 160)), b"more")

    assert said == [40, 0, 0]
    assert buffer == bytes(range(50, 150))
    assert reply.complete
    assert not reply.refusal


def test_the_text_of_an_error_never_reaches_the_buffer():
    buffer = bytearray(SIZE)
    reply = ranged(buffer)

    said = feed(reply, 500, {}, *[b"e" * 16384] * 4)

    assert said[0] == 16384
    assert said[-1] == 0
    assert len(reply.body) <= 4096
    assert buffer == bytes(SIZE)


def test_the_last_header_block_counts():
    reply = ranged(bytearray(SIZE))
    feed(reply, 100, {"X-One": "1"})
    feed(reply, 206, {"Content-Range": "bytes 50-149/1000", "X-Two": "2", "x-two": "3"})

    assert reply.status == 206
    assert "x-one" not in reply.headers
    assert reply.headers["x-two"] == "2, 3"


def test_a_detached_buffer_is_free_and_stays_as_it_is():
    buffer = bytearray(SIZE)
    reply = ranged(buffer)
    feed(reply, 206, {"Content-Range": "bytes 50-149/1000"}, b"a" * 10)

    reply.detach()
    reply.detach()

    assert reply.take_body(b"b" * 10) == 0
    assert buffer == b"a" * 10 + bytes(SIZE - 10)
    buffer.clear()


def test_a_read_only_buffer_is_refused():
    with pytest.raises(BufferError):
        ranged(b"x" * SIZE)


HEADERS = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b"HTTP/1.1 206 OK\r\n",
            b"HTTP/2 200 \r\n",
            b"HTTP/1.1 999\r\n",
            b"HTTP/1.1 \r\n",
            b"Content-Range: bytes 50-149/1000\r\n",
            b"Content-Length: 100\r\n",
            b"Content-Range: bytes 0-9/*\r\n",
        ]
    ),
)


@given(
    st.lists(HEADERS, max_size=8),
    st.lists(st.binary(max_size=80), max_size=8),
    st.integers(0, 100),
    st.booleans(),
)
def test_whatever_a_server_says_nothing_is_written_beside_the_buffer(
    lines, pieces, skip_max, in_memory
):
    whole = bytearray(SIZE + 20)
    inside = memoryview(whole)[10 : 10 + SIZE]
    reply = Reply(None if in_memory else inside, 50, SIZE, True, skip_max)

    for line in lines:
        reply.take_header(line)
    for piece in pieces:
        assert reply.take_body(piece) in (0, len(piece))
    reply.finish()
    reply.detach()

    assert reply.received <= SIZE
    assert whole[:10] == whole[-10:] == bytes(10)
    if reply.received and not in_memory:
        assert reply.status in (200, 206)
