"""One pair: its value, raw, and its metadata."""

from __future__ import annotations

from typing import Final

import msgspec
from aiohttp import web

from kvnet.api import codes, envelope
from kvnet.api.bodies import FORM_OVERHEAD_BYTES, form_boundary, parse_form, read_body
from kvnet.api.call import Call, version_headers
from kvnet.api.validation import check_expiry, check_metadata
from kvnet.core.operations import DeleteValue, PutValue
from kvnet.limits import Limits
from kvnet.storage.store import StoredRecord

_NULL: Final = msgspec.Raw(b"null")


async def get_value(call: Call) -> web.Response:
    record = _find(call)
    headers = {"Content-Type": "application/octet-stream", **version_headers(record.version)}
    if record.expires_at:
        headers["expiration"] = str(record.expires_at)
    return web.Response(body=record.value, headers=headers)


async def get_metadata(call: Call) -> web.Response:
    record = _find(call)
    response = envelope.success(msgspec.Raw(record.metadata) if record.metadata else _NULL)
    response.headers.update(version_headers(record.version))
    return response


async def put_value(call: Call) -> web.Response:
    """Replace the pair whole: a put without metadata or expiry clears what was there."""
    namespace = call.namespace_to_write("put")
    key = call.key()
    limits = call.backend.limits
    expires_at, ttl_s = check_expiry(call.query, limits, call.backend.now_s())
    value, metadata = await _read_pair(call.request, limits)
    return await call.write(PutValue(namespace, key, value, metadata, expires_at, ttl_s), "put")


async def delete_value(call: Call) -> web.Response:
    """Remove the pair; one that isn't there is removed as well."""
    namespace = call.namespace_to_write("remove key")
    return await call.write(DeleteValue(namespace, call.key()), "remove key")


def _find(call: Call) -> StoredRecord:
    """Return the record that the path names, as this replica has it at this moment.

    Raises:
        RequestError: there is none, or its time has come.
    """
    namespace = call.namespace_to_read("get")
    record = call.backend.store.get(namespace, call.key())
    if record is None or 0 < record.expires_at <= call.backend.now_s():
        raise codes.KEY_NOT_FOUND.error()
    return record


async def _read_pair(request: web.BaseRequest, limits: Limits) -> tuple[bytes, bytes]:
    """Return (value, metadata) of a write: any body but a form is the value, verbatim, whatever its type says."""
    value_max = limits.value_bytes_max
    boundary = form_boundary(request.headers.get("Content-Type", ""))
    if boundary is None:
        return await read_body(request, value_max, codes.VALUE_TOO_LARGE), b""
    form = parse_form(await read_body(request, value_max + FORM_OVERHEAD_BYTES, codes.BODY_TOO_LARGE), boundary)
    if "value" not in form:
        raise codes.VALUE_MISSING.error()
    value = form["value"]
    if len(value) > value_max:
        raise codes.VALUE_TOO_LARGE.error(length=len(value), limit=value_max)
    return value, check_metadata(form["metadata"], limits) if "metadata" in form else b""
