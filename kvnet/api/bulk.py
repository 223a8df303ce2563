"""Many pairs by one request: put, delete and get.

A body is looked at whole before anything of it is written: one bad element refuses it all. It is then written in
stretches of a few megabytes, so that neither this node nor the coordinator holds much of it; each stretch is
written whole or not at all, and nearly every request is one stretch. The answer comes when all is durable.
"""

from __future__ import annotations

import asyncio
import binascii
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, closing
from time import perf_counter
from typing import Any, BinaryIO, Final, NamedTuple, TypeVar

import msgspec
from aiohttp import web

from kvnet.api import codes, envelope
from kvnet.api.arrays import IN_MEMORY_BYTES_MAX, array_elements, spool_body
from kvnet.api.backend import Backend, WriteResult
from kvnet.api.bodies import read_json
from kvnet.api.call import Call
from kvnet.api.chunks import read_whole
from kvnet.api.held import HeldBody
from kvnet.api.validation import check_key, check_metadata, check_times
from kvnet.core.entries import INLINE_VALUE_BYTES_MAX
from kvnet.core.manifest import Manifest
from kvnet.core.operations import STRETCH_BYTES_MAX, DeleteValue, PutLargeValue, PutValue
from kvnet.core.pieces import LargeValue, take_apart
from kvnet.errors import RequestError
from kvnet.limits import Limits
from kvnet.storage.records import LARGE
from kvnet.storage.store import StoredRecord

ELEMENTS_MAX: Final = 10_000
BODY_BYTES_MAX: Final = 100_000_000
GET_KEYS_MAX: Final = 100
GET_BODY_BYTES_MAX: Final = 2 * 1024 * 1024
"""A hundred keys of 2,048 bytes, each byte escaped."""
GET_BYTES_MAX: Final = 25 * 1024 * 1024
ESCAPE_BYTES: Final = 6
"""What a byte may take in JSON."""
ELEMENT_VALUE_BYTES_MAX: Final = 40 * 1024 * 1024
"""Of an element's value as it is spelled: 25 MiB as base64, with room."""
ELEMENT_OVERHEAD_BYTES: Final = 4096
READ_AT_ONCE_BYTES: Final = 1024 * 1024
"""A bulk get of more takes room, until its answer is sent."""
TURN_S: Final = 0.002
"""How long a body is looked at before others have their turn."""
TOO_EARLY_TRIES: Final = 3
"""How often a later stretch that has a key too early for another write is tried."""

_NULL: Final = msgspec.Raw(b"null")

ValueOperation = PutValue | PutLargeValue | DeleteValue
WantedT = TypeVar("WantedT", bound="Wanted")


class _Pair(msgspec.Struct):
    """One element of a bulk put, as it is spelled."""

    key: str
    value: str
    base64: bool | None = None
    expiration: int | None = None
    expiration_ttl: int | None = None
    metadata: msgspec.Raw = _NULL


class Wanted(msgspec.Struct, rename="camel"):
    """The body of a bulk get."""

    keys: list[str]
    type: str | None = "text"
    with_metadata: bool | None = False


class _Kind(NamedTuple):
    """What is done with each element of a body."""

    op: str
    """What errors call it."""
    read: Callable[[bytes], ValueOperation]
    element_bytes_max: int


class Found(NamedTuple):
    value: Any
    metadata: msgspec.Raw
    expires_at: int


class _Read(NamedTuple):
    """What a bulk get has read: of each key its name, its record, and its value's bytes, or None for none."""

    names: list[str]
    records: list[StoredRecord | None]
    held: list[bytes | None]


_NO_KEYS: Final = frozenset({b"", b".", b".."})
_read_pair = msgspec.json.Decoder(_Pair).decode
_read_name = msgspec.json.Decoder(str).decode


