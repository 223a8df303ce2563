"""A node behind a real server on the loopback, and a client that speaks to it byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kvnet.api.server import HttpServer
from kvnet.api.service import Handler, HttpService
from kvnet.core.catalog import Scope
from kvnet.limits import Limits
from tests.support.backends import ACCOUNT, TOKENS, FakeNode
from tests.support.http import Answer, exchange, request_bytes


class Api:
    """One server with its node; calls begin at the namespaces unless the path is given whole."""

    def __init__(self, node: FakeNode, port: int) -> None:
        self.node = node
        self.port = port

    async def __call__(
        self,
        method: str,
        path: str | bytes,
        body: bytes = b"",
        *,
        scope: Scope | None = Scope.WRITE,
        whole: bool = False,
        **headers: str,
    ) -> Answer:
        return await exchange(
            self.port, self.request(method, path, body, scope, headers, whole=whole), method=method
        )

    def request(
        self,
        method: str,
        path: str | bytes,
        body: bytes = b"",
        scope: Scope | None = Scope.WRITE,
        headers: Mapping[str, str] | None = None,
        *,
        whole: bool = False,
    ) -> bytes:
        sent = {"Host": "localhost"}
        if scope is not None:
            sent["Authorization"] = f"Bearer {TOKENS[scope]}"
        if body:
            sent["Content-Length"] = str(len(body))
        sent |= {name.replace("_", "-"): value for name, value in (headers or {}).items()}
        raw_path = path.encode() if isinstance(path, str) else path
        prefix = b"" if whole else f"/client/v4/accounts/{ACCOUNT}/storage/kv/namespaces".encode()
        return request_bytes(method, prefix + raw_path, sent, body)


@asynccontextmanager
async def serving(node: FakeNode, extra: Mapping[str, Handler] | None = None) -> AsyncIterator[Api]:
    server = HttpServer(HttpService(node, extra))
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    try:
        yield Api(node, listener.sockets[0].getsockname()[1])
    finally:
        listener.close()
        await listener.wait_closed()
        await server.shutdown(0.01)  # what is left is a refused body's rest, read for its sender's sake


@pytest.fixture
def node(tmp_path: Path):
    node = FakeNode(tmp_path / "node", Limits())
    yield node
    node.store.close()


@pytest.fixture
async def api(node: FakeNode):
    async with serving(node) as api:
        yield api


@pytest.fixture
def ns(node: FakeNode) -> str:
    """The path of a namespace that exists."""
    return "/" + node.create_namespace("tests").hex()


@pytest.fixture
def serve():
    return serving
