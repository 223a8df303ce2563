"""Listings: a namespace's unexpired keys in byte order, a bounded stretch of it per read transaction."""

from __future__ import annotations

from itertools import islice
from typing import Final, NamedTuple

import lmdb

from kvnet.storage.keys import walk
from kvnet.storage.records import read_listed

LISTED_AT_ONCE: Final = 1000
"""Records that a listing passes in one read transaction, expired ones included."""


class ListedKey(NamedTuple):
    key: bytes
    metadata: bytes
    """Compact JSON, or b"" for none."""
    expires_at: int
    """Unix seconds, 0 for never."""


class Stretch(NamedTuple):
    keys: list[ListedKey]
    next: bytes | None
    """Where the listing goes on; None at its end."""


def list_some(
    cursor: lmdb.Cursor[memoryview], root: bytes, prefix: bytes, start: bytes, limit: int, now_s: int
) -> Stretch:
    """Return up to `limit` keys under `root` that begin with `prefix`, from `start` (at least `prefix`) on.

    Raises:
        StorageDamaged: a record isn't what was written.
    """
    keys: list[ListedKey] = []
    passed = 0
    for key, stored in islice(walk(cursor, root, start), LISTED_AT_ONCE):
        if not key.startswith(prefix):
            return Stretch(keys, None)
        passed += 1
        start = key + b"\0"
        expires_at, metadata = read_listed(key, stored)
        if expires_at and expires_at <= now_s:
            continue
        keys.append(ListedKey(key, metadata, expires_at))
        if len(keys) == limit:
            return Stretch(keys, start)
    return Stretch(keys, start if passed == LISTED_AT_ONCE else None)
