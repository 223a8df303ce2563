"""One authorised request on its way to an endpoint, with what every endpoint needs of it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from aiohttp import web

from kvnet.api import codes
from kvnet.api.backend import Backend, WriteResult
from kvnet.api.query import Query
from kvnet.api.routes import Place, decode_key
from kvnet.api.validation import check_key, check_namespace_id
from kvnet.api.waiting import WAIT, Waiting, answer_written, read_waiting
from kvnet.core.catalog import Scope, Token
from kvnet.core.entries import SYSTEM_NAMESPACE
from kvnet.core.operations import Operation
from kvnet.errors import RequestError

_CONDITIONS: Final = ("If-Match", "If-None-Match", "If-Unmodified-Since")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,64}")


@dataclass(frozen=True, slots=True)
class Call:
    request: web.BaseRequest
    backend: Backend
    token: Token
    place: Place
    query: Query

    def key(self) -> bytes:
        return check_key(decode_key(self.place.key), self.backend.limits)

    def namespace_to_read(self, op: str) -> bytes:
        """Return the id of a namespace that this replica has.

        Raises:
            RequestError: malformed, or unknown here.
        """
        namespace = check_namespace_id(self.place.namespace)
        if namespace not in self.backend.store.namespaces:
            raise codes.NAMESPACE_NOT_FOUND.error(op=op)
        return namespace

    def namespace_to_write(self, op: str) -> bytes:
        """Return the id of a namespace that clients may write to.

        Whether it exists is for the coordinator to say: this replica may not have heard of it yet.
        """
        namespace = check_namespace_id(self.place.namespace)
        if namespace == SYSTEM_NAMESPACE:
            raise codes.NAMESPACE_NOT_FOUND.error(op=op)
        return namespace

    async def write(
        self, operation: Operation, op: str, result: dict[str, Any] | str | None = None
    ) -> web.Response:
        """Have the operation sequenced and return its answer; `op` is what errors call it.

        Raises:
            RequestError: refused, or unknown after a time-out.
        """
        waiting = self.waiting()
        if isinstance(result, str) and waiting is not None and waiting.share is not None:
            what = "isn't for an answer that is a text; only local is, or leave it out"
            raise codes.HEADER_INVALID.error(name=WAIT, what=what)
        return await self.answer(await self.have_written([operation], op, self.request_id()), result)

    async def have_written(
        self, operations: Sequence[Operation], op: str, request_id: bytes | None
    ) -> WriteResult:
        """Have the operations sequenced, all or none; `op` is what errors call it.

        Raises:
            RequestError: refused, or unknown after a time-out.
        """
        waiting = self.waiting()
        waited = waiting is not None and waiting.share is not None
        try:
            return await self.backend.write(operations, request_id, waited=waited)
        except RequestError as error:
            if error.code == codes.NAMESPACE_NOT_FOUND.code:
                raise codes.NAMESPACE_NOT_FOUND.error(op=op) from None
            raise

    async def answer(self, written: WriteResult, result: dict[str, Any] | str | None = None) -> web.Response:
        """Return the answer to a write, when what the request waits for has come true or its time is over."""
        return await answer_written(written, self.waiting(), self.backend, result)

    def waiting(self) -> Waiting | None:
        """Return what the request waits for beside its write being durable.

        Raises:
            RequestError: that can't be read.
        """
        return read_waiting(self.request.headers)

    def request_id(self) -> bytes | None:
        """Return the client's name for this write, within its token: two clients may both count from 1."""
        headers = self.request.headers
        for name in _CONDITIONS:
            if name in headers:  # that it was met must not seem to be so
                raise codes.HEADER_INVALID.error(name=name, what="a write takes no conditions; leave it out")
        request_id = headers.get("KV-Request-Id")
        if request_id is None:
            return None
        if not _REQUEST_ID.fullmatch(request_id):
            raise codes.HEADER_INVALID.error(name="KV-Request-Id", what="must be 1 to 64 visible ASCII characters")
        return f"{self.token.id}/{request_id}".encode()


ID_SPAN_S: Final = 300
"""After this time a request id makes another id: shorter than outcomes are remembered, so that one that is used
again never brings back the id of what was deleted."""


def id_of_request(request_id: bytes, now_s: float, person: bytes) -> bytes:
    """Return 16 bytes that a retry gets as well, at any node, and nothing else ever does."""
    span = int(now_s // ID_SPAN_S)
    return blake2b(b"%d/%b" % (span, request_id), digest_size=16, person=person).digest()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What answers one method of one resource, and the scope it takes."""

    answer: Callable[[Call], Awaitable[web.Response]]
    scope: Scope