async def put_many(call: Call) -> web.Response:
    """Write up to ELEMENTS_MAX pairs; of two for one key the last one counts."""
    namespace = call.namespace_to_write("bulk write keys")
    limits, now_s = call.backend.limits, call.backend.now_s()

    def read(element: bytes) -> ValueOperation:
        pair = _read_pair(element)
        key = check_key(_nonempty(pair.key), limits)
        expires_at, ttl_s = check_times(_spelled(pair.expiration_ttl), _spelled(pair.expiration), limits, now_s)
        metadata = check_metadata(bytes(pair.metadata), limits) if pair.metadata != _NULL else b""
        value = _value_of(pair)
        if len(value) > limits.value_bytes_max:
            raise codes.VALUE_TOO_LARGE.error(length=len(value), limit=limits.value_bytes_max)
        if len(value) <= INLINE_VALUE_BYTES_MAX:
            return PutValue(namespace, key, value, metadata, expires_at, ttl_s)
        taken = take_apart(bytearray(value), 0, len(value))
        assert isinstance(taken, LargeValue)
        return PutLargeValue(namespace, key, taken.manifest.pack(), metadata, expires_at, ttl_s, taken.chunks)

    value_bytes_max = min(ESCAPE_BYTES * limits.value_bytes_max, ELEMENT_VALUE_BYTES_MAX)
    others = ESCAPE_BYTES * (limits.key_bytes_max + limits.metadata_bytes_max) + ELEMENT_OVERHEAD_BYTES
    kind = _Kind("bulk write keys", read, value_bytes_max + others)
    written, count = await _write_many(call, kind)
    call.backend.usage.of(namespace).writes += count
    return await _answer(call, written, count)


async def delete_many(call: Call) -> web.Response:
    """Remove up to ELEMENTS_MAX pairs; one that isn't there is removed as well."""
    namespace = call.namespace_to_write("bulk remove keys")
    limits = call.backend.limits

    def read(element: bytes) -> ValueOperation:
        return DeleteValue(namespace, check_key(_nonempty(_read_name(element)), limits))

    kind = _Kind("bulk remove keys", read, ESCAPE_BYTES * limits.key_bytes_max + ELEMENT_OVERHEAD_BYTES)
    written, count = await _write_many(call, kind)
    call.backend.usage.of(namespace).deletes += count
    return await _answer(call, written, count)


async def _answer(call: Call, written: WriteResult | None, count: int) -> web.Response:
    told = {"successful_key_count": count, "unsuccessful_keys": []}
    return envelope.success(told) if written is None else await call.answer(written, told)


async def get_many(call: Call) -> web.Response:
    """Read up to GET_KEYS_MAX values, as text or as JSON; a key without one has null."""
    wanted = await read_wanted(call, Wanted)
    values: dict[str, Any]
    if wanted.with_metadata:
        found, size = find_many(call, wanted)
        values = {key: each and _describe(each) for key, each in found.items()}
    else:
        values, size = find_values(call, wanted)
    return hold(envelope.success({"values": values}), call, size)


async def read_wanted(call: Call, kind: type[WantedT]) -> WantedT:
    """Return what the body of a bulk get asks for.

    Raises:
        RequestError: it isn't one.
    """
    try:
        return msgspec.convert(await read_json(call.request, GET_BODY_BYTES_MAX), kind)
    except msgspec.ValidationError as error:
        raise codes.BULK_ELEMENT.error(what=error) from None


def find_many(call: Call, wanted: Wanted) -> tuple[dict[str, Found | None], int]:
    """Return what each key has now, and the size of it all.

    Raises:
        RequestError: too many keys or none, too much, or what isn't of the type asked for.
    """
    names, records, _ = read = _read_many(call, wanted)
    values, size = _spell(wanted, read)
    found: dict[str, Found | None] = {}
    for name, record, value in zip(names, records, values, strict=True):
        if record is None:
            found[name] = None
        else:
            metadata = msgspec.Raw(record.metadata) if record.metadata else _NULL
            found[name] = Found(value, metadata, record.expires_at)
    return found, size


def find_values(call: Call, wanted: Wanted) -> tuple[dict[str, Any], int]:
    """Return each key's value alone, None where it has none; otherwise as `find_many`."""
    read = _read_many(call, wanted)
    values, size = _spell(wanted, read)
    return dict(zip(read.names, values, strict=True)), size


