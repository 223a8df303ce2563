from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from kvnet.errors import ConfigError
from kvnet.runtime.server import NodeServer, PeerRoutes
from kvnet.transport.sockets import new_session


async def hello(request):
    return web.Response(text=f"hello from {request.path}")


@pytest.fixture
async def session():
    made = new_session()
    yield made
    await made.close()


@pytest.fixture
async def port():
    """A port that was free a moment ago."""
    probe = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    number = probe.sockets[0].getsockname()[1]
    probe.close()
    await probe.wait_closed()
    return number


def server_on(port: int, handler=hello) -> NodeServer:
    return NodeServer(web.Server(handler, access_log=None), "127.0.0.1", port)


async def test_a_node_answers_until_it_stops(session, port):
    server = server_on(port)
    await server.start()
    async with session.get(f"http://127.0.0.1:{port}/x") as response:
        assert await response.text() == "hello from /x"
    await server.stop()
    with pytest.raises(OSError, match=str(port)):
        await session.get(f"http://127.0.0.1:{port}/x")


async def test_a_taken_port_is_one_line_that_names_the_cure(port):
    first = server_on(port)
    await first.start()
    with pytest.raises(ConfigError, match=rf"127.0.0.1:{port} is taken: .*--port-base") as raised:
        await server_on(port).start()
    assert "\n" not in str(raised.value)
    await first.stop()


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
async def test_an_address_that_is_not_ours_names_the_cure(port, host):
    with pytest.raises(ConfigError, match=r"listen\.host"):
        await NodeServer(web.Server(hello), host, port).start()


async def test_what_is_being_answered_may_end_before_the_stop(session, port):
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request):
        asked.set()
        await go_on.wait()
        return web.Response(text="done")

    server = server_on(port, slow)
    await server.start()
    request = asyncio.ensure_future(session.get(f"http://127.0.0.1:{port}/"))
    await asked.wait()
    stopping = asyncio.ensure_future(server.stop())
    await asyncio.sleep(0)
    go_on.set()
    async with await request as response:
        assert await response.text() == "done"
    await stopping


async def test_peers_find_exact_paths_and_nothing_else(session, port):
    server = server_on(port, PeerRoutes({"/peer/v1": hello}).handle)
    await server.start()
    for path, status in (("/peer/v1", 200), ("/peer/v1/write", 404), ("/peer/v1/", 404)):
        async with session.get(f"http://127.0.0.1:{port}{path}") as response:
            assert response.status == status
    await server.stop()


async def test_stopping_what_never_started_is_harmless(port):
    await server_on(port).stop()
