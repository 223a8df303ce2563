"""How keys, queries and bodies are written for the REST API."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from io import BytesIO
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp
import msgspec

from kvnet.client.answers import NewPair

MARK_BYTES: Final = 32
"""What it costs to say that a value is base64, with room: text is easier to read."""


def segment(key: str) -> str:
    """Return `key` as one path segment: everything but unreserved characters is escaped."""
    return quote(key, safe="")


def query(**fields: str | int | None) -> str:
    """Return `?name=value&…` of the fields that are not None, the empty string when none is."""
    given = {name: value for name, value in fields.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""


def document(value: Any) -> aiohttp.BytesPayload:
    """Return a JSON body."""
    return aiohttp.BytesPayload(compact_json(value).encode(), content_type="application/json")


def spelled(value: bytes) -> dict[str, Any]:
    """Return the fields of a value in JSON: text, or base64 where it isn't, or where that is shorter."""
    try:
        text = msgspec.json.encode(value.decode())
    except UnicodeDecodeError:
        text = b""
    encoded_bytes = -(-len(value) // 3) * 4
    if text and len(text) <= encoded_bytes + MARK_BYTES:
        return {"value": msgspec.Raw(text)}
    return {"value": base64.b64encode(value).decode(), "base64": True}


def pairs(new: Iterable[NewPair]) -> aiohttp.BytesPayload:
    """Return the body of a bulk put: text where a value is text, base64 of any other."""
    elements: list[dict[str, Any]] = []
    for pair in new:
        element: dict[str, Any] = {"key": pair.key, **spelled(pair.value)}
        if pair.expiration_ttl is not None:
            element["expiration_ttl"] = pair.expiration_ttl
        if pair.expiration is not None:
            element["expiration"] = pair.expiration
        if pair.metadata is not None:
            raw = isinstance(pair.metadata, msgspec.Raw)
            element["metadata"] = pair.metadata if raw else msgspec.Raw(compact_json(pair.metadata).encode())
        elements.append(element)
    return aiohttp.BytesPayload(msgspec.json.encode(elements), content_type="application/json")


def form(value: bytes | BytesIO, metadata: Any) -> aiohttp.FormData:
    """Return the multipart body that stores a value with metadata; it can be sent once."""
    body = aiohttp.FormData(default_to_multipart=True)
    body.add_field("value", value, filename="value", content_type="application/octet-stream")
    spelled = bytes(metadata).decode() if isinstance(metadata, msgspec.Raw) else compact_json(metadata)
    body.add_field("metadata", spelled, content_type="application/json")
    return body


def compact_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
