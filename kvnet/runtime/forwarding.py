"""Writes on their way: an edge passes them to the coordinator, and answers when its own replica has them.

    POST /peer/v1/write, signed        {"operations": […], "request_id": bytes, "waited": bool}, then a large
                                       value's chunks; "waited" says that a spread will be asked for
    200                                {"version": [epoch, seq]}
    POST /peer/v1/spread, signed       {"version": [epoch, seq], "share": int, "timeout_ms": int}; the share in
                                       thousandths of a percent
    200, once so many members have it  {"complete": bool, "applied": int, "of": int, "missing": [], "took_ms": {}}
    otherwise                          {"error": {status, code, message, definite, headers}}

Bodies are msgpack. A large value's chunks follow as objects of their own, so that neither side holds it in one
piece. The signature of a body that may be long, of a large value or of several operations, is over the digest that
`KV-Digest` tells, and is checked before any of it is read. A retry
carries the same request id, which the coordinator answers and doesn't do again. The way feels the pair's delay and
its cuts, but no packet loss.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Sequence
from contextlib import ExitStack
from hashlib import sha256
from itertools import count
from typing import Any, Final, NamedTuple

import msgpack
from aiohttp import ClientConnectorError, ClientError, ClientSession, ClientTimeout, web

from kvnet.core.entries import INLINE_VALUE_BYTES_MAX
from kvnet.core.manifest import CHUNK_BYTES
from kvnet.core.operations import (
    STRETCH_BYTES_MAX,
    STRETCH_OPERATIONS_MAX,
    Operation,
    PutLargeValue,
    from_wire,
    to_wire,
)
from kvnet.core.pieces import LargeRoom
from kvnet.core.spread import Share, Spread
from kvnet.core.versions import Version
from kvnet.errors import ProtocolError, RequestError
from kvnet.topology.wan import Wan
from kvnet.transport.handshake import Identity
from kvnet.transport.signing import HEADER, BodyDigest, check, sign

PATH: Final = "/peer/v1/write"
SPREAD_PATH: Final = "/peer/v1/spread"
WAITING_MAX: Final = 1000
"""Writes under way at once; whoever comes beyond is told to come back."""
WAITED_MAX: Final = 1000
"""Writes whose spread is waited for; of one beyond it isn't told."""
SPREAD_MS_MAX: Final = 60_000
SPREAD_GRACE_S: Final = 1.0
"""How much longer than it is told to wait the coordinator may take: the client gives up 7 s after its own wait."""
SPREAD_BYTES_MAX: Final = 1024
DIGEST_HEADER: Final = "KV-Digest"
ATTEMPT_TIMEOUT_S: Final = 10.0
LARGE_ATTEMPT_TIMEOUT_S: Final = 60.0
RETRY_FOR_S: Final = 5.0
"""How long a coordinator that can't be reached is tried again."""
RETRY_FIRST_S: Final = 0.1
RETRY_MAX_S: Final = 1.0
REQUEST_ID_BYTES_MAX: Final = 256
BODY_OVERHEAD_BYTES: Final = 16_384
"""Key, metadata and request id of a forwarded write, with room."""
LONG_BODY_BYTES: Final = CHUNK_BYTES
"""A body longer than this takes room, of which there is little."""
UNREACHABLE: Final = 20010
"""API code: the coordinator can't be reached, the write was not made."""
UNKNOWN_OUTCOME: Final = 20011
"""API code: the write may have been made."""
TOO_MANY: Final = 20012
"""API code: this node has too many writes under way."""

_BIN32: Final = b"\xc6"
"""msgpack: bytes, their length in four bytes."""

_log = logging.getLogger(__name__)


class Forwarded(NamedTuple):
    """A write that the coordinator has made durable."""

    version: Version
    pending: bool
    """This node's replica doesn't have it yet."""


