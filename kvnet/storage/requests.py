"""What became of forwarded writes: request ids remembered for ten minutes, so that a retry isn't a second write.

requests        blake2b(id) 16 -> epoch u32 | seq u64 | wall ms u64
request_times   wall ms u64 | blake2b(id) 16 -> nothing; the order in which they are forgotten
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import lmdb

from kvnet.core.versions import Version

REMEMBERED_MS: Final = 600_000
FORGOTTEN_AT_ONCE_MIN: Final = 16
"""Of the ids that are too old, one transaction forgets twice as many as it adds, and at least this many."""

_OUTCOME = struct.Struct(">IQQ")
_TIME = struct.Struct(">Q")

Remembered = tuple[bytes, Version, int]
"""Request id (any bytes), the version its write got, wall time in ms."""


def remember(
    txn: lmdb.Transaction[bytes], requests: lmdb._Database, times: lmdb._Database, new: Sequence[Remembered]
) -> None:
    """Store what became of these requests, and forget some of those that are too old beside the newest."""
    newest_ms = 0
    for request_id, version, wall_ms in new:
        name = _name(request_id)
        before = txn.replace(name, _OUTCOME.pack(*version, wall_ms), db=requests)
        if before is not None:
            txn.delete(_TIME.pack(_OUTCOME.unpack(before)[2]) + name, db=times)
        txn.put(_TIME.pack(wall_ms) + name, b"", db=times)
        newest_ms = max(newest_ms, wall_ms)
    oldest = _TIME.pack(max(0, newest_ms - REMEMBERED_MS))
    with txn.cursor(times) as cursor:
        for _ in range(max(FORGOTTEN_AT_ONCE_MIN, 2 * len(new))):
            if not cursor.first() or cursor.key() >= oldest:
                break
            txn.delete(cursor.key()[_TIME.size :], db=requests)
            cursor.delete()


def outcome(txn: lmdb.Transaction[memoryview], requests: lmdb._Database, request_id: bytes) -> Version | None:
    stored = txn.get(_name(request_id), db=requests)
    if stored is None:
        return None
    epoch, seq, _ = _OUTCOME.unpack(stored)
    return Version(epoch, seq)


def _name(request_id: bytes) -> bytes:
    return blake2b(request_id, digest_size=16).digest()
