"""Large values whose chunks aren't what was written, or aren't here: what the records alone can't tell."""

from __future__ import annotations

from typing import Final

from kvnet.core.manifest import Manifest, hash_chunk
from kvnet.errors import ProtocolError, StorageDamaged
from kvnet.storage.chunks import referenced_and_lacking
from kvnet.storage.environment import Environment
from kvnet.storage.keys import walk
from kvnet.storage.records import read_record
from kvnet.storage.state import read_tallies

CHUNKS_AT_ONCE: Final = 64
"""Chunks, of 256 KiB each, that are hashed in one read transaction."""
LACKING_MAX: Final = 1000


def find_damaged_values(environment: Environment) -> list[tuple[bytes, bytes]]:
    """Return (namespace, key) of every large value that can't be read whole.

    Hashes all chunks: not for an event loop.
    """
    bad = _damaged_chunks(environment)
    with environment.view() as txn:
        bad.update(referenced_and_lacking(txn, environment.chunk_databases, LACKING_MAX))
    return _who_names(environment, bad) if bad else []


def _damaged_chunks(environment: Environment) -> set[bytes]:
    bad: set[bytes] = set()
    start = b""
    while True:
        with environment.view() as txn, txn.cursor(environment.chunk_databases.data) as cursor:
            found = cursor.set_range(start) if start else cursor.first()
            for _ in range(CHUNKS_AT_ONCE):
                if not found:
                    return bad
                name = bytes(cursor.key())
                if hash_chunk(cursor.value()) != name:
                    bad.add(name)
                start = name + b"\0"
                found = cursor.next()


def _who_names(environment: Environment, chunks: set[bytes]) -> list[tuple[bytes, bytes]]:
    values = []
    with environment.view() as txn, txn.cursor() as cursor:
        tallies = read_tallies(txn, environment.database("meta"))
        for namespace in sorted(tallies):
            for key, stored in walk(cursor, tallies[namespace].prefix):
                try:
                    record = read_record(key, bytes(stored))
                    named = Manifest.unpack(record.value).chunks if record.large else ()
                except (StorageDamaged, ProtocolError):
                    continue  # found by its own checksum
                if not chunks.isdisjoint(named):
                    values.append((namespace, key))
    return values
