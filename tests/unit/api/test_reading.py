"""What a reader answers itself, and how a connection leaves it for the process that answers the rest."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import pytest

from kvnet.api.lane import LaneServer
from kvnet.api.plain import PlainReads
from kvnet.api.reading import is_read
from kvnet.api.server import HttpServer
from kvnet.api.service import HttpService
from kvnet.core.catalog import Scope
from tests.support.backends import ACCOUNT, TOKENS, FakeNode
from tests.support.http import read_answer

BASE = f"/client/v4/accounts/{ACCOUNT}/storage/kv/namespaces"
ID = "0" * 32
DEADLINE_S = 10.0


def head(method: str, target: str, *fields: str) -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: x", *fields, "", ""]).encode()


@pytest.mark.parametrize(
    "request_",
    [
        head("GET", f"{BASE}/{ID}/values/k"),
        head("HEAD", f"{BASE}/{ID}/values/k", "If-None-Match: *"),
        head("GET", f"{BASE}/{ID}/values/status", "Range: bytes=0-1"),
        head("GET", f"{BASE}/{ID}/keys?limit=10"),
        head("GET", f"{BASE}/{ID}/metadata/k"),
        head("POST", f"{BASE}/{ID}/bulk/get", "Content-Length: 2"),
        head("GET", "/k", f"KV-Namespace: {ID}"),
        head("GET", "/status", f"KV-Namespace: {ID}"),
        head("GET", "/?prefix=a", f"KV-Namespace: {ID}"),
        head("POST", "/bulk/get", f"KV-Namespace: {ID}"),
        head("GET", "/healthz"),
        head("GET", f"{BASE}/{ID}/values/k", "KV-At-Least: 0-1"),
        head("GET", f"{BASE}/{ID}/values/k", "KV-At-Least: nonsense"),
        head("GET", f"{BASE}/{ID}/values/k", "KV-Max-Staleness-Ms: 1600"),
    ],
)
def test_reads_that_ask_no_more_than_there_is_are_a_readers(node, request_):
    node.stale_ms = 1500
    assert is_read(request_, node)


@pytest.mark.parametrize(
    "request_",
    [
        head("PUT", f"{BASE}/{ID}/values/k", "Content-Length: 1"),
        head("DELETE", f"{BASE}/{ID}/values/k"),
        head("GET", f"{BASE}/{ID}"),
        head("GET", BASE),
        head("POST", BASE, "Content-Length: 2"),
        head("POST", f"{BASE}/{ID}/bulk/delete", "Content-Length: 2"),
        head("PUT", f"{BASE}/{ID}/bulk", "Content-Length: 2"),
        head("GET", "/client/v4/user/tokens"),
        head("GET", "/client/v4/user/tokens/verify"),
        head("GET", "/status"),
        head("GET", "/usage"),
        head("GET", "/metrics"),
        head("GET", "/peer/links"),
        head("POST", "/peer/read", "Content-Length: 2"),
        head("GET", "/nowhere"),
        head("PUT", "/k", f"KV-Namespace: {ID}"),
        head("DELETE", "/k", f"KV-Namespace: {ID}"),
        head("GET", f"{BASE}/{ID}/values/k", "Folded:", " yes"),
        head("GET", f"{BASE}/{ID}/values/k", "KV-At-Least: 7-1"),
        head("GET", f"{BASE}/{ID}/values/k", "KV-Max-Staleness-Ms: 1599"),
        head("GET", "/k", f"KV-Namespace: {ID}", "KV-At-Least: 7-1"),
    ],
)
def test_whatever_else_there_is_is_the_nodes(node, request_):
    node.stale_ms = 1500
    assert not is_read(request_, node)


class Elsewhere:
    """Another process, which keeps what it is given."""

    def __init__(self, node: FakeNode) -> None:
        self.node = node
        self.taken: asyncio.Queue[tuple[socket.socket, bytes]] = asyncio.Queue()

    def keeps(self, request: bytes) -> bool:
        return is_read(request, self.node)

    def take(self, connection: int, received: bytes) -> None:
        own = socket.socket(fileno=os.dup(connection))
        own.setblocking(False)
        self.taken.put_nowait((own, received))


class Reader:
    def __init__(self, node: FakeNode, elsewhere: Elsewhere, port: int) -> None:
        self.node = node
        self.elsewhere = elsewhere
        self.port = port
        self.namespace = node.create_namespace("reading").hex()
        node.put_many(bytes.fromhex(self.namespace), [b"k"])

    def request(self, method: str, target: str, *fields: str) -> bytes:
        secret = TOKENS[Scope.WRITE]
        return head(method, f"{BASE}/{self.namespace}{target}", f"Authorization: Bearer {secret}", *fields)


@pytest.fixture
async def reader(node: FakeNode) -> AsyncIterator[Reader]:
    elsewhere = Elsewhere(node)
    server = LaneServer(HttpServer(HttpService(node)), PlainReads(node), elsewhere)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    try:
        yield Reader(node, elsewhere, listener.sockets[0].getsockname()[1])
    finally:
        listener.close()
        server.pre_shutdown()
        await server.shutdown(0.01)


@pytest.mark.parametrize(
    "before",
    [
        [],
        [("GET", "/values/k")],
        [("GET", "/keys")],
        [("GET", "/keys"), ("GET", "/values/k"), ("GET", "/metadata/k")],
    ],
    ids=len,
)
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_connection_leaves_with_what_wasnt_answered_once_all_before_is(reader, before, at_once):
    questions = [reader.request(*each) for each in before]
    rest = reader.request("PUT", "/values/k", "Content-Length: 5") + b"other"
    client, writer = await asyncio.open_connection("127.0.0.1", reader.port)
    if at_once:
        writer.write(b"".join(questions) + rest)
    for question in questions:
        if not at_once:
            writer.write(question)
        assert (await read_answer(client)).status == 200
    if not at_once:
        writer.write(rest)
    taken, received = await asyncio.wait_for(reader.elsewhere.taken.get(), DEADLINE_S)
    assert received == rest
    # The connection is the same: nobody has hung up.
    taken.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert (await read_answer(client)).body == b"ok"
    writer.write(b"more")
    loop = asyncio.get_running_loop()
    assert await asyncio.wait_for(loop.sock_recv(taken, 100), DEADLINE_S) == b"more"
    assert reader.node.written == []
    taken.close()
    writer.close()


@pytest.mark.parametrize(
    "rest",
    [
        b"GET /k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /peer/links HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"no HTTP at all",
    ],
)
async def test_what_isnt_plain_http_leaves_as_it_came(reader, rest):
    _, writer = await asyncio.open_connection("127.0.0.1", reader.port)
    writer.write(rest)
    taken, received = await asyncio.wait_for(reader.elsewhere.taken.get(), DEADLINE_S)
    assert received == rest
    taken.close()
    writer.close()
