import pytest
from hypothesis import given
from hypothesis import strategies as st

from nydusd.api.http import (
    BODY_BYTES,
    HEADERS_MAX,
    LINE_BYTES,
    MalformedRequest,
    Request,
    RequestParser,
    Response,
    encode,
    split_target,
)

GET = b"GET /api/v1/daemon HTTP/1.1\r\nHost: unix\r\n\r\n"
PUT = b'PUT /x?a=%2Fb+c HTTP/1.1\r\nContent-Length: 3\r\n\r\n{"}'


def parse(data, piece=0):
    """All requests in *data*, fed at once or in pieces."""
    parser = RequestParser()
    found = []
    pieces = [data[i : i + piece] for i in range(0, len(data), piece)] if piece else [data]
    for each in pieces:
        parser.feed(each)
        while (request := parser.next_request()) is not None:
            found.append(request)
    return found


@pytest.mark.parametrize("piece", [0, 1, 2, 7])
def test_requests_come_one_after_another_however_they_are_cut(piece):
    assert parse(GET + PUT + GET, piece) == [
        Request("GET", "/api/v1/daemon", {}, b""),
        Request("PUT", "/x", {"a": "/b c"}, b'{"}'),
        Request("GET", "/api/v1/daemon", {}, b""),
    ]


@pytest.mark.parametrize("piece", [0, 1, 5])
def test_a_chunked_body_is_put_together(piece):
    data = (
        b"POST /m HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"4;name=value\r\nwiki\r\n5\r\npedia\r\n0\r\nTrailer: t\r\n\r\n"
    )
    assert [request.body for request in parse(data + GET, piece)] == [b"wikipedia", b""]


def test_an_absolute_target_is_its_path():
    assert split_target("http://unix/api/v1/mount?mountpoint=%2F3") == (
        "/api/v1/mount",
        {"mountpoint": "/3"},
    )
    assert split_target("//api") == ("//api", {})


def test_the_first_of_two_equal_query_arguments_counts():
    assert split_target("/x?id=1&id=2&empty=")[1] == {"id": "1", "empty": ""}


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [
        ("1.1", "", True),
        ("1.1", "Connection: close\r\n", False),
        ("1.0", "", False),
        ("1.0", "Connection: Keep-Alive\r\n", True),
    ],
)
def test_who_keeps_the_connection_open(version, connection, kept):
    request = f"GET / HTTP/{version}\r\n{connection}\r\n".encode()

    assert parse(request)[0].keep_alive is kept


def head(*lines):
    return "\r\n".join(["PUT / HTTP/1.1", *lines, "", ""]).encode()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"OPTIONS / HTTP/1.1\r\n\r\n", "Unsupported HTTP method."),
        (b"get / HTTP/1.1\r\n\r\n", "Unsupported HTTP method."),
        (b"GET / HTTP/2.0\r\n\r\n", "Unsupported HTTP version."),
        (b"GET /\r\n\r\n", "Invalid request."),
        (b"GET  / HTTP/1.1\r\n\r\n", "Invalid request."),
        (b"GET /\x00 HTTP/1.1\r\n\r\n", "Invalid URI"),
        (b"GET ftp://x/ HTTP/1.1\r\n\r\n", "Invalid URI"),
        (b"GET http://[x/ HTTP/1.1\r\n\r\n", "Invalid URI"),
        (b"GET /?" + b"a&" * 200 + b" HTTP/1.1\r\n\r\n", "Too many fields"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "Invalid"),
        (head("Content-Length: x"), "Invalid content length."),
        (head("Content-Length: -1"), "Invalid content length."),
        (head("Content-Length: 1", "Content-Length: 2"), "Invalid content length."),
        (head("Content-Length: 60000"), "size 60000 is larger than the limit of 51200"),
        (head("Content-Length: 1", "Transfer-Encoding: chunked"), "Both a length and chunks."),
        (head("Transfer-Encoding: gzip"), "Unsupported value."),
        (head("no colon"), "Invalid name."),
        (head(" Folded: x"), "Invalid name."),
        (head("A: b\nC: d\0"), "Invalid name."),
        (head(*["A: b"] * (HEADERS_MAX + 1)), "headers"),
        (head("A: " + "x" * LINE_BYTES), "Invalid request."),
        (head("Transfer-Encoding: chunked") + b"zz\r\n", "Invalid request."),
        (head("Transfer-Encoding: chunked") + b"3\r\nabcd\r\n", "Invalid request."),
        (head("Transfer-Encoding: chunked") + b"ffffff\r\n", "larger than the limit"),
    ],
)
@pytest.mark.parametrize("piece", [0, 3])
def test_what_is_no_request_is_told(data, text, piece):
    with pytest.raises(MalformedRequest, match=text.replace(".", r"\.")):
        parse(data, piece)


@pytest.mark.parametrize("data", [b"A" * 70000, b"GET /" + b"a" * 70000, b"GET / HTTP/1.1\r\nA: "])
def test_a_head_without_an_end_is_not_kept_without_limit(data):
    with pytest.raises(MalformedRequest):
        parse((data + b"x" * 4096) * 40, piece=4096)


def test_many_small_chunks_are_limited_as_one_large():
    data = head("Transfer-Encoding: chunked") + b"1\r\nx\r\n" * (BODY_BYTES + 1)
    with pytest.raises(MalformedRequest, match="larger than the limit"):
        parse(data, piece=60)


def test_a_body_of_the_largest_size_is_taken():
    body = b"x" * BODY_BYTES

    assert parse(head(f"Content-Length: {BODY_BYTES}") + body)[0].body == body


def test_a_client_that_waits_for_it_is_told_to_go_on_once():
    parser = RequestParser()
    parser.feed(head("Content-Length: 2", "Expect: 100-continue"))
    assert parser.next_request() is None
    assert [parser.wants_continue(), parser.wants_continue()] == [True, False]
    parser.feed(b"{}")

    assert parser.next_request().body == b"{}"
    assert not parser.wants_continue()


def test_an_answer_without_a_body_has_no_length():
    assert encode(Response(204)) == (
        b"HTTP/1.1 204 \r\nServer: Nydus API\r\nConnection: keep-alive\r\n\r\n"
    )


def test_an_answer_with_a_body_tells_its_length():
    assert encode(Response(200, b"{}")) == (
        b"HTTP/1.1 200 \r\nServer: Nydus API\r\nConnection: keep-alive\r\n"
        b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )


@given(st.binary(max_size=300), st.integers(0, 50))
def test_any_bytes_are_requests_or_malformed(noise, cut):
    data = GET[:cut] + noise + PUT
    try:
        assert len(parse(data)) <= len(data) // 16
    except MalformedRequest as exc:
        told = exc.text
    else:
        told = ""
    assert told.isprintable()