class _Body(NamedTuple):
    """A request's bytes, in parts that are only put together on the way."""

    parts: list[bytes]
    size: int
    digest: BodyDigest
    long: bool
    """It may be too long to be read before its sender is known."""

    @classmethod
    def of(cls, operations: Sequence[Operation], request_id: bytes, *, waited: bool) -> _Body:
        wire = {
            "operations": [to_wire(operation) for operation in operations],
            "request_id": request_id,
            "waited": waited,
        }
        parts: list[bytes] = [msgpack.packb(wire)]
        for operation in operations:
            if isinstance(operation, PutLargeValue):
                for chunk in operation.chunks:
                    parts += (_BIN32 + len(chunk).to_bytes(4, "big"), chunk)
        return cls.of_parts(parts, long=len(parts) > 1 or len(operations) > 1)

    @classmethod
    def of_parts(cls, parts: list[bytes], *, long: bool = False) -> _Body:
        digest = sha256()
        for part in parts:
            digest.update(part)
        return cls(parts, sum(map(len, parts)), BodyDigest(digest.hexdigest()), long)

    async def stream(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            yield part


class _NotReached(Exception):
    """An attempt failed on the way; `sent` tells whether the coordinator may have got it."""

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


class Forwarder:
    """An edge's way to write."""

    def __init__(
        self,
        me: Identity,
        session: ClientSession,
        wan: Wan,
        rng: random.Random,
        *,
        coordinator: str,
        url: str,
        wait_for: Callable[[Version, float], Awaitable[bool]],
        visibility_wait_ms: float,
    ) -> None:
        """`url` is the coordinator's; `wait_for` tells whether this replica reached a version in time."""
        self._me = me
        self._session = session
        self._wan = wan
        self._rng = rng
        self._coordinator = coordinator
        self._url = url
        self._wait_for = wait_for
        self._visibility_wait_ms = visibility_wait_ms
        self._counter = count(1)
        self._waiting = 0
        self._waited = 0

    async def write(
        self, operations: Sequence[Operation], request_id: bytes | None = None, *, waited: bool = False
    ) -> Forwarded:
        """Have the coordinator sequence these, all or none, and wait a little until this replica has them.

        `waited` tells the coordinator that it will be asked how far they have spread.

        Raises:
            RequestError: the coordinator refused; or it wasn't reached (definite), or may have been (not
                definite: ask again with the same request id).
        """
        if self._waiting >= WAITING_MAX:
            text = f"{self._me.name} has {WAITING_MAX} writes under way; try again in a second"
            raise RequestError(503, TOO_MANY, text, headers={"Retry-After": "1"})
        self._waiting += 1
        try:
            version = await self._have_written(operations, request_id or self._next_id(), waited=waited)
            reached = await self._wait_for(version, self._visibility_wait_ms)
        finally:
            self._waiting -= 1
        return Forwarded(version, pending=not reached)

    async def spread(self, version: Version, share: Share, timeout_ms: float) -> Spread | None:
        """Return how far a write has spread, once such a share of the members has it or the time is over.

        None: the coordinator can't be asked.
        """
        if self._waited >= WAITED_MAX:
            return None
        self._waited += 1
        loop = asyncio.get_running_loop()
        give_up = loop.time() + timeout_ms / 1000
        retry_s = RETRY_FIRST_S
        try:
            while True:
                left_ms = max(0.0, give_up - loop.time()) * 1000
                try:
                    return await self._ask_for_spread(version, share, left_ms)
                except (_NotReached, RequestError) as error:
                    retry_s = min(RETRY_MAX_S, retry_s * 2) * self._rng.uniform(0.8, 1.2)
                    if loop.time() + retry_s > give_up:
                        _log.info("how far %s has spread isn't known: %s", version, error)
                        return None
                await asyncio.sleep(retry_s)
        finally:
            self._waited -= 1

    async def _ask_for_spread(self, version: Version, share: Share, left_ms: float) -> Spread:
        """Return what the coordinator answers.

        Raises:
            RequestError: the coordinator's.
            _NotReached: no answer.
        """
        me, coordinator = self._me.name, self._coordinator
        ways_ms = self._wan.one_way_ms(me, coordinator) + self._wan.one_way_ms(coordinator, me)
        asked = {"version": version, "share": share.thousandths, "timeout_ms": max(0, int(left_ms - ways_ms))}
        body = _Body.of_parts([msgpack.packb(asked)])
        fields = await self._attempt(SPREAD_PATH, body, left_ms / 1000 + SPREAD_GRACE_S)
        try:
            return Spread.from_wire(fields)
        except ProtocolError as error:
            raise _NotReached(str(error), sent=True) from None

    def _next_id(self) -> bytes:
        return self._me.name.encode() + b"\0" + self._me.start_id + next(self._counter).to_bytes(8, "big")

    async def _have_written(self, operations: Sequence[Operation], request_id: bytes, *, waited: bool) -> Version:
        body = _Body.of(operations, request_id, waited=waited)
        loop = asyncio.get_running_loop()
        give_up = loop.time() + RETRY_FOR_S
        retry_s = RETRY_FIRST_S
        sent = False
        while True:
            try:
                return _read_version(
                    await self._attempt(PATH, body, LARGE_ATTEMPT_TIMEOUT_S if body.long else ATTEMPT_TIMEOUT_S)
                )
            except _NotReached as error:
                sent = sent or error.sent
                retry_s = min(RETRY_MAX_S, retry_s * 2) * self._rng.uniform(0.8, 1.2)
                if loop.time() + retry_s > give_up:
                    raise self._lost(error, sent=sent) from None
            await asyncio.sleep(retry_s)

    async def _attempt(self, path: str, body: _Body, timeout_s: float) -> Any:
        """Return what the coordinator answered, or raise it.

        Raises:
            RequestError: the coordinator's.
            _NotReached: no answer.
        """
        me, coordinator, wan = self._me.name, self._coordinator, self._wan
        if wan.is_cut(me, coordinator):
            raise _NotReached("the way there is cut", sent=False)
        await asyncio.sleep(wan.one_way_ms(me, coordinator) / 1000)
        headers = {HEADER: sign(self._me, "POST", path, body.digest)}
        if body.long:
            headers |= {DIGEST_HEADER: body.digest.hex, "Content-Length": str(body.size)}
        try:
            async with self._session.post(
                self._url + path,
                data=body.stream() if body.long else body.parts[0],
                headers=headers,
                timeout=ClientTimeout(total=timeout_s),
            ) as response:
                answer = await response.read()
        except ClientConnectorError as error:
            raise _NotReached(str(error), sent=False) from None
        except (OSError, ClientError) as error:
            raise _NotReached(f"{type(error).__name__} {error}", sent=True) from None
        if wan.is_cut(coordinator, me):
            raise _NotReached("the way back is cut", sent=True)
        await asyncio.sleep(wan.one_way_ms(coordinator, me) / 1000)
        return _read_answer(me, answer)

    def _lost(self, error: _NotReached, *, sent: bool) -> RequestError:
        _log.info("a write was given up: %s", error)
        if sent:
            text = "the coordinator didn't answer, the write may have been made; ask again with this KV-Request-Id"
            return RequestError(504, UNKNOWN_OUTCOME, text, definite=False)
        text = "the coordinator can't be reached, the write was not made; reads go on; try again later"
        return RequestError(503, UNREACHABLE, text, headers={"Retry-After": "1"})


class WriteDesk:
    """The coordinator's side: takes signed writes and hands them to `write`, and questions after their spread."""

    def __init__(
        self,
        me: Identity,
        known: Container[str],
        write: Callable[[Sequence[Operation], bytes, bool], Awaitable[Version]],
        spread: Callable[[Version, Share, float], Awaitable[Spread]],
        *,
        value_bytes_max: int,
        room: LargeRoom,
    ) -> None:
        """`value_bytes_max` is the limit on values: no body may be much larger, whoever sends it."""
        self._me = me
        self._known = known
        self._write = write
        self._spread = spread
        self._small_bytes_max = min(value_bytes_max, INLINE_VALUE_BYTES_MAX) + BODY_OVERHEAD_BYTES
        self._body_bytes_max = max(value_bytes_max, 2 * STRETCH_BYTES_MAX) + BODY_OVERHEAD_BYTES
        self._room = room

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answer one forwarded write."""
        try:
            if DIGEST_HEADER in request.headers:
                with ExitStack() as stack:
                    if (request.content_length or self._body_bytes_max) > LONG_BODY_BYTES:
                        stack.enter_context(self._room.taken())
                    version = await self._write(*await self._read_long(request))
            else:
                body = await _read_body(request, self._small_bytes_max)
                check(self._me, self._known, request.headers.get(HEADER), request.method, PATH, body)
                version = await self._write(*_read_request(body))
        except RequestError as error:
            return _refusal(error)
        return _answer(200, {"version": list(version)})

    async def handle_spread(self, request: web.BaseRequest) -> web.Response:
        """Answer how far a write has spread, once that is far enough."""
        try:
            body = await _read_body(request, SPREAD_BYTES_MAX)
            check(self._me, self._known, request.headers.get(HEADER), request.method, SPREAD_PATH, body)
            spread = await self._spread(*_read_spread(body))
        except RequestError as error:
            return _refusal(error)
        return _answer(200, spread.to_wire())

    async def _read_long(self, request: web.BaseRequest) -> tuple[list[Operation], bytes, bool]:
        """Read a large value's write, chunk by chunk, or many writes; nothing before the signature is right."""
        told = BodyDigest(request.headers[DIGEST_HEADER])
        check(self._me, self._known, request.headers.get(HEADER), request.method, PATH, told)
        digest = sha256()
        size = 0
        unpacker = msgpack.Unpacker(max_buffer_size=max(4 * CHUNK_BYTES, 2 * STRETCH_BYTES_MAX))
        objects: list[Any] = []
        async for part in request.content.iter_any():
            size += len(part)
            if size > self._body_bytes_max:
                raise _too_long(self._body_bytes_max)
            digest.update(part)
            try:
                unpacker.feed(part)
                objects += unpacker
            except (ValueError, msgpack.UnpackException, TypeError) as error:
                raise RequestError(400, 10012, f"invalid request body: {error}") from None
        if digest.hexdigest() != told.hex:
            raise RequestError(400, 10012, "invalid request body: not the one that was signed")
        operations, request_id, waited = _read_fields(objects[0] if objects else None)
        chunks = objects[1:]
        if not all(isinstance(chunk, bytes) for chunk in chunks):
            raise RequestError(400, 10012, "invalid request body: a chunk that isn't bytes")
        match operations:
            case [PutLargeValue() as operation]:
                return [operation._replace(chunks=chunks)], request_id, waited
            case _ if chunks or any(isinstance(operation, PutLargeValue) for operation in operations):
                raise RequestError(400, 10012, "invalid request body: a large value comes alone")
            case _:
                return operations, request_id, waited


def _refusal(error: RequestError) -> web.Response:
    fields = {
        "status": error.status,
        "code": error.code,
        "message": error.message,
        "definite": error.definite,
        "headers": error.headers,
    }
    return _answer(error.status, {"error": fields})


def _too_long(bytes_max: int) -> RequestError:
    return RequestError(413, 10001, f"a forwarded write of more than {bytes_max} bytes")


def _answer(status: int, fields: dict[str, Any]) -> web.Response:
    return web.Response(status=status, body=msgpack.packb(fields), content_type="application/msgpack")


async def _read_body(request: web.BaseRequest, bytes_max: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > bytes_max:
            raise _too_long(bytes_max)
        chunks.append(chunk)
    return b"".join(chunks)


def _unpack(body: bytes) -> Any:
    try:
        return msgpack.unpackb(body)
    except (ValueError, msgpack.UnpackException, TypeError) as error:
        raise RequestError(400, 10012, f"invalid request body: {error}") from None


def _read_spread(body: bytes) -> tuple[Version, Share, int]:
    match _unpack(body):
        case {
            "version": [int() as epoch, int() as seq],
            "share": int() as thousandths,
            "timeout_ms": int() as timeout_ms,
        } if 0 <= timeout_ms <= SPREAD_MS_MAX:
            try:
                return Version(epoch, seq), Share.of(thousandths), timeout_ms
            except ValueError as error:
                raise RequestError(400, 10012, f"invalid request body: {error}") from None
    raise RequestError(400, 10012, "invalid request body: not a version, a share and a time")


def _read_request(body: bytes) -> tuple[list[Operation], bytes, bool]:
    return _read_fields(_unpack(body))


def _read_fields(told: Any) -> tuple[list[Operation], bytes, bool]:
    try:
        match told:
            case {
                "operations": list() as operations,
                "request_id": bytes() as request_id,
                "waited": bool() as waited,
            } if 0 < len(operations) <= STRETCH_OPERATIONS_MAX and 0 < len(request_id) <= REQUEST_ID_BYTES_MAX:
                return [from_wire(fields) for fields in operations], request_id, waited
    except (ProtocolError, TypeError) as error:
        raise RequestError(400, 10012, f"invalid request body: {error}") from None
    raise RequestError(400, 10012, "invalid request body: not operations and a request id")


def _read_version(fields: Any) -> Version:
    match fields:
        case {"version": [int() as epoch, int() as seq]}:
            return Version(epoch, seq)
        case _:
            raise _another_program()


def _another_program() -> _NotReached:
    """Whoever answered is no coordinator of ours; an answer that was cut short comes as a ClientError."""
    return _NotReached("another program answers at the coordinator's address", sent=True)


def _read_answer(node: str, answer: bytes) -> Any:
    try:
        fields = msgpack.unpackb(answer)
    except (ValueError, msgpack.UnpackException):
        fields = None
    match fields:
        case {
            "error": {
                "status": int() as status,
                "code": int() as code,
                "message": str() as message,
                "definite": bool() as definite,
                "headers": dict() as headers,
            }
        }:
            if status == 401:  # it is us who aren't let in, not our client
                raise RequestError(502, UNREACHABLE, f"the coordinator refuses {node}: {message}")
            raise RequestError(status, code, message, definite=definite, headers=headers)
        case dict():
            return fields
        case _:
            raise _another_program()
