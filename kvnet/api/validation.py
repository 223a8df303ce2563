"""What a client sent, checked against the limits and turned into what the store takes."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from kvnet.api import codes
from kvnet.api.query import Query, read_integer
from kvnet.core.entries import NAMESPACE_ID_BYTES
from kvnet.limits import Limits

TITLE_CHARACTERS_MAX: Final = 512
TIME_S_MAX: Final = 99_999_999_999
"""The year 5138 in seconds: below every present time in milliseconds, so a mix-up of units is seen."""

_HEX = re.compile(r"[0-9a-fA-F]+")


def check_namespace_id(text: str) -> bytes:
    """Return the 16 bytes of a namespace id."""
    if len(text) != 2 * NAMESPACE_ID_BYTES:
        raise codes.NAMESPACE_ID_LENGTH.error(id=text)
    if not _HEX.fullmatch(text):
        raise codes.NAMESPACE_ID_FORMAT.error(id=text)
    return bytes.fromhex(text)


def check_key(key: bytes, limits: Limits) -> bytes:
    if len(key) > limits.key_bytes_max:
        raise codes.KEY_TOO_LONG.error(length=len(key), limit=limits.key_bytes_max)
    if key in {b".", b".."}:
        raise codes.KEY_NOT_ALLOWED.error()
    return key


def check_metadata(text: bytes, limits: Limits) -> bytes:
    """Return the metadata as compact JSON, numbers spelled as they were; b"" for `null`, which says nothing."""
    try:
        compact = msgspec.json.format(text, indent=-1)
        if len(compact) > limits.metadata_bytes_max:
            raise codes.METADATA_TOO_LARGE.error(length=len(compact), limit=limits.metadata_bytes_max)
        # Formatting looks at the punctuation only; decoding finds bad UTF-8 and lone surrogates too.
        msgspec.json.decode(compact)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise codes.METADATA_INVALID.error() from None
    return b"" if compact == b"null" else compact


def check_expiry(query: Query, limits: Limits, now_s: float) -> tuple[int, int]:
    """Return (expires_at, ttl_s) of a write, 0 for what isn't set; never both: `expiration_ttl` wins."""
    return check_times(query.text("expiration_ttl"), query.text("expiration"), limits, now_s)


def check_times(ttl: str | None, expiration: str | None, limits: Limits, now_s: float) -> tuple[int, int]:
    """As `check_expiry`, of fields as they were spelled; None for one that isn't there."""
    text = ttl
    if text is not None:
        ttl_s = read_integer(text)
        if ttl_s is None or ttl_s <= 0:
            raise codes.TTL_NOT_POSITIVE.error(given=text)
        if ttl_s < limits.ttl_seconds_min:
            raise codes.TTL_TOO_SHORT.error(given=text, least=limits.ttl_seconds_min)
        if now_s + ttl_s > TIME_S_MAX:
            raise codes.TTL_TOO_LONG.error(given=text)
        return 0, ttl_s
    text = expiration
    if text is not None:
        expires_at = read_integer(text)
        if expires_at is None or expires_at <= now_s:
            raise codes.EXPIRATION_PAST.error(given=text)
        if expires_at < int(now_s) + limits.ttl_seconds_min:
            raise codes.EXPIRATION_TOO_SOON.error(given=text, least=limits.ttl_seconds_min)
        if expires_at > TIME_S_MAX:
            raise codes.EXPIRATION_TOO_LATE.error(given=text)
        return expires_at, 0
    return 0, 0


def check_chosen_id(document: Any) -> bytes | None:
    """Return the id that the body of a namespace's creation asks for, None if it leaves the choice to us."""
    text = document.get("id")
    if text is None:
        return None
    if not isinstance(text, str) or len(text) != 2 * NAMESPACE_ID_BYTES or not _HEX.fullmatch(text):
        raise codes.NAMESPACE_ID_CHOSEN.error()
    return bytes.fromhex(text)


def check_title(document: Any, op: str) -> str:
    """Return the title in the body of a namespace's creation or renaming."""
    if not isinstance(document, dict):
        raise codes.BODY_INVALID.error()
    title = document.get("title", "")
    if not isinstance(title, str):
        raise codes.BODY_INVALID.error()
    if not title:
        raise codes.TITLE_MISSING.error(op=op)
    if len(title) > TITLE_CHARACTERS_MAX:
        raise codes.TITLE_TOO_LONG.error(length=len(title), limit=TITLE_CHARACTERS_MAX)
    if document.get("jurisdiction") is not None:
        raise codes.JURISDICTION.error()
    return title
