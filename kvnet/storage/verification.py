"""`kvnet verify`: every hash and digest computed again from the stored bytes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final, NamedTuple

import lmdb

from kvnet.core.entries import DIGEST_MODULUS, record_hash
from kvnet.core.versions import Position
from kvnet.errors import StorageDamaged
from kvnet.storage.environment import Environment
from kvnet.storage.keys import walk
from kvnet.storage.records import read_hash, read_record
from kvnet.storage.state import State, Tally, read_state, read_tallies

SLICE_RECORDS: Final = 1000
"""Records looked at in one read transaction: a long one would keep the pages of later commits from reuse."""
RESTARTS_MAX: Final = 3
"""After so many restarts because the replica moved on, everything is read in one transaction after all."""


class Verification(NamedTuple):
    position: Position
    digest_stored: int
    digest_recomputed: int
    namespaces_differing: list[bytes]
    """Whose tally (keys or digest) isn't what their records add up to: something is missing or too many."""
    differing: list[tuple[bytes, bytes]]
    """(namespace, key) of records whose bytes don't give their hash: flipped bits."""

    @property
    def good(self) -> bool:
        in_order = not self.differing and not self.namespaces_differing
        return in_order and self.digest_stored == self.digest_recomputed


def verify(environment: Environment) -> Verification:
    """Recompute everything at one position.

    Reads in short transactions, from the beginning again when the replica has moved on meanwhile, and in a
    single one when that keeps happening.
    """
    for _ in range(RESTARTS_MAX):
        verification = _verify(environment, SLICE_RECORDS)
        if verification is not None:
            return verification
    verification = _verify(environment, None)
    assert verification is not None, "one transaction sees one position"
    return verification


def _verify(environment: Environment, slice_records: int | None) -> Verification | None:
    """Recompute with `slice_records` per transaction, None for all in one; None when the position moved."""
    meta = environment.database("meta")
    sums = _Sums()
    begun: Position | None = None
    namespace, start = b"", b""
    while True:
        with environment.view() as txn, txn.cursor() as cursor:
            state = read_state(txn, meta)
            if begun not in (None, state.position):
                return None
            begun = state.position
            tallies = read_tallies(txn, meta)
            count = 0
            for namespace, key, stored in islice(_walk_all(cursor, tallies, namespace, start), slice_records):  # noqa: B020  (goes on where it was)
                sums.add(namespace, key, stored)
                start = key + b"\0"
                count += 1
            if count != slice_records:
                return sums.compare(state, tallies)


def _walk_all(
    cursor: lmdb.Cursor[memoryview], tallies: Mapping[bytes, Tally], namespace: bytes, start: bytes
) -> Iterator[tuple[bytes, bytes, memoryview]]:
    """Yield (namespace, key, stored bytes) of every record from (`namespace`, `start`) on."""
    for each in sorted(tallies):
        if each >= namespace:
            for key, stored in walk(cursor, tallies[each].prefix, start if each == namespace else b""):
                yield each, key, stored


class _Sums:
    """Over the records of one position, fed in any order."""

    def __init__(self) -> None:
        self._keys: defaultdict[bytes, int] = defaultdict(int)
        self._digests: defaultdict[bytes, int] = defaultdict(int)
        self._differing: list[tuple[bytes, bytes]] = []

    def add(self, namespace: bytes, key: bytes, stored: memoryview) -> None:
        try:
            record = read_record(key, bytes(stored))
            computed = record_hash(
                namespace, key, record.value, record.metadata, record.expires_at, record.epoch, record.seq,
                large=record.large,
            )  # fmt: skip
            if computed != record.hash:
                self._differing.append((namespace, key))
            number = int.from_bytes(computed, "big")
        except StorageDamaged:
            self._differing.append((namespace, key))
            number = read_hash(stored) + 1  # whatever it was, it isn't that any more
        self._keys[namespace] += 1
        self._digests[namespace] += number

    def compare(self, state: State, tallies: Mapping[bytes, Tally]) -> Verification:
        differing = [
            namespace
            for namespace, tally in tallies.items()
            if (tally.keys, tally.digest) != (self._keys[namespace], self._digests[namespace] % DIGEST_MODULUS)
        ]
        recomputed = sum(self._digests.values()) % DIGEST_MODULUS
        return Verification(state.position, state.digest, recomputed, differing, self._differing)
