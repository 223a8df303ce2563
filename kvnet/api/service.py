"""Every HTTP request of a node, from its target to its answer; what to read and write is the endpoints' part."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web
from multidict import CIMultiDictProxy

from kvnet.api import binding, codes, envelope, node, openapi, relaying
from kvnet.api.auth import identify, require, require_everywhere
from kvnet.api.backend import Backend
from kvnet.api.call import Call
from kvnet.api.encoding import shorten
from kvnet.api.endpoints import find_endpoint
from kvnet.api.freshness import freshness_headers, meet_freshness
from kvnet.api.query import Query
from kvnet.api.routes import API_PREFIX, OF_NODE, Place, Target, find_place, split_target
from kvnet.api.validation import check_namespace_id
from kvnet.core.catalog import Scope, Token
from kvnet.errors import RequestError, StorageDamaged

_DOCUMENT_PATHS = frozenset({openapi.PATH, API_PREFIX + openapi.PATH})

ONCE: Final = (
    "Authorization",
    "CF-KV-Metadata",
    "If-Range",
    "KV-At-Least",
    "KV-Max-Staleness-Ms",
    "KV-Namespace",
    "KV-Request-Id",
    "KV-Wait",
    "KV-Wait-Timeout-Ms",
    "Range",
    "X-Auth-Email",
    "X-Auth-Key",
)
"""Fields that a request may have once."""

_log = logging.getLogger(__name__)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class HttpService:
    """Answers for one node. `extra` maps path prefixes (whole segments) to who answers there instead."""

    def __init__(self, backend: Backend, extra: Mapping[str, Handler] | None = None) -> None:
        self._backend = backend
        self._extra = tuple((extra or {}).items())

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Return the answer. Whatever goes wrong before it has begun, it is an envelope.

        Raises:
            ConnectionError: it had begun, and its connection has to be closed.
        """
        target = split_target(request.raw_path)
        try:
            if binding.HEADER in request.headers:
                response = await self._answer_client(request, target)
            else:
                for prefix, handler in self._extra:
                    if target.path == prefix or target.path.startswith(prefix + "/"):
                        return await handler(request)
                response = await self._answer(request, target)
        except Exception as error:  # noqa: BLE001 - the last place where a bug can still become an answer
            response = self._failure(request, error)
        response.headers.setdefault("KV-Pop", self._backend.pop)
        return response

    async def answer_peer(self, request: web.BaseRequest, question: bytes) -> web.Response:
        """Answer a read for another node, which has seen to it who may ask. `request` is that node's.

        What it answers tells a position; an answer without one, or a status from 500 on, says: ask another node.

        Raises:
            RequestError: the question can't be read.
        """
        if self._backend.store.cluster is None:
            raise codes.NOT_READY.error(name=self._backend.name)
        asked, token = relaying.read_question(request, question)
        response = await self._answer_as(token, asked, split_target(asked.raw_path), relays=False)
        response.headers["KV-Pop"] = self._backend.pop
        return response

    async def _answer(self, request: web.BaseRequest, target: Target) -> web.Response:
        backend = self._backend
        if target.path == "/healthz":
            if request.method not in {"GET", "HEAD"}:
                raise codes.METHOD_NOT_ALLOWED.error(headers={"Allow": "GET, HEAD"})
            return node.health(backend)
        if target.path in _DOCUMENT_PATHS:
            if request.method not in {"GET", "HEAD"}:
                raise codes.METHOD_NOT_ALLOWED.error(headers={"Allow": "GET, HEAD"})
            return openapi.answer(backend.limits)
        return await self._answer_client(request, target)

    async def _answer_client(self, request: web.BaseRequest, target: Target) -> web.Response:
        backend = self._backend
        if backend.store.cluster is None:  # then there are no tokens either
            raise codes.NOT_READY.error(name=backend.name)
        _check_repeated(request.headers)
        token = identify(request.headers, backend.store.tokens, backend.now_s)
        return await self._answer_as(token, request, target, relays=True)

    async def _answer_as(
        self, token: Token, request: web.BaseRequest, target: Target, *, relays: bool
    ) -> web.Response:
        try:
            response = await self._answer_known(request, target, token, relays=relays)
        except RequestError as error:
            response = _refusal(request, error)
            self._close_unread(request, response)
        if relaying.RELAYED_BY in response.headers:
            return response
        # Nothing was awaited since an endpoint read the store: this is the position it read at.
        response.headers.update(freshness_headers(self._backend))
        await shorten(request, response)
        return response

    async def _answer_known(
        self, request: web.BaseRequest, target: Target, token: Token, *, relays: bool
    ) -> web.Response:
        if binding.HEADER in request.headers:
            place, endpoint = binding.find(request.headers, request.method, target.path)
        else:
            place = find_place(request.method, target.path)
            endpoint = find_endpoint(place.resource, request.method)
        require(token, endpoint.scope)
        self._check_account(place)
        _check_reach(token, place)
        if place.resource not in OF_NODE:
            if not self._backend.ready():
                raise codes.NOT_READY.error(name=self._backend.name)
            shortfall = await meet_freshness(request.headers, endpoint.scope, self._backend)
            if shortfall is not None:
                if relays and endpoint.scope is Scope.READ and place.resource in relaying.READS:
                    return await relaying.relay(request, token, shortfall, self._backend)
                raise shortfall.refusal(self._backend)
        return await endpoint.answer(Call(request, self._backend, token, place, Query(target.query)))

    def _check_account(self, place: Place) -> None:
        cluster = self._backend.store.cluster
        if place.account and (cluster is None or place.account != cluster.account_id):
            raise codes.TOKEN_NOT_ALLOWED.error()

    def _failure(self, request: web.BaseRequest, error: Exception) -> web.Response:
        match error:
            case RequestError():
                response = _refusal(request, error)
            case web.HTTPException():  # aiohttp's own refusal, as of a WebSocket request that isn't one
                response = _refusal(request, codes.refusal(error.status, error.text or error.reason))
            case StorageDamaged():
                self._backend.damaged(error)
                response = _refusal(request, codes.DAMAGED.error(name=self._backend.name))
            case ConnectionError() if request.transport is None or request.transport.is_closing():
                return web.Response(status=400)  # the client is gone: nobody reads this
            case _:
                _log.error("%s %s failed", request.method, codes.shown(request.raw_path), exc_info=error)
                if request.writer.output_size:
                    raise ConnectionError("an answer that has begun can't become another one") from error
                response = _refusal(request, codes.INTERNAL.error(name=self._backend.name))
        self._close_unread(request, response)
        return response

    @staticmethod
    def _close_unread(request: web.BaseRequest, response: web.Response) -> None:
        """After refusing a body unread, don't take the rest of it for the next request's sake."""
        if not request.content.is_eof():
            response.force_close()


def _check_repeated(headers: CIMultiDictProxy[str]) -> None:
    """Raise if a field that decides something comes twice: whoever stands before us may have gone by the other."""
    if len(headers) == len({name.lower() for name in headers}):
        return
    for name in ONCE:
        if len(headers.getall(name, ())) > 1:
            raise codes.HEADER_INVALID.error(name=name, what="must come once")


def _refusal(request: web.BaseRequest, error: RequestError) -> web.Response:
    """Return an error in the form that whoever asked can read."""
    return binding.failure(error) if binding.HEADER in request.headers else envelope.failure(error)


def _check_reach(token: Token, place: Place) -> None:
    """Raise if the token is for other namespaces than this place is about; whether that one exists is not told.

    A node's own pages speak of all namespaces.
    """
    if not token.namespaces:
        return
    if place.resource in OF_NODE:
        require_everywhere(token)
    if place.namespace and not token.reaches(check_namespace_id(place.namespace)):
        raise codes.TOKEN_NOT_ALLOWED.error()
