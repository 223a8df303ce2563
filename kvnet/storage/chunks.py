"""Chunks of large values, by what they hold: each is stored once, and counted by the entries that name it.

    chunks        hash 32 -> data
    chunk_refs    hash 32 -> how many records name it u32 | unreferenced since u64 (Unix seconds, 0 while any does)
    chunk_times   unreferenced since u64 | hash 32 -> nothing; the order in which chunks are collected

References change in the transaction of the record that has them, whether the chunk is here already or not. A chunk
that no record names, since its entry hasn't come yet or its record is gone, lives an hour by this host's clock: as
long as anybody may still be reading it. (Not by the frames' stamps: those of a replica that catches up are old.)
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from time import time
from typing import Final, NamedTuple

import lmdb

from kvnet.core.manifest import Manifest, hash_chunk
from kvnet.errors import ProtocolError, StorageDamaged

UNREFERENCED_S: Final = 3600
COLLECTED_AT_ONCE: Final = 64

_REFERENCES: Final = struct.Struct(">IQ")
_TIME: Final = struct.Struct(">Q")


class ChunkDatabases(NamedTuple):
    """Where chunks lie in an environment."""

    data: lmdb._Database
    references: lmdb._Database
    times: lmdb._Database


def put(
    txn: lmdb.Transaction[bytes],
    dbs: ChunkDatabases,
    chunks: Iterable[tuple[bytes, bytes]],
    *,
    now_s: Callable[[], float] = time,
) -> None:
    """Store (hash, data) of each chunk that isn't here; unreferenced until a record names it.

    Raises:
        ProtocolError: one isn't what its hash says.
    """
    for name, data in chunks:
        if hash_chunk(data) != name:
            raise ProtocolError(f"a chunk that isn't {name[:8].hex()}, as which it came")
        txn.put(name, data, db=dbs.data, overwrite=False)
        stored = txn.get(name, db=dbs.references)
        count, since = _REFERENCES.unpack(stored) if stored else (0, 0)
        if count == 0:  # its hour begins anew
            if since:
                txn.delete(_TIME.pack(since) + name, db=dbs.times)
            _write(txn, dbs, name, 0, now_s)


def refer(
    txn: lmdb.Transaction[bytes],
    dbs: ChunkDatabases,
    manifest: bytes,
    change: int,
    *,
    now_s: Callable[[], float] = time,
) -> int:
    """A record that names these chunks is there (`change` 1) or gone (-1); return how many it names."""
    names = Manifest.unpack(manifest).chunks
    for name in names:
        stored = txn.get(name, db=dbs.references)
        count, since = _REFERENCES.unpack(stored) if stored else (0, 0)
        if since:
            txn.delete(_TIME.pack(since) + name, db=dbs.times)
        assert count + change >= 0, "a chunk that fewer records name than none"
        _write(txn, dbs, name, count + change, now_s)
    return len(names)


def _write(
    txn: lmdb.Transaction[bytes], dbs: ChunkDatabases, name: bytes, count: int, now_s: Callable[[], float]
) -> None:
    since = 0 if count else max(1, int(now_s()))
    txn.put(name, _REFERENCES.pack(count, since), db=dbs.references)
    if since:
        txn.put(_TIME.pack(since) + name, b"", db=dbs.times)


def get(
    txn: lmdb.Transaction[bytes] | lmdb.Transaction[memoryview],
    dbs: ChunkDatabases,
    name: bytes,
    *,
    checked: bool = True,
) -> bytes | None:
    """Return a chunk's data; None when it isn't here.

    Raises:
        StorageDamaged: it isn't what was written.
    """
    stored = txn.get(name, db=dbs.data)
    if stored is None:
        return None
    data = bytes(stored)
    if checked and hash_chunk(data) != name:
        text = f"the chunk {name[:8].hex()} of a large value isn't what was written"
        raise StorageDamaged(f"{text}: this replica must be made anew")
    return data


def lacking(
    txn: lmdb.Transaction[bytes] | lmdb.Transaction[memoryview], dbs: ChunkDatabases, names: Sequence[bytes]
) -> list[bytes]:
    """Return those of these chunks that aren't here, each once, in their order."""
    with txn.cursor(dbs.data) as cursor:
        return [name for name in dict.fromkeys(names) if not cursor.set_key(name)]


def referenced_and_lacking(
    txn: lmdb.Transaction[memoryview], dbs: ChunkDatabases, limit: int, start: bytes = b""
) -> list[bytes]:
    """Return up to `limit` chunks, from `start` on, that records name and that aren't here.

    A replica made of pages has some. They come in order, so the first is where the next look may begin.
    """
    missing: list[bytes] = []
    with txn.cursor(dbs.references) as cursor, txn.cursor(dbs.data) as data:
        found = cursor.set_range(start) if start else cursor.first()
        for name, stored in cursor if found else ():
            if len(missing) == limit:
                break
            if _REFERENCES.unpack(stored)[0] and not data.set_key(name):
                missing.append(bytes(name))
    return missing


def collect(
    txn: lmdb.Transaction[bytes],
    dbs: ChunkDatabases,
    budget: int = COLLECTED_AT_ONCE,
    *,
    now_s: Callable[[], float] = time,
) -> bool:
    """Forget up to `budget` chunks whose hour is over; return whether more of them are left."""
    with txn.cursor(dbs.times) as cursor:
        while cursor.first():
            row = cursor.key()
            if _TIME.unpack_from(row)[0] + UNREFERENCED_S > now_s():
                return False
            if not budget:
                return True
            name = row[_TIME.size :]
            txn.delete(name, db=dbs.data)
            txn.delete(name, db=dbs.references)
            cursor.delete()
            budget -= 1
    return False
