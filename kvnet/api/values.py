"""One pair: its value, raw, and its metadata."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from typing import Final

import msgspec
from aiohttp import web

from kvnet.api import codes, envelope
from kvnet.api.backend import WriteResult
from kvnet.api.bodies import FORM_OVERHEAD_BYTES, find_parts, form_boundary, read_large_body, read_value
from kvnet.api.call import Call
from kvnet.api.chunks import ChunkedValue
from kvnet.api.conditions import is_known, version_headers, wanted_part
from kvnet.api.validation import check_expiry, check_metadata
from kvnet.core.manifest import Manifest
from kvnet.core.operations import DeleteValue, PutLargeValue, PutValue
from kvnet.core.pieces import LargeValue, take_apart
from kvnet.limits import Limits
from kvnet.storage.store import StoredRecord

_NULL: Final = msgspec.Raw(b"null")

TakeRoom = Callable[[], object]
"""Called, once, as soon as a value is known to be large."""
PairReader = Callable[[TakeRoom], Awaitable[tuple[bytes | LargeValue, bytes]]]
"""Returns (value, metadata) of a write."""


async def get_value(call: Call) -> web.Response:
    record = find_record(call)
    response = answer_value(call, record)
    if record.expires_at:
        response.headers["expiration"] = str(record.expires_at)
    return response


def answer_value(call: Call, record: StoredRecord) -> web.Response:
    """Return the value's bytes as an answer, a large one's chunk by chunk; or the part that is asked for.

    Raises:
        RequestError: there is no such part.
    """
    asked, version = call.request.headers, record.version
    if is_known(asked, version):
        return web.Response(status=304, headers=version_headers(version))
    headers = {"Content-Type": "application/octet-stream", **version_headers(version)}
    size = Manifest.unpack(record.value).size if record.large else len(record.value)
    part = wanted_part(asked, version, size) if call.request.method == "GET" else None
    if part is None:
        if record.large:
            headers["Accept-Ranges"] = "bytes"
        first, end = 0, size
    else:
        first, end = part.first, part.last + 1
        headers["Content-Range"] = f"bytes {first}-{part.last}/{size}"
    body = ChunkedValue(call.backend, record.value, first, end) if record.large else record.value[first:end]
    return web.Response(status=200 if part is None else 206, body=body, headers=headers)


async def get_metadata(call: Call) -> web.Response:
    record = find_record(call)
    if is_known(call.request.headers, record.version):
        return web.Response(status=304, headers=version_headers(record.version))
    response = envelope.success(msgspec.Raw(record.metadata) if record.metadata else _NULL)
    response.headers.update(version_headers(record.version))
    return response


async def put_value(call: Call) -> web.Response:
    """Replace the pair whole: a put without metadata or expiry clears what was there."""
    return await write_pair(call, partial(_read_pair, call.request, call.backend.limits))


async def write_pair(call: Call, read: PairReader) -> web.Response:
    """Have the pair that `read` finds in the request written at the place of the path."""
    written = await _write_pair(call, read)  # which holds the value; waiting for PoPs doesn't
    return await call.answer(written)


async def _write_pair(call: Call, read: PairReader) -> WriteResult:
    namespace = call.namespace_to_write("put")
    key = call.key()
    expires_at, ttl_s = check_expiry(call.query, call.backend.limits, call.backend.now_s())
    with ExitStack() as stack:
        room = call.backend.large_room
        value, metadata = await read(lambda: stack.enter_context(room.taken()))
        operation: PutValue | PutLargeValue
        match value:
            case bytes():
                operation = PutValue(namespace, key, value, metadata, expires_at, ttl_s)
            case LargeValue(manifest, chunks):
                packed = manifest.pack()
                operation = PutLargeValue(namespace, key, packed, metadata, expires_at, ttl_s, chunks)
        written = await call.have_written([operation], "put", call.request_id())
    call.backend.usage.of(namespace).writes += 1
    return written


async def delete_value(call: Call) -> web.Response:
    """Remove the pair; one that isn't there is removed as well."""
    namespace = call.namespace_to_write("remove key")
    response = await call.write(DeleteValue(namespace, call.key()), "remove key")
    call.backend.usage.of(namespace).deletes += 1
    return response


def find_record(call: Call) -> StoredRecord:
    """Return the record that the path names, as this replica has it at this moment.

    Raises:
        RequestError: there is none, or its time has come.
    """
    namespace = call.namespace_to_read("get")
    key = call.key()
    call.backend.usage.of(namespace).reads += 1
    record = call.backend.store.get(namespace, key)
    if record is None or 0 < record.expires_at <= call.backend.now_s():
        raise codes.KEY_NOT_FOUND.error()
    return record


async def _read_pair(
    request: web.BaseRequest, limits: Limits, take_room: TakeRoom
) -> tuple[bytes | LargeValue, bytes]:
    """Return (value, metadata) of a write: any body but a form is the value, verbatim, whatever its type says."""
    value_max = limits.value_bytes_max
    boundary = form_boundary(request.headers.get("Content-Type", ""))
    if boundary is None:
        return await read_value(request, value_max, codes.VALUE_TOO_LARGE, take_room), b""
    body = await read_large_body(request, value_max + FORM_OVERHEAD_BYTES, codes.BODY_TOO_LARGE, take_room)
    form = find_parts(body, boundary)
    if "value" not in form:
        raise codes.VALUE_MISSING.error()
    start, end = form["value"]
    if end - start > value_max:
        raise codes.VALUE_TOO_LARGE.error(length=end - start, limit=value_max)
    metadata = b""
    if "metadata" in form:
        metadata = check_metadata(bytes(body[slice(*form["metadata"])]), limits)
    return take_apart(body, start, end), metadata