def _read_many(call: Call, wanted: Wanted) -> _Read:
    """Return the records of the keys that are asked for, each key once.

    Raises:
        RequestError: too many keys or none, too much, or an unknown type.
    """
    namespace = call.namespace_to_read("bulk get keys")
    if wanted.type not in {"text", "json", None}:
        raise codes.BULK_GET_TYPE.error(given=wanted.type)
    if not wanted.keys:
        raise codes.BULK_GET_NONE.error()
    if len(wanted.keys) > GET_KEYS_MAX:
        raise codes.BULK_GET_COUNT.error(most=GET_KEYS_MAX)
    backend = call.backend
    backend.usage.of(namespace).reads += len(wanted.keys)
    names = list(dict.fromkeys(wanted.keys))
    records = backend.store.get_many(namespace, _check_names(names, backend.limits))
    held: list[bytes | None] = []
    size = 0
    # Nothing is called for a value that is one of its record alone: there are a hundred, of a microsecond each.
    for at, record in enumerate(records):
        if record is None:
            held.append(None)
        elif record.expires_at and record.expires_at <= backend.now_s():
            records[at] = None
            held.append(None)
        else:
            data = record.value
            if record.stored[0] & LARGE:
                data = _read_large(backend, data, GET_BYTES_MAX - size)
            size += len(data)
            if size > GET_BYTES_MAX:
                raise codes.BULK_GET_TOO_LARGE.error(limit=GET_BYTES_MAX)
            held.append(data)
    return _Read(names, records, held)


def _check_names(names: list[str], limits: Limits) -> list[bytes]:
    """Return the keys of these names, which may be none that nothing can have.

    They are looked at all at once, and one by one only if one of them is bad.

    Raises:
        RequestError: one can't be a key.
    """
    keys = [name.encode("utf-8") for name in names]
    if _NO_KEYS.isdisjoint(keys) and max(map(len, keys)) <= limits.key_bytes_max:
        return keys
    return [check_key(_nonempty(name), limits) for name in names]


def _spell(wanted: Wanted, read: _Read) -> tuple[list[Any], int]:
    """Return each value as it is asked for, and the size of them all.

    Raises:
        RequestError: one isn't of that type, or they are too long as they are spelled.
    """
    size = sum(len(data) for data in read.held if data is not None)
    if wanted.type == "json":
        return [None if data is None else _as_json(data) for data in read.held], size
    try:
        texts = [None if data is None else data.decode("utf-8") for data in read.held]
    except UnicodeDecodeError:
        raise codes.BULK_GET_NOT_TEXT.error(type="text") from None
    # A text may be longer as it is spelled; whether it is too long is looked at only where it can be.
    if size * ESCAPE_BYTES > GET_BYTES_MAX:
        size = sum(len(msgspec.json.encode(text)) - 2 for text in texts if text is not None)
        if size > GET_BYTES_MAX:
            raise codes.BULK_GET_TOO_LARGE.error(limit=GET_BYTES_MAX)
    return texts, size


def hold(response: web.Response, call: Call, size: int) -> web.Response:
    """Return the answer, which if it is long has room until it is sent or given up.

    Whoever asks and doesn't read shall not fill the memory.
    """
    if size > READ_AT_ONCE_BYTES:
        held = ExitStack()
        held.enter_context(call.backend.large_reads.taken())
        assert isinstance(response.body, bytes)
        response.body = HeldBody(response.body, held.close)
    return response


def _read_large(backend: Backend, packed: bytes, bytes_max: int) -> bytes:
    """Return a large value, unless there is no room for it in the answer."""
    if Manifest.unpack(packed).size > bytes_max:
        raise codes.BULK_GET_TOO_LARGE.error(limit=GET_BYTES_MAX)
    return read_whole(backend, packed)


def _as_json(data: bytes) -> msgspec.Raw:
    try:
        data.decode("utf-8")
        msgspec.json.decode(data)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        raise codes.BULK_GET_NOT_TEXT.error(type="json") from None
    return msgspec.Raw(data)


def _describe(found: Found) -> dict[str, Any]:
    described: dict[str, Any] = {"value": found.value, "metadata": found.metadata}
    if found.expires_at:
        described["expiration"] = found.expires_at
    return described


