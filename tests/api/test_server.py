import asyncio
import json

import pytest
import uvloop

from nydusd.api.http import Response
from nydusd.api.server import UNREAD_BYTES, Connection, ConnectionLimit

WAIT_S = 20


class Answers:
    """Answers each request with its path; those for /slow when `gate` is set."""

    def __init__(self):
        self.begun = []
        self.gate = asyncio.Event()

    def __call__(self, request):
        self.begun.append(request.path)
        response = Response(200, json.dumps(request.path).encode())
        return self.later(response) if request.path == "/slow" else response

    async def later(self, response):
        await self.gate.wait()
        return response


def with_server(path, test, most=10):
    """Run *test(answers, connect)* against a server in an event loop of its own."""

    async def run():
        answers, limit = Answers(), ConnectionLimit(most)
        server = await asyncio.get_running_loop().create_unix_server(
            lambda: Connection(answers, limit), path=str(path)
        )
        try:
            await asyncio.wait_for(
                test(answers, lambda: asyncio.open_unix_connection(str(path))), WAIT_S
            )
        finally:
            server.close()

    uvloop.run(run())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s"


def get(target):
    return f"GET {target} HTTP/1.1\r\n\r\n".encode()


async def body(reader):
    """The body of the next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
    return json.loads(await reader.readexactly(length))


def test_a_slow_answer_delays_its_own_connection_alone(path):
    async def test(answers, connect):
        first, write_first = await connect()
        second, write_second = await connect()
        write_first.write(get("/slow") + get("/after"))
        write_second.write(get("/quick"))
        assert await body(second) == "/quick"
        assert "/after" not in answers.begun
        answers.gate.set()
        assert [await body(first), await body(first)] == ["/slow", "/after"]
        write_first.close()
        write_second.close()

    with_server(path, test)


def test_a_client_that_sends_ahead_is_not_read_without_limit(path):
    async def test(answers, connect):
        reader, writer = await connect()
        writer.write(get("/slow"))
        long = get("/n").replace(b"\r\n\r\n", b"\r\nPadding: " + b"x" * 4000 + b"\r\n\r\n")
        count = 20 * UNREAD_BYTES // len(long)
        writer.write(long * count)
        # What the daemon does not read stays with the client.
        await asyncio.sleep(0)
        while "/slow" not in answers.begun:
            await asyncio.sleep(0.01)
        assert writer.transport.get_write_buffer_size() > 0
        assert answers.begun == ["/slow"]
        answers.gate.set()
        for _ in range(count + 1):
            last = await body(reader)
        assert last == "/n"
        writer.close()

    with_server(path, test)


def test_a_connection_too_many_is_told_so(path):
    async def test(_answers, connect):
        opened = [await connect() for _ in range(2)]
        for _, writer in opened:
            writer.write(get("/x"))
        assert [await body(reader) for reader, _ in opened] == ["/x", "/x"]
        reader, writer = await connect()
        refused = await reader.read()
        assert refused.startswith(b"HTTP/1.1 503 \r\nServer: Firecracker API\r\n")
        assert refused.endswith(b'{ "error": "Too many open connections" }')
        writer.close()
        opened[0][1].write(get("/y"))
        assert await body(opened[0][0]) == "/y"
        for _, writer in opened:
            writer.close()

    with_server(path, test, most=2)


def test_a_client_that_has_said_all_still_gets_its_answer(path):
    async def test(answers, connect):
        reader, writer = await connect()
        writer.write(get("/slow"))
        writer.write_eof()
        while "/slow" not in answers.begun:
            await asyncio.sleep(0.01)
        answers.gate.set()
        assert await body(reader) == "/slow"
        assert await reader.read() == b""
        writer.close()

    with_server(path, test)
