"""The node's port as a whole: health, status, other tenants of the port, and failures."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock

import pytest
from aiohttp import web

from kvnet.api.server import FIELD_BYTES_MAX, LINE_BYTES_MAX, HttpServer
from kvnet.api.service import HttpService
from kvnet.core.catalog import Scope
from kvnet.limits import Limits
from tests.support.backends import FakeNode
from tests.support.http import exchange, read_answer


@pytest.mark.parametrize("name", ["KV-At-Least", "Range", "Authorization", "KV-Namespace", "CF-KV-Metadata"])
async def test_a_field_that_decides_something_may_come_once(api, ns, name):
    sent = api.request("GET", f"{ns}/values/k", headers={name: "1-1", name.lower(): "1-2"})
    answer = await exchange(api.port, sent)
    assert answer.error == (400, 10001, f"{name}: must come once")


async def test_other_fields_may_come_twice(api, ns):
    sent = api.request("GET", f"{ns}/values/k", headers={"X-Other": "a", "x-other": "b"})
    assert (await exchange(api.port, sent)).status == 404


async def test_health_is_told_to_anyone(api):
    for is_ready in (True, False):
        api.node.is_ready = is_ready
        answer = await api("GET", "/healthz", whole=True, scope=None)
        assert answer.status == 200
        assert answer.json == {"status": "ok", "name": "fra", "pop": "fra", "ready": is_ready}
    assert (await api("POST", "/healthz", whole=True, scope=None)).error[:2] == (405, 10405)


async def test_status_takes_a_token_and_is_told_even_by_a_replica_that_must_not_serve(api):
    api.node.is_ready = False
    answer = await api("GET", "/status", whole=True, scope=Scope.READ)
    assert answer.json == {"name": "fra", "position": str(api.node.store.position.version)}
    assert (await api("GET", "/status", whole=True, scope=None)).error[0] == 400


async def test_replica_that_is_not_ready_serves_nothing(api, ns):
    api.node.is_ready = False
    for method in ("GET", "PUT"):
        answer = await api(method, f"{ns}/values/k")
        assert answer.error[:2] == (503, 20001)
        assert answer.headers["retry-after"] == "1"


async def test_node_without_a_catalogue_knows_no_token_and_says_why(tmp_path, serve):
    node = FakeNode(tmp_path, Limits(), formed=False)
    async with serve(node) as api:
        for path in ("/status", "/client/v4/user/tokens/verify"):
            answer = await api("GET", path, whole=True)
            expected = "fra isn't ready: its replica is still being filled; ask another PoP"
            assert answer.error == (503, 20001, expected)
            assert (answer.headers["retry-after"], answer.headers["kv-pop"]) == ("1", "fra")
        assert (await api("GET", "/healthz", whole=True, scope=None)).json["ready"] is False
    node.store.close()


async def test_bug_is_an_envelope_for_the_client_and_a_traceback_in_the_log(api, ns, caplog):
    api.node.refusal = ZeroDivisionError("secret detail")
    answer = await api("PUT", f"{ns}/values/k", b"v")
    assert answer.error == (500, 20000, "Internal error: the log of node fra says more")
    assert b"secret" not in answer.body
    (record,) = caplog.records
    assert "secret detail" in caplog.text
    assert record.name == "kvnet.api.service"
    assert (await api("GET", f"{ns}/values/k")).status == 404


async def test_broken_connection_elsewhere_is_a_bug_too_while_the_client_is_there(api, ns, caplog):
    api.node.refusal = ConnectionResetError("to the coordinator")
    assert (await api("PUT", f"{ns}/values/k", b"v")).error[:2] == (500, 20000)
    assert "to the coordinator" in caplog.text


async def test_other_tenants_of_the_port_come_first_and_by_whole_segments(node, serve):
    async def peer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text="peer")

    async def broken(request: web.BaseRequest) -> web.StreamResponse:
        raise ZeroDivisionError

    async with serve(node, {"/peer/v1": peer, "/broken": broken}) as api:
        for path in ("/peer/v1", "/peer/v1/x?y"):
            assert (await api("GET", path, whole=True, scope=None)).body == b"peer"
        for path in ("/peer/v10", "/peer", "/client/v4/peer/v1"):
            assert (await api("GET", path, whole=True)).error[:2] == (400, 7003)
        assert (await api("GET", "/broken", whole=True)).error[:2] == (500, 20000)


async def test_websocket_of_another_tenant_goes_through(node, serve):
    async def peer(request: web.BaseRequest) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_bytes(await socket.receive_bytes())
        await socket.close()
        return socket

    from aiohttp import ClientSession

    async with (
        serve(node, {"/peer/v1": peer}) as api,
        ClientSession() as session,
        session.ws_connect(f"http://127.0.0.1:{api.port}/peer/v1") as socket,
    ):
        await socket.send_bytes(b"x")
        assert await socket.receive_bytes() == b"x"
        status, code, _ = (await api("GET", "/peer/v1", whole=True, scope=None)).error
        assert (status, code) == (400, 10001)


async def test_answer_that_fails_after_it_has_begun_ends_with_its_connection(node, serve, caplog):
    async def broken(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        raise ZeroDivisionError("half way")

    async with serve(node, {"/broken": broken}) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(api.request("GET", "/broken", whole=True))
        received = await reader.read()
        writer.close()
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(b"begun\r\n")
    assert received.count(b"HTTP/1.1") == 1
    assert "half way" in caplog.text


async def test_one_connection_serves_many_requests_also_after_errors(api, ns):
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(api.request("PUT", f"{ns}/values/k", b"abc"))
    writer.write(api.request("GET", f"{ns}/values/missing"))
    writer.write(api.request("GET", "/nothing"))
    writer.write(api.request("GET", f"{ns}/values/k"))
    statuses = [(await read_answer(reader)).status for _ in range(4)]
    writer.close()
    assert statuses == [200, 404, 400, 200]


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n",
        b"GET / HTTP/1.1\r\n: x\r\n\r\n",
        b"CONNECT nowhere HTTP/1.1\r\n\r\n",
        b"GET ftp:nothing HTTP/1.1\r\n\r\n",
        b"GET http://[::1/x HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"H%d: x\r\n" % number for number in range(200)) + b"\r\n",
    ],
)
async def test_what_is_not_http_is_refused_in_due_form(api, sent, caplog):
    status, _, _ = (await exchange(api.port, sent)).error
    assert status == 400
    assert "Traceback" not in caplog.text


async def test_endless_lines_and_headers_are_refused(api):
    answer = await api("GET", "/values/" + "x" * LINE_BYTES_MAX)
    assert answer.error == (414, 10001, f"The request line exceeds limit of {LINE_BYTES_MAX} bytes")
    answer = await api("GET", "", X="x" * (FIELD_BYTES_MAX + 1))
    assert answer.error == (431, 10001, f"A header field exceeds limit of {FIELD_BYTES_MAX} bytes")


async def test_sdk_headers_are_tolerated(api):
    headers = {"X_Stainless_Lang": "python", "api_version": "2026-01-01", "accept_encoding": "gzip, br, zstd"}
    answer = await api("GET", "", Accept="*/*", **headers)
    assert answer.result == []
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize("version", ["0.9", "2.0", "7.3"])
async def test_answer_to_a_version_that_nobody_speaks_is_of_one_that_clients_read(api, version):
    """The answer's version repeated the request's: `HTTP/0.9 400 Bad Request`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(f"GET /healthz HTTP/{version}\r\nHost: localhost\r\n\r\n".encode())
    assert (await reader.read()).startswith((b"HTTP/1.0 ", b"HTTP/1.1 "))
    writer.close()


@pytest.mark.parametrize("turns", [1, 2, 3, 4])
async def test_client_that_leaves_right_after_its_request_leaves_no_traceback(api, ns, caplog, turns):
    """A body read from a connection that had ended was a bug in the log: `RuntimeError: Connection closed.`"""
    server = HttpServer(HttpService(api.node))
    connection = server()
    connection.connection_made(Mock(spec=asyncio.Transport))
    await asyncio.sleep(0)
    connection.data_received(api.request("PUT", f"{ns}/values/k", headers={"Content-Length": "5"}))
    for _ in range(turns):
        await asyncio.sleep(0)
    connection.connection_lost(None)
    for _ in range(10):
        await asyncio.sleep(0)
    assert server.requests_count == 1
    assert caplog.records == []
    assert api.node.written == []
