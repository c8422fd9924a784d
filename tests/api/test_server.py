import asyncio
import contextlib
import json
import os
import socket
import threading

import pytest
import uvloop

from nydusd.api.early import EarlyLoop
from nydusd.api.event_loop import listen
from nydusd.api.http import Response
from nydusd.api.server import UNREAD_BYTES, Connection, ConnectionLimit, Pending

WAIT_S = 60


class Answers:
    """Answers each request with its path; those for /slow when they are released."""

    def __init__(self):
        self.begun = []
        self.waiting = []

    def __call__(self, request):
        self.begun.append(request.path)
        response = Response(200, json.dumps(request.path).encode())
        if request.path != "/slow":
            return response
        pending = Pending()
        self.waiting.append((pending.set, response))
        return pending


class Served:
    """What a test sees of a server."""

    def __init__(self, answers, loop, path):
        self.answers = answers
        self._loop = loop
        self._path = str(path)

    async def connect(self):
        return await asyncio.open_unix_connection(self._path)

    async def release(self):
        """Answer what is asked for at /slow, once it has been asked."""
        while not self.answers.waiting:
            await asyncio.sleep(0.005)
        for callback, response in self.answers.waiting:
            self._loop.call_soon_threadsafe(callback, response)


def listening(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen(64)
    sock.setblocking(False)
    return sock


@contextlib.contextmanager
def turning(loop, wake):
    """Turn *loop* in a thread of its own."""
    is_over = threading.Event()

    def turns():
        while not is_over.is_set():
            loop.turn(None)

    thread = threading.Thread(target=turns)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        os.eventfd_write(wake, 1)
        thread.join()


def with_early_server(sock, path, make, answers, test):
    wake = os.eventfd(0)
    loop = EarlyLoop([(sock, make)], wake, lambda: os.eventfd_read(wake))
    with turning(loop, wake):
        asyncio.run(asyncio.wait_for(test(Served(answers, loop, path)), WAIT_S))
    loop.close()
    os.close(wake)


def with_uvloop_server(sock, path, make, answers, test):
    async def run():
        loop = asyncio.get_running_loop()
        (server,) = await listen(loop, [(sock, make)], [])
        try:
            await asyncio.wait_for(test(Served(answers, loop, path)), WAIT_S)
        finally:
            server.close()

    uvloop.run(run())


@pytest.fixture(params=[with_early_server, with_uvloop_server], ids=["early", "uvloop"])
def with_server(request, tmp_path):
    """Runs a test against a server with at most so many connections."""

    def run(test, most=10):
        answers, limit = Answers(), ConnectionLimit(most)
        with listening(tmp_path / "s") as sock:
            request.param(sock, tmp_path / "s", lambda: Connection(answers, limit), answers, test)

    return run


def get(target):
    return f"GET {target} HTTP/1.1\r\n\r\n".encode()


async def body(reader):
    """The body of the next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
    return json.loads(await reader.readexactly(length))


def test_a_slow_answer_delays_its_own_connection_alone(with_server):
    async def test(served):
        first, write_first = await served.connect()
        second, write_second = await served.connect()
        write_first.write(get("/slow") + get("/after"))
        write_second.write(get("/quick"))
        assert await body(second) == "/quick"
        assert "/after" not in served.answers.begun
        await served.release()
        assert [await body(first), await body(first)] == ["/slow", "/after"]
        write_first.close()
        write_second.close()

    with_server(test)


def test_a_client_that_sends_ahead_is_not_read_without_limit(with_server):
    async def test(served):
        reader, writer = await served.connect()
        writer.write(get("/slow"))
        long = get("/n").replace(b"\r\n\r\n", b"\r\nPadding: " + b"x" * 4000 + b"\r\n\r\n")
        count = 20 * UNREAD_BYTES // len(long)
        writer.write(long * count)
        # What the daemon does not read stays with the client.
        await asyncio.sleep(0)
        while "/slow" not in served.answers.begun:
            await asyncio.sleep(0.01)
        assert writer.transport.get_write_buffer_size() > 0
        assert served.answers.begun == ["/slow"]
        await served.release()
        for _ in range(count + 1):
            last = await body(reader)
        assert last == "/n"
        writer.close()

    with_server(test)


def test_a_connection_too_many_is_told_so(with_server):
    async def test(served):
        opened = [await served.connect() for _ in range(2)]
        for _, writer in opened:
            writer.write(get("/x"))
        assert [await body(reader) for reader, _ in opened] == ["/x", "/x"]
        reader, writer = await served.connect()
        refused = await reader.read()
        assert refused.startswith(b"HTTP/1.1 503 \r\nServer: Firecracker API\r\n")
        assert refused.endswith(b'{ "error": "Too many open connections" }')
        writer.close()
        opened[0][1].write(get("/y"))
        assert await body(opened[0][0]) == "/y"
        for _, writer in opened:
            writer.close()

    with_server(test, most=2)


def test_a_client_that_has_said_all_still_gets_its_answer(with_server):
    async def test(served):
        reader, writer = await served.connect()
        writer.write(get("/slow"))
        writer.write_eof()
        while "/slow" not in served.answers.begun:
            await asyncio.sleep(0.01)
        await served.release()
        assert await body(reader) == "/slow"
        assert await reader.read() == b""
        writer.close()

    with_server(test)


def test_a_client_that_takes_nothing_is_sent_all_of_it_in_the_end(with_server):
    async def test(served):
        reader, writer = await served.connect()
        count = 20_000
        writer.write(get("/x") * count)
        for _ in range(count):
            assert await body(reader) == "/x"
        writer.close()

    with_server(test)


def test_connections_go_on_when_they_move_to_the_other_loop(tmp_path):
    answers, limit = Answers(), ConnectionLimit()
    path = tmp_path / "s"
    wake = os.eventfd(0)
    sock = listening(path)

    def make():
        return Connection(answers, limit)

    early = EarlyLoop([(sock, make)], wake, lambda: os.eventfd_read(wake))

    async def rest(client):
        loop = asyncio.get_running_loop()
        (server,) = await listen(loop, [(sock, make)], early.leave())
        reader, writer = await asyncio.open_connection(sock=client)
        writer.write(get("/cut-in-two")[9:] + get("/after"))
        assert [await body(reader), await body(reader)] == ["/cut-in-two", "/after"]
        again, write_again = await asyncio.open_unix_connection(str(path))
        write_again.write(get("/new"))
        assert await body(again) == "/new"
        assert limit.open == 2
        writer.close()
        write_again.close()
        server.close()

    client = socket.socket(socket.AF_UNIX)
    client.settimeout(WAIT_S)
    with turning(early, wake):
        client.connect(str(path))
        client.sendall(get("/early") + get("/cut-in-two")[:9])
        assert client.recv(4096).endswith(b'"/early"')
    uvloop.run(asyncio.wait_for(rest(client), WAIT_S))
    os.close(wake)
