from __future__ import annotations

import asyncio
import stat

import aiohttp
import pytest
from aiohttp import web

from kvnet.errors import ConfigError
from kvnet.runtime.server import NodeServer, PeerRoutes
from kvnet.runtime.unix_socket import short_path
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


def server_on(port: int, handler=hello, socket_path=None) -> NodeServer:
    return NodeServer(web.Server(handler, access_log=None), "127.0.0.1", port, socket_path)


async def test_a_node_answers_until_it_stops(session, port):
    server = server_on(port)
    await server.start()
    async with session.get(f"http://127.0.0.1:{port}/x") as response:
        assert await response.text() == "hello from /x"
    await server.stop()
    with pytest.raises(OSError, match=str(port)):
        await session.get(f"http://127.0.0.1:{port}/x")


async def test_a_node_answers_at_its_socket_however_deep_its_folder_is(port, tmp_path):
    folder = tmp_path / ("d" * 60) / ("e" * 60)
    folder.mkdir(parents=True)
    path = folder / "http.sock"
    path.touch()  # a killed process's
    server = server_on(port, socket_path=path)
    await server.start()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with short_path(path) as name:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(name)) as session,
            session.get("http://node/x") as response,
        ):
            assert await response.text() == "hello from /x"
    await server.stop()
    assert not path.exists()


async def test_a_folder_that_takes_no_socket_leaves_the_port(port, session, tmp_path, caplog):
    server = server_on(port, socket_path=tmp_path / "x" / ".." / ("n" * 300))
    (tmp_path / "x").mkdir()
    await server.start()
    assert "no socket at" in caplog.text
    async with session.get(f"http://127.0.0.1:{port}/x") as response:
        assert response.status == 200
    await server.stop()
    await server.stop()


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
