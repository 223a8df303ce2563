from __future__ import annotations

import asyncio
import gc
from collections import Counter

import pytest
from aiohttp import ClientResponse, WSMsgType, web
from aiohttp.client_proto import ResponseHandler
from aiohttp.web_protocol import RequestHandler

from kvnet.core.messages import MESSAGE_BYTES_MAX
from kvnet.transport.handshake import HANDSHAKE_BYTES_MAX
from kvnet.transport.sockets import PONGS_UNSENT_MAX_BYTES, READ_AHEAD_BYTES, Connection, new_session
from kvnet.transport.websocket import CloseCode, FrameReader, Opcode, header, mask
from tests.support.peers import DEADLINE_S, until

KEY = b"\x01\xfe\x80\x7f"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: node\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)

MESSAGE = b"m" * 200_000
"""More than aiohttp's own limit, so that every write looks whether it should wait."""


def frame(opcode: int, payload: bytes) -> bytes:
    """As a dialler sends it."""
    return header(opcode, len(payload), KEY) + mask(KEY, payload)


async def upgraded(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A bare connection after its upgrade."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(UPGRADE)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    return reader, writer


async def test_writes_never_wait_for_a_peer_that_does_not_read():
    """Two writes to a full connection once came to one future of aiohttp's, which only a task may hand over twice:

    the second raised, and took the sender's timer with it.
    """
    may_read, ended, received = asyncio.Event(), asyncio.Event(), []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        connection, response = await Connection.accept(request)
        connection.trust()
        connection._transport.pause_reading()
        await may_read.wait()
        connection._transport.resume_reading()
        while (message := await connection.read()) is not None:
            received.append(message)
        ended.set()
        return response

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with new_session() as session:
        connection = await Connection.dial(session, f"http://127.0.0.1:{runner.addresses[0][1]}/")
        written = 0
        while connection.buffered_bytes() < 5 * len(MESSAGE):
            connection.write(MESSAGE)
            written += 1
        connection.close()
        may_read.set()
        await asyncio.wait_for(ended.wait(), 10)
    await runner.cleanup()
    assert received == [MESSAGE] * written


class Server:
    """An aiohttp server whose connections do what the test says."""

    def __init__(self, serve) -> None:
        self._serve = serve
        self.connections: list[Connection] = []
        self.ended = 0
        self.web_server = web.Server(self._answer, access_log=None)

    async def __aenter__(self):
        self._listening = await asyncio.get_running_loop().create_server(self.web_server, "127.0.0.1", 0)
        self.port = self._listening.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        return self

    async def __aexit__(self, *_):
        self._listening.close()
        await self.web_server.shutdown(1)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        connection, response = await Connection.accept(request)
        self.connections.append(connection)
        try:
            await self._serve(connection)
        finally:
            self.ended += 1
            connection.close()
        return response


async def echo(connection: Connection) -> None:
    connection.trust()
    await connection.pass_on(connection.write)


async def to_the_end(connection: Connection) -> None:
    while await connection.read() is not None:
        pass


@pytest.mark.parametrize("size", [0, 1, 125, 126, 16_384, 16_385, 65_535, 65_536, 3_000_000])
async def test_messages_of_every_size_come_whole_and_in_order_both_ways(size):
    message = (b"0123456789" * (size // 10 + 1))[:size]
    async with Server(echo) as server, new_session() as session:
        connection = await Connection.dial(session, server.url)
        connection.trust()
        for _ in range(3):
            connection.write(message)
        assert [await connection.read() for _ in range(3)] == [message] * 3
        connection.close()


async def test_a_foreign_client_is_understood():
    """aiohttp's own end: its masks, its lengths, its pings and its close."""
    async with Server(echo) as server, new_session() as session, session.ws_connect(server.url) as foreign:
        for size in (0, 125, 126, 70_000):
            await foreign.send_bytes(bytes(size))
            assert await foreign.receive_bytes() == bytes(size)
        await foreign.ping(b"are you there")
        foreign_autoping, foreign._autoping = foreign._autoping, False
        pong = await foreign.receive()
        foreign._autoping = foreign_autoping
        assert (pong.type, bytes(pong.data)) == (WSMsgType.PONG, b"are you there")
        await foreign.close()
        assert foreign.close_code == CloseCode.NORMAL
        await until(lambda: server.ended == 1)


async def test_a_foreign_server_is_understood():
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        foreign = web.WebSocketResponse(compress=False)
        await foreign.prepare(request)
        async for message in foreign:
            await foreign.ping(b"are you there")
            await foreign.send_bytes(message.data)
        return foreign

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with new_session() as session:
            connection = await Connection.dial(session, f"http://127.0.0.1:{runner.addresses[0][1]}/")
            connection.write(b"hello")
            assert await connection.read() == b"hello"
            connection.close()
            assert await connection.read() is None
    finally:
        await runner.cleanup()


async def test_what_was_written_before_a_close_arrives():
    async with Server(to_the_end) as server, new_session() as session:
        connection = await Connection.dial(session, server.url)
        connection.trust()
        await until(lambda: server.connections)
        for _ in range(50):
            server.connections[0].write(bytes(100_000))
        server.connections[0].close()
        received = 0
        while (message := await connection.read()) is not None:
            received += len(message)
        assert received == 50 * 100_000


async def test_the_handler_ends_with_its_connection():
    async with Server(echo) as server, new_session() as session:
        for end in (Connection.close, Connection.abort):
            connection = await Connection.dial(session, server.url)
            await until(lambda: len(server.connections) == server.ended + 1)
            end(connection)
            assert await connection.read() is None
            await until(lambda: len(server.connections) == server.ended)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (frame(Opcode.BINARY, bytes(HANDSHAKE_BYTES_MAX + 1)), CloseCode.TOO_LARGE),
        (header(Opcode.BINARY, MESSAGE_BYTES_MAX, KEY), CloseCode.TOO_LARGE),
        (3 * frame(Opcode.BINARY, b"hello"), CloseCode.UNPROVEN),
        (frame(Opcode.TEXT, b"hello"), CloseCode.UNSUPPORTED),
        (header(Opcode.BINARY, 1) + b"x", CloseCode.PROTOCOL_ERROR),
    ],
)
async def test_who_has_proven_nothing_makes_us_keep_next_to_nothing(said, code):
    """An announced length of 33 MiB was once waited for, and kept, before anybody knew who sent it."""
    may_read = asyncio.Event()

    async def serve(connection: Connection) -> None:
        await may_read.wait()
        await to_the_end(connection)

    async with Server(serve) as server:
        reader, writer = await upgraded(server.port)
        writer.write(said)
        end = await asyncio.wait_for(reader.read(), DEADLINE_S)
        assert end == header(Opcode.CLOSE, 2) + code.to_bytes(2, "big")
        may_read.set()
        await until(lambda: server.ended == 1)
        writer.close()
        await writer.wait_closed()


async def test_who_speaks_before_the_upgrade_is_answered_is_cut_off():
    async with Server(echo) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(UPGRADE + frame(Opcode.BINARY, b"too early"))
        answer = await asyncio.wait_for(reader.read(), DEADLINE_S)
        assert answer.startswith(b"HTTP/1.1 101")
        assert b"too early" not in answer
        writer.close()
        await writer.wait_closed()


async def test_pings_of_somebody_who_reads_nothing_are_not_answered_without_end():
    async with Server(echo) as server:
        _, writer = await upgraded(server.port)
        writer.transport.pause_reading()
        ping = frame(Opcode.PING, bytes(125)) * 5000
        for _ in range(40):
            writer.write(ping)
            await writer.drain()
        await until(lambda: server.connections)
        assert server.connections[0].buffered_bytes() <= 2 * PONGS_UNSENT_MAX_BYTES
        writer.transport.abort()
        await until(lambda: server.ended == 1)


async def test_what_nobody_reads_waits_in_the_kernel():
    may_read = asyncio.Event()

    async def serve(connection: Connection) -> None:
        connection.trust()
        await may_read.wait()
        await to_the_end(connection)

    async with Server(serve) as server, new_session() as session:
        connection = await Connection.dial(session, server.url)
        written = 0
        while connection.buffered_bytes() < 10 * READ_AHEAD_BYTES:
            connection.write(bytes(READ_AHEAD_BYTES))
            written += 1
            await asyncio.sleep(0)
        assert server.connections[0]._unread_bytes <= 3 * READ_AHEAD_BYTES
        assert written > 3
        connection.close()
        may_read.set()
        await until(lambda: server.ended == 1)


def alive() -> Counter[type]:
    """How many objects of each type there are."""
    gc.collect()
    return Counter(map(type, gc.get_objects()))


async def test_connections_that_ended_leave_nothing_behind():
    async with Server(echo) as server, new_session() as session:

        async def come_and_go(end) -> None:
            connection = await Connection.dial(session, server.url)
            connection.trust()
            connection.write(b"hello")
            assert await connection.read() == b"hello"
            end(connection)
            assert await connection.read() is None

        async def all_gone(count: int) -> None:
            await until(lambda: server.ended == count and not server.web_server.connections)
            server.connections.clear()

        await come_and_go(Connection.close)
        await all_gone(1)
        await until(lambda: alive()[Connection] == 0)
        before = alive()
        for end in (Connection.close, Connection.abort) * 20:
            await come_and_go(end)
        await all_gone(41)
        kinds = (
            Connection,
            FrameReader,
            asyncio.Task,
            RequestHandler,
            web.WebSocketResponse,
            ClientResponse,
            ResponseHandler,
        )
        await until(lambda: all(alive()[kind] <= before[kind] for kind in kinds))
        assert not session.connector._acquired
