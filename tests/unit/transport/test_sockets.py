from __future__ import annotations

import asyncio

from aiohttp import web

from kvnet.transport.sockets import Connection, new_session

MESSAGE = b"m" * 200_000
"""More than aiohttp's own limit, so that every write looks whether it should wait."""


async def test_writes_never_wait_for_a_peer_that_does_not_read():
    """Two writes to a full connection once came to one future of aiohttp's, which only a task may hand over twice:

    the second raised, and took the sender's timer with it.
    """
    may_read, ended, received = asyncio.Event(), asyncio.Event(), []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        connection, response = await Connection.accept(request)
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
