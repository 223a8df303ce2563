"""A small edge for client tests: the REST routes over one shared dict of namespaces, and faults on demand."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote

from aiohttp import web

ACCOUNT = "a" * 32
TOKEN = "let-me-in"


async def until(condition: Callable[[], object], deadline_s: float = 10.0) -> None:
    """Return when the condition holds."""
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - the client tells nobody when an edge is back
            await asyncio.sleep(0.01)


@dataclass
class FakeStore:
    """What all edges of one fake network share, as if replication took no time."""

    titles: dict[str, str] = field(default_factory=dict)
    pairs: dict[str, dict[str, tuple[bytes, object, int | None, int]]] = field(default_factory=dict)
    """Per namespace and key: value, metadata, expiration, seq."""
    outcomes: dict[str, int] = field(default_factory=dict)
    """Per request id the seq of its write."""
    seq: int = 0

    def create(self, title: str) -> str:
        namespace_id = secrets.token_hex(16)
        self.titles[namespace_id] = title
        self.pairs[namespace_id] = {}
        return namespace_id


class FakeEdge:
    def __init__(self, code: str, store: FakeStore) -> None:
        self.code = code
        self.store = store
        self.refuses = False
        """Answers 503 to everything."""
        self.drops_after_applying = 0
        """Writes that are applied, and then lose their connection instead of being answered."""
        self.too_early = 0
        """Writes that are answered with 429, to come back at once."""
        self.refused_value: str | None = None
        """Of a pair in a bulk put: refuses it, and the others with it."""
        self.cuts_values = False
        """Loses the connection in the middle of a value."""
        self.slow: asyncio.Event | None = None
        """Holds every request but health checks until it is set."""
        self.silent: asyncio.Event | None = None
        """Holds everything until it is set."""
        self.slow_bodies: asyncio.Event | None = None
        """Holds the second half of every value until it is set."""
        self.held: list[web.BaseRequest] = []
        """Requests that were held; one whose client went away has no transport any more."""
        self.position: int | None = None
        """As far as this replica is; None for all that was written."""
        self.staleness_ms = 500
        self.receipt: dict[str, object] | None = None
        """The result of writes that were to be waited for."""
        self.health_checks = 0
        self.requests: list[tuple[str, str]] = []
        """Method and raw path with query of each request but health checks."""
        self.headers_seen: list[dict[str, str]] = []
        self.url = ""

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator[FakeEdge]:
        runner = web.ServerRunner(web.Server(self._handle), handle_signals=False, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/healthz":
            self.health_checks += 1
            await self._hold(request, self.silent)
            return web.Response(status=503 if self.refuses else 200)
        self.requests.append((request.method, request.raw_path))
        self.headers_seen.append(dict(request.headers))
        await self._hold(request, self.slow or self.silent)
        if self.refuses:
            return self._error(503, 7010, "this replica has no catalogue yet")
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._error(401, 10000, "Authentication error")
        prefix = f"/client/v4/accounts/{ACCOUNT}/storage/kv/namespaces"
        path = request.raw_path.partition("?")[0].removeprefix(prefix).strip("/").split("/")
        seq = self.store.outcomes.get(request.headers.get("KV-Request-Id", ""))
        if seq is not None:
            return self._success(None, seq)
        if self.too_early and request.method == "PUT":
            self.too_early -= 1
            return self._error(429, 10033, "Too many requests", {"Retry-After": "0"})
        is_write = request.method != "GET" and path[-2:] != ["bulk", "get"]
        if not is_write and (refusal := self._not_fresh(request)):
            return refusal
        if request.raw_path == "/status":
            return web.json_response({"path": ["coordinator"], "latency_ms": 9.5})
        response = await self._route(request, path)
        if is_write:
            self.store.outcomes[request.headers["KV-Request-Id"]] = self.store.seq
            if self.drops_after_applying:
                self.drops_after_applying -= 1
                assert request.transport is not None
                request.transport.abort()
        return response

    async def _hold(self, request: web.BaseRequest, until: asyncio.Event | None) -> None:
        if until is not None:
            self.held.append(request)
            await until.wait()

    @property
    def _seq(self) -> int:
        return self.store.seq if self.position is None else self.position

    def _not_fresh(self, request: web.BaseRequest) -> web.Response | None:
        """Return what a replica says that isn't as new as it has to be."""
        wanted = request.headers.get("KV-At-Least", "1-0")
        if int(wanted.removeprefix("1-")) > self._seq:
            return self._error(504, 20003, f"{self.code} stands at 1-{self._seq} and did not reach {wanted}")
        allowed_ms = request.headers.get("KV-Max-Staleness-Ms")
        if allowed_ms is not None and int(allowed_ms) < self.staleness_ms:
            return self._error(503, 20002, f"{self.code} may be {self.staleness_ms} ms behind")
        return None

    async def _route(self, request: web.BaseRequest, path: list[str]) -> web.StreamResponse:
        store = self.store
        match request.method, path:
            case "GET", [""]:
                titles = sorted(store.titles.items(), key=lambda item: item[1])
                return self._success([{"id": id_, "title": title} for id_, title in titles])
            case "POST", [""]:
                title = (await request.json())["title"]
                if title in store.titles.values():
                    return self._error(400, 10014, "a namespace with this account ID and title already exists")
                store.seq += 1
                return self._success({"id": store.create(title), "title": title}, store.seq)
            case _, [id_, *_] if id_ not in store.titles:
                return self._error(404, 10013, "get namespace: 'namespace not found'")
            case "PUT", [id_]:
                store.titles[id_] = (await request.json())["title"]
                return self._success({"id": id_, "title": store.titles[id_]}, store.seq)
            case "DELETE", [id_]:
                del store.titles[id_], store.pairs[id_]
                return self._success(None, store.seq)
            case "GET", [id_, "keys"]:
                return self._keys(request, id_)
            case "POST", [id_, "bulk", "get"]:
                return await self._bulk_get(request, id_)
            case "PUT", [id_, "bulk"]:
                return await self._bulk(request, id_)
            case method, [id_, ("values" | "metadata") as what, key]:
                return await self._pair(request, method, id_, what, unquote(key))
            case _:
                return self._error(400, 7003, f"Could not route to {request.raw_path}")

    def _keys(self, request: web.BaseRequest, id_: str) -> web.Response:
        prefix = request.query.get("prefix", "")
        after = request.query.get("cursor", "")
        limit = int(request.query.get("limit", "1000"))
        assert 10 <= limit <= 1000
        names = sorted(name for name in self.store.pairs[id_] if name.startswith(prefix) and name > after)
        page = names[:limit]
        result = []
        for name in page:
            _, metadata, expiration, _ = self.store.pairs[id_][name]
            more = {"metadata": metadata, "expiration": expiration}
            result.append({"name": name} | {field: value for field, value in more.items() if value is not None})
        return self._success(result, cursor=page[-1] if len(names) > limit else "")

    async def _pair(
        self, request: web.BaseRequest, method: str, id_: str, what: str, key: str
    ) -> web.StreamResponse:
        store = self.store
        pairs = store.pairs[id_]
        if method == "PUT":
            if request.content_type == "multipart/form-data":
                form = await request.post()
                part = form["value"]
                assert isinstance(part, web.FileField)
                value, metadata = part.file.read(), json.loads(form["metadata"])
            else:
                value, metadata = await request.read(), None
            expiration = request.query.get("expiration")
            store.seq += 1
            pairs[key] = (value, metadata, int(expiration) if expiration else None, store.seq)
            return self._success(self._receipt(request), store.seq)
        if method == "DELETE":
            store.seq += 1
            pairs.pop(key, None)
            return self._success(self._receipt(request), store.seq)
        if key not in pairs or (self.position is not None and pairs[key][3] > self.position):
            return self._error(404, 10009, "get: 'key not found'", self._headers(None))
        value, metadata, expiration, seq = pairs[key]
        if what == "metadata":
            return self._success(metadata, seq)
        if self.cuts_values:
            response = web.StreamResponse(headers={**self._headers(seq), "Content-Length": str(len(value))})
            await response.prepare(request)
            await response.write(value[: len(value) // 2])
            assert request.transport is not None
            request.transport.close()
            return response
        if self.slow_bodies is not None:
            response = web.StreamResponse(headers={**self._headers(seq), "Content-Length": str(len(value))})
            await response.prepare(request)
            await response.write(value[: len(value) // 2])
            await self._hold(request, self.slow_bodies)
            await response.write(value[len(value) // 2 :])
            return response
        expiry = {} if expiration is None else {"expiration": str(expiration)}
        return web.Response(body=value, headers=self._headers(seq) | expiry)

    async def _bulk_get(self, request: web.BaseRequest, id_: str) -> web.Response:
        wanted = await request.json()
        assert wanted["withMetadata"]
        assert len(wanted["keys"]) <= 100
        values = {}
        for key in wanted["keys"]:
            value, metadata, expiration, _ = self.store.pairs[id_].get(key, (None, None, None, 0))
            try:
                values[key] = None if value is None else {"value": value.decode(), "metadata": metadata}
            except UnicodeDecodeError:
                return self._error(400, 10029, "bulk get keys: a non-text value")
            if expiration is not None:
                values[key]["expiration"] = expiration
        return self._success({"values": values})

    async def _bulk(self, request: web.BaseRequest, id_: str) -> web.Response:
        elements = await request.json()
        for index, each in enumerate(elements):
            if each["value"] == self.refused_value:
                return self._error(413, 10001, f"[{index}]: Value length exceeds limit")
        for each in elements:
            value = base64.b64decode(each["value"]) if each.get("base64") else each["value"].encode()
            self.store.seq += 1
            self.store.pairs[id_][each["key"]] = (
                value,
                each.get("metadata"),
                each.get("expiration"),
                self.store.seq,
            )
        result = {"successful_key_count": len(elements), "unsuccessful_keys": []}
        result |= self._receipt(request) or {}
        return self._success(result, self.store.seq)

    def _receipt(self, request: web.BaseRequest) -> dict[str, object] | None:
        return self.receipt if "KV-Wait" in request.headers else None

    def _headers(self, seq: int | None) -> dict[str, str]:
        version = {} if seq is None else {"KV-Version": f"1-{seq}"}
        told = {"KV-Pop": self.code, "KV-Position": f"1-{self._seq}", "KV-Staleness-Ms": str(self.staleness_ms)}
        return told | version

    def _success(self, result: object, seq: int | None = None, cursor: str | None = None) -> web.Response:
        envelope = {"success": True, "errors": [], "messages": [], "result": result}
        if cursor is not None:
            envelope["result_info"] = {"count": len(result), "cursor": cursor}
        return web.json_response(envelope, headers=self._headers(seq))

    @staticmethod
    def _error(status: int, code: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
        error = {"code": code, "message": message}
        return web.json_response(
            {"success": False, "errors": [error], "messages": [], "result": None}, status=status, headers=headers
        )
