"""Listing cursors: the last key of a page, bound to the listing it belongs to. Opaque to clients, URL-safe."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from typing import Final

from kvnet.api import codes
from kvnet.limits import KEY_BYTES_CEILING

CHECK_BYTES: Final = 6


def _check(namespace: bytes, prefix: bytes, key: bytes) -> bytes:
    return blake2b(b"%b%d:%b%b" % (namespace, len(prefix), prefix, key), digest_size=CHECK_BYTES).digest()


def encode_cursor(namespace: bytes, prefix: bytes, key: bytes) -> str:
    return urlsafe_b64encode(_check(namespace, prefix, key) + key).rstrip(b"=").decode("ascii")


def decode_cursor(cursor: str, namespace: bytes, prefix: bytes) -> bytes:
    """Return the key after which the listing goes on.

    Raises:
        RequestError: not a cursor, or another listing's.
    """
    try:
        packed = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except (binascii.Error, ValueError):
        raise codes.CURSOR_INVALID.error() from None
    check, key = packed[:CHECK_BYTES], packed[CHECK_BYTES:]
    if check != _check(namespace, prefix, key) or len(key) > KEY_BYTES_CEILING:
        raise codes.CURSOR_INVALID.error()
    return key