async def _write_many(call: Call, kind: _Kind) -> tuple[WriteResult | None, int]:
    """Return what became of the last write, None if there was none, and how many pairs the body speaks of."""
    with ExitStack() as stack:
        announced = call.request.content_length
        if announced is None or announced > IN_MEMORY_BYTES_MAX:
            stack.enter_context(call.backend.large_room.taken())
        body = stack.enter_context(closing(await spool_body(call.request, BODY_BYTES_MAX)))
        last: dict[bytes, int] = {}
        count = 0
        async for index, operation in _operations(body, kind):
            last[operation.key] = index
            count += 1
        call.waiting()  # refused before anything is written
        results: list[WriteResult] = []
        written = 0
        async for stretch in _stretches(body, kind, set(last.values())):
            try:
                results.append(await _write_stretch(call, kind.op, stretch, len(results)))
            except RequestError as error:
                if not written:
                    raise
                text = codes.BULK_CUT_SHORT.format(message=error.message, written=written, count=len(last))
                raise RequestError(error.status, error.code, text, definite=False, headers=error.headers) from None
            written += len(stretch)
        if not results:  # the coordinator wasn't asked
            call.namespace_to_read(kind.op)
    if not results:
        return None, count
    return WriteResult(max(each.version for each in results), any(each.pending for each in results)), count


async def _write_stretch(call: Call, op: str, stretch: list[ValueOperation], number: int) -> WriteResult:
    """Write one stretch under a request id of its own.

    The first one is refused for a key that was written a moment ago, and all of the body with it; a later one
    waits until that moment is over.
    """
    request_id = call.request_id()
    if request_id is not None and number:
        request_id += b"\0%d" % number
    for tries_left in reversed(range(TOO_EARLY_TRIES)):
        try:
            return await call.have_written(stretch, op, request_id)
        except RequestError as error:
            if not (error.status == 429 and number and tries_left):
                raise
        await asyncio.sleep(call.backend.limits.write_interval_ms / 1000)
    raise AssertionError("the last try returns or raises")


async def _stretches(body: BinaryIO, kind: _Kind, counted: set[int]) -> AsyncIterator[list[ValueOperation]]:
    """Yield what is to be written at once; of a large value, that value alone."""
    stretch: list[ValueOperation] = []
    size = 0
    async for index, operation in _operations(body, kind):
        if index not in counted:
            continue
        large = isinstance(operation, PutLargeValue)
        added = len(operation.key) + (len(operation[2]) + len(operation[3]) if len(operation) > 2 else 0) + 32
        if stretch and (large or size + added > STRETCH_BYTES_MAX):
            yield stretch
            stretch, size = [], 0
        stretch.append(operation)
        size += added
        if large:
            yield stretch
            stretch, size = [], 0
    if stretch:
        yield stretch


async def _operations(body: BinaryIO, kind: _Kind) -> AsyncIterator[tuple[int, ValueOperation]]:
    """Yield each element's number and what it asks for, from the body's beginning.

    Raises:
        RequestError: an element is bad; the text tells which.
    """
    body.seek(0)
    began = perf_counter()
    index = -1
    for element in array_elements(body, kind.element_bytes_max):
        if perf_counter() - began > TURN_S:
            await asyncio.sleep(0)
            began = perf_counter()
        if element is None:
            continue
        index += 1
        if index >= ELEMENTS_MAX:
            raise codes.BULK_TOO_MANY.error(op=kind.op, most=ELEMENTS_MAX)
        try:
            yield index, kind.read(element)
        except msgspec.ValidationError as error:
            raise codes.BULK_ELEMENT.error(what=f"[{index}]: {error}") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise codes.BODY_INVALID.error() from None
        except RequestError as error:
            raise RequestError(error.status, error.code, f"[{index}]: {error.message}") from None


def _nonempty(name: str) -> bytes:
    if not name:
        raise codes.KEY_NOT_ALLOWED.error()
    return name.encode("utf-8")


def _spelled(number: int | None) -> str | None:
    return None if number is None else str(number)


def _value_of(pair: _Pair) -> bytes:
    if not pair.base64:
        return pair.value.encode("utf-8")
    try:
        return binascii.a2b_base64(pair.value.encode("ascii"), strict_mode=True)
    except ValueError:  # binascii.Error is one, UnicodeEncodeError too
        raise codes.BULK_ELEMENT.error(what="value: not base64, as `base64` says it is") from None
