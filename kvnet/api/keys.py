"""Listing a namespace's keys, in byte order, page by page."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from aiohttp import web

from kvnet.api import codes, envelope
from kvnet.api.call import Call
from kvnet.api.cursors import decode_cursor, encode_cursor
from kvnet.api.query import read_integer
from kvnet.limits import KEY_BYTES_CEILING
from kvnet.storage.store import ListedKey

PAGE_KEYS_MIN: Final = 10
PAGE_KEYS_MAX: Final = 1000


async def list_keys(call: Call) -> web.Response:
    """Answer one page. A page that isn't the last is never empty: official clients would stop there.

    `cursors.after` repeats the cursor for one generation of a client that looks for it only there.
    """
    listed, cursor = read_page(call, _page_keys(call.query.text("limit")))
    return envelope.success(
        [_describe(key) for key in listed],
        result_info={"count": len(listed), "cursor": cursor, "cursors": {"after": cursor}},
    )


def read_page(call: Call, limit: int) -> tuple[list[ListedKey], str]:
    """Return at most `limit` keys, and the cursor of those behind them: "" if there are none."""
    namespace = call.namespace_to_read("list keys")
    prefix = (call.query.text("prefix") or "").encode("utf-8")
    given = call.query.text("cursor")
    after = decode_cursor(given, namespace, prefix) if given else None
    call.backend.usage.of(namespace).lists += 1
    listed: list[ListedKey] = []
    more = False
    if len(prefix) <= KEY_BYTES_CEILING:  # no key starts with a longer one
        now_s = int(call.backend.now_s())
        listed, more = call.backend.store.list_keys(namespace, prefix, after, limit, now_s)
    return listed, encode_cursor(namespace, prefix, listed[-1].key) if more else ""


def _page_keys(text: str | None) -> int:
    if text is None:
        return PAGE_KEYS_MAX
    limit = read_integer(text)
    if limit is None or limit < PAGE_KEYS_MIN:
        raise codes.LIMIT_TOO_LOW.error(given=text, least=PAGE_KEYS_MIN)
    if limit > PAGE_KEYS_MAX:
        raise codes.LIMIT_TOO_HIGH.error(given=text, most=PAGE_KEYS_MAX)
    return limit


def _describe(key: ListedKey) -> dict[str, Any]:
    described: dict[str, Any] = {"name": key.key.decode("utf-8")}
    if key.expires_at:
        described["expiration"] = key.expires_at
    if key.metadata:
        described["metadata"] = msgspec.Raw(key.metadata)
    return described
