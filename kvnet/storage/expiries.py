"""Which records expire when: the coordinator's index for removing them through the journal.

    expires at u64 | blake2b(namespace ‖ key) 16 -> namespace 16 ‖ key

Maintained in the transaction that changes the record, at the coordinator only. Readers never look here: whether a
record has expired is decided by its own field, at every read.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import Final, NamedTuple

import lmdb

from kvnet.core.entries import NAMESPACE_ID_BYTES

_TIME: Final = struct.Struct(">Q")


class Expiring(NamedTuple):
    """A row of the index."""

    expires_at: int
    """Unix seconds."""
    namespace: bytes
    key: bytes


def add(txn: lmdb.Transaction[bytes], db: lmdb._Database, expires_at: int, namespace: bytes, key: bytes) -> None:
    place = namespace + key
    txn.put(_row(expires_at, place), place, db=db)


def remove(
    txn: lmdb.Transaction[bytes], db: lmdb._Database, expires_at: int, namespace: bytes, key: bytes
) -> None:
    txn.delete(_row(expires_at, namespace + key), db=db)


def due(txn: lmdb.Transaction[memoryview], db: lmdb._Database, now_s: int, limit: int) -> list[Expiring]:
    """Return up to `limit` rows whose time has come at `now_s`, the oldest first."""
    found: list[Expiring] = []
    with txn.cursor(db) as cursor:
        for row, place in cursor:
            (expires_at,) = _TIME.unpack_from(row)
            if expires_at > now_s or len(found) == limit:
                break
            found.append(
                Expiring(expires_at, bytes(place[:NAMESPACE_ID_BYTES]), bytes(place[NAMESPACE_ID_BYTES:]))
            )
    return found


def _row(expires_at: int, place: bytes) -> bytes:
    return _TIME.pack(expires_at) + blake2b(place, digest_size=16).digest()
