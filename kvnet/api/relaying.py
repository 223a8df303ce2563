"""A read that this node can't answer as fresh as it was asked for, put to a node that can.

The question carries what decides the answer: method, target, the headers in `CARRIED`, the body, and what the
token reaches. Who may ask was decided before; the node that is asked decides all the rest, freshness included,
from its own store. It asks nobody in turn, so no read travels twice.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import Final

import msgspec
from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from kvnet.api import codes
from kvnet.api.backend import Backend, Relayed
from kvnet.api.binding import HEADER as NAMESPACE
from kvnet.api.bodies import read_body
from kvnet.api.bulk import GET_BODY_BYTES_MAX
from kvnet.api.freshness import AT_LEAST, MAX_STALENESS, WAIT_TIMEOUT, Shortfall
from kvnet.api.routes import Resource
from kvnet.core.catalog import Scope, Token

RELAYED_BY: Final = "KV-Relayed-By"
"""On an answer of another node: the PoP that asked it."""
CARRIED: Final = (
    NAMESPACE,
    AT_LEAST,
    MAX_STALENESS,
    "Accept-Encoding",
    "Content-Type",
    "If-None-Match",
    "If-Range",
    "Range",
)
READS: Final = frozenset(
    {
        Resource.NAMESPACES,
        Resource.NAMESPACE,
        Resource.KEYS,
        Resource.VALUE,
        Resource.METADATA,
        Resource.BULK_GET,
    }
)
"""Whose reads may be relayed; what an account or a token is, is told here or not at all."""
QUESTION_BYTES_MAX: Final = GET_BODY_BYTES_MAX + 256 * 1024
"""A bulk get's body, beside a target and headers of the greatest length."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST"})


class _Question(msgspec.Struct, frozen=True, array_like=True):
    method: str
    target: bytes
    headers: dict[str, bytes]
    body: bytes
    token: str
    """The token's id; it may be unknown where this is answered."""
    namespaces: tuple[bytes, ...]
    """Those that the token reaches; () for all."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Question).decode


async def relay(request: web.BaseRequest, token: Token, shortfall: Shortfall, backend: Backend) -> web.Response:
    """Return another node's answer as it is, or the refusal, which says who was asked.

    Raises:
        RequestError: nobody could answer, or the request's body can't be read.
    """
    body = b""
    if request.method == "POST":
        body = await read_body(request, GET_BODY_BYTES_MAX, codes.BODY_TOO_LARGE)
    headers = {name: _bytes(request.headers[name]) for name in CARRIED if name in request.headers}
    question = _Question(request.method, _bytes(request.raw_path), headers, body, token.id, token.namespaces)
    answer = await backend.relay(
        _encode(question),
        head_only=request.method == "HEAD",
        at_least=shortfall.wanted.at_least,
        staleness_ms=shortfall.wanted.staleness_ms,
    )
    if isinstance(answer, str):
        raise shortfall.refusal(backend, asked=answer)
    told = {**answer.headers, RELAYED_BY: backend.pop}
    if request.method == "HEAD" or answer.status in {204, 304}:
        answer.close()
        if request.method == "HEAD" and answer.size is not None:
            told["Content-Length"] = str(answer.size)
        return web.Response(status=answer.status, reason=answer.reason, headers=told)
    return web.Response(status=answer.status, reason=answer.reason, headers=told, body=_RelayedBody(answer))


def read_question(request: web.BaseRequest, question: bytes) -> tuple[web.BaseRequest, Token]:
    """Return what another node's client asked, in the place of `request`, which brought it, and as whom.

    Raises:
        RequestError: it isn't a question.
    """
    try:
        asked = _decode(question)
    except (msgspec.DecodeError, msgspec.ValidationError):
        raise codes.BODY_INVALID.error() from None
    if asked.method not in _METHODS:
        raise codes.METHOD_NOT_ALLOWED.error(headers={"Allow": ", ".join(sorted(_METHODS))})
    target = _text(asked.target)
    headers = CIMultiDict({name: _text(value) for name, value in asked.headers.items() if name in CARRIED})
    headers[WAIT_TIMEOUT] = "0"
    if asked.body:
        headers["Content-Length"] = str(len(asked.body))
    message = request._message._replace(  # noqa: SLF001 - aiohttp's own `clone` would normalise the target
        method=asked.method,
        path=target,
        headers=CIMultiDictProxy(headers),
        raw_headers=tuple((name.encode(), _bytes(value)) for name, value in headers.items()),
        url=URL.build(path="/"),
    )
    loop = asyncio.get_running_loop()
    content = StreamReader(request.protocol, 2**16, loop=loop)
    if asked.body:
        content.feed_data(asked.body)
    content.feed_eof()
    inner = web.BaseRequest(message, content, request.protocol, request.writer, request.task, loop)
    return inner, Token(asked.token, asked.token, Scope.READ, b"", asked.namespaces)


class _RelayedBody(Payload):
    """Another node's answer as a body: passed on as it comes, never held."""

    def __init__(self, answer: Relayed) -> None:
        super().__init__(answer)
        self._answer = answer
        self._size = answer.size
        weakref.finalize(self, answer.close)  # a client that is gone never has it written

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send it all.

        Raises:
            ConnectionAbortedError: it ended early; so does this one.
        """
        try:
            async for part in self._answer.parts():
                await writer.write(part)
        finally:
            self._answer.close()

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:  # noqa: ARG002 - aiohttp's own
        raise TypeError("a relayed answer is sent, never held")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
