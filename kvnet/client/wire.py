"""How keys, queries and bodies are written for the REST API."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import msgspec


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


def form(value: bytes | BytesIO, metadata: Any) -> aiohttp.FormData:
    """Return the multipart body that stores a value with metadata; it can be sent once."""
    body = aiohttp.FormData(default_to_multipart=True)
    body.add_field("value", value, filename="value", content_type="application/octet-stream")
    spelled = bytes(metadata).decode() if isinstance(metadata, msgspec.Raw) else compact_json(metadata)
    body.add_field("metadata", spelled, content_type="application/json")
    return body


def compact_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
