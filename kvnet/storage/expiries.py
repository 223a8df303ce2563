"""Which records expire when: the coordinator's index for removing them through the journal.

    expires at u64 | blake2b(namespace ‖ key) 16 -> namespace 16 ‖ key

Maintained in the transaction that changes the record, at the coordinator only. Readers never look here: whether a
record has expired is decided by its own field, at every read. A row may outlive its record (a deleted namespace
leaves its rows behind), so who removes by it looks at the record first. That no row is missing is marked in
`meta`; where the mark isn't, a walk over all records makes them, in bites, and the mark is how far it has come:

    meta/expiries     0x00 ‖ the place that comes next, or 0x01 for complete
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from hashlib import blake2b
from typing import Final, NamedTuple

import lmdb

from kvnet.core.entries import NAMESPACE_ID_BYTES, SYSTEM_NAMESPACE
from kvnet.storage.keys import walk
from kvnet.storage.records import read_expiry
from kvnet.storage.state import Tally

INDEX_KEY: Final = b"expiries"
COMPLETE: Final = b"\1"

_PARTIAL: Final = b"\0"
_TIME: Final = struct.Struct(">Q")


class Expiring(NamedTuple):
    """A row of the index."""

    expires_at: int
    """Unix seconds."""
    namespace: bytes
    key: bytes


class Bite(NamedTuple):
    """What a part of the walk found."""

    rows: list[Expiring]
    mark: bytes
    """What the mark is once they are in the index."""


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


def find_missing(
    txn: lmdb.Transaction[memoryview], tallies: Mapping[bytes, Tally], mark: bytes, budget: int
) -> Bite:
    """Return the rows of the next `budget` records that the walk comes to.

    `txn` must have `records` as its default database. Records that change meanwhile, also behind the walk, are
    indexed by whoever changes them.
    """
    rows: list[Expiring] = []
    reached = mark.removeprefix(_PARTIAL)
    with txn.cursor() as cursor:
        for namespace in sorted(tallies):
            if namespace == SYSTEM_NAMESPACE or namespace < reached[:NAMESPACE_ID_BYTES]:
                continue
            start = reached[NAMESPACE_ID_BYTES:] if reached.startswith(namespace) else b""
            for key, stored in walk(cursor, tallies[namespace].prefix, start):
                if budget == 0:
                    return Bite(rows, _PARTIAL + namespace + key)
                budget -= 1
                expires_at = read_expiry(stored)
                if expires_at:
                    rows.append(Expiring(expires_at, namespace, key))
    return Bite(rows, COMPLETE)


def _row(expires_at: int, place: bytes) -> bytes:
    return _TIME.pack(expires_at) + blake2b(place, digest_size=16).digest()
