"""`kvnet verify`: every hash and digest computed again from the stored bytes.

Also how two replicas at one position find the keys in which they differ: each pins what it has there, and they
compare the digests of ever smaller ranges. How they talk is not told here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

import lmdb

from kvnet.core.entries import DIGEST_MODULUS, HASH_BYTES, record_hash
from kvnet.core.manifest import Manifest
from kvnet.core.versions import Position
from kvnet.errors import ProtocolError, StorageDamaged
from kvnet.storage.environment import Environment
from kvnet.storage.keys import walk
from kvnet.storage.records import read_hash, read_record
from kvnet.storage.state import State, Tally, read_state, read_tallies

SLICE_RECORDS: Final = 1000
"""Records looked at in one read transaction: a long one would keep the pages of later commits from reuse."""
RESTARTS_MAX: Final = 3
"""After so many restarts because the replica moved on, everything is read in one transaction after all."""
SPLITS_MAX: Final = 64
"""Places at which a range is offered to be cut: three rounds lead from a million keys to the few that differ."""


class Verification(NamedTuple):
    position: Position
    digest_stored: int
    digest_recomputed: int
    namespaces_differing: list[bytes]
    """Whose tally (keys, bytes or digest) isn't what their records add up to: something is missing or too many."""
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
    with pinned(environment) as replica:
        return replica.verify()


@dataclass(frozen=True, slots=True)
class RangeDigest:
    """What a namespace has in a range of keys, to be compared with another replica's at the same position."""

    position: Position
    count: int
    digest: int
    """Sum of the hashes that the stored bytes give, mod 2**128."""
    records: list[tuple[bytes, int, bytes]] | None
    """(key, seq, hash) of each, in order, if they are few; a damaged one has a hash of no other replica."""
    splits: list[bytes]
    """If they are many: keys that cut the range into about equal parts; each is the last of its part."""


class Pinned:
    """A replica as it is at one position, however it moves on; of one thread at a time."""

    def __init__(self, environment: Environment, txn: lmdb.Transaction[memoryview]) -> None:
        """`txn` reads this environment; what was committed since it began isn't seen."""
        meta = environment.database("meta")
        self._txn = txn
        self._state = read_state(txn, meta)
        self._tallies = read_tallies(txn, meta)

    @property
    def position(self) -> Position:
        return self._state.position

    @property
    def digest(self) -> int:
        """As stored."""
        return self._state.digest

    @property
    def namespaces(self) -> list[bytes]:
        """The system namespace included, in order."""
        return sorted(self._tallies)

    def verify(self) -> Verification:
        """Recompute everything."""
        sums = _Sums()
        with self._txn.cursor() as cursor:
            for namespace, key, stored in _walk_all(cursor, self._tallies, b"", b""):
                sums.add(namespace, key, stored)
        return sums.compare(self._state, self._tallies)

    def range_digest(self, namespace: bytes, after: bytes, until: bytes, limit: int) -> RangeDigest:
        """Recompute the keys behind `after` (b"" for all) up to and with `until` (b"" for the end).

        They are named if there are no more than `limit`.
        """
        count = total = 0
        records: list[tuple[bytes, int, bytes]] = []
        splits = _Splits()
        tally = self._tallies.get(namespace)
        start = after + b"\0" if after else b""
        with self._txn.cursor() as cursor:
            for key, stored in walk(cursor, tally.prefix, start) if tally else ():
                if until and key > until:
                    break
                weighed = _weigh(namespace, key, stored)
                count += 1
                total += int.from_bytes(weighed.hash, "big")
                if count <= limit:
                    records.append((key, weighed.seq, weighed.hash))
                splits.add(key)
        few = count <= limit
        total %= DIGEST_MODULUS
        return RangeDigest(self.position, count, total, records if few else None, [] if few else splits.keys)


@contextmanager
def pinned(environment: Environment) -> Iterator[Pinned]:
    """Hold a replica at its position until the end.

    Not for long: meanwhile what later commits free isn't used again, and the file grows.
    """
    with environment.view() as txn:
        yield Pinned(environment, txn)


def range_digest(
    environment: Environment, namespace: bytes, after: bytes, until: bytes, limit: int
) -> RangeDigest:
    """As Pinned.range_digest, at whatever position the replica has now."""
    with pinned(environment) as replica:
        return replica.range_digest(namespace, after, until, limit)


def _verify(environment: Environment, slice_records: int) -> Verification | None:
    """Recompute with `slice_records` per transaction; None when the position moved."""
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


class _Weighed(NamedTuple):
    """A record, by its bytes alone."""

    hash: bytes
    """What they give; of a damaged one, something else than is stored."""
    seq: int
    size: int
    """Of key, metadata and value."""
    good: bool


def _weigh(namespace: bytes, key: bytes, stored: memoryview) -> _Weighed:
    try:
        record = read_record(key, bytes(stored))
        size = Manifest.unpack(record.value).size if record.large else len(record.value)
    except (StorageDamaged, ProtocolError):
        # Whatever it was, it isn't that any more.
        number = (read_hash(stored) + 1) % DIGEST_MODULUS
        return _Weighed(number.to_bytes(HASH_BYTES, "big"), 0, 0, good=False)
    computed = record_hash(
        namespace,
        key,
        record.value,
        record.metadata,
        record.expires_at,
        record.epoch,
        record.seq,
        large=record.large,
    )
    size += len(key) + len(record.metadata)
    return _Weighed(computed, record.seq, size, good=computed == record.hash)


class _Splits:
    """Keys at equal distances on a walk of unknown length; the distance doubles whenever they are too many."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self._every = 1
        self._passed = 0

    def add(self, key: bytes) -> None:
        self._passed += 1
        if self._passed % self._every:
            return
        self.keys.append(key)
        if len(self.keys) > SPLITS_MAX:
            self.keys = self.keys[1::2]
            self._every *= 2


class _Sums:
    """Over the records of one position, fed in any order."""

    def __init__(self) -> None:
        self._keys: defaultdict[bytes, int] = defaultdict(int)
        self._bytes: defaultdict[bytes, int] = defaultdict(int)
        self._digests: defaultdict[bytes, int] = defaultdict(int)
        self._differing: list[tuple[bytes, bytes]] = []

    def add(self, namespace: bytes, key: bytes, stored: memoryview) -> None:
        weighed = _weigh(namespace, key, stored)
        if not weighed.good:
            self._differing.append((namespace, key))
        self._keys[namespace] += 1
        self._bytes[namespace] += weighed.size
        self._digests[namespace] += int.from_bytes(weighed.hash, "big")

    def compare(self, state: State, tallies: Mapping[bytes, Tally]) -> Verification:
        differing = [namespace for namespace, tally in tallies.items() if self._of(namespace) != _told_by(tally)]
        recomputed = sum(self._digests.values()) % DIGEST_MODULUS
        return Verification(state.position, state.digest, recomputed, differing, self._differing)

    def _of(self, namespace: bytes) -> tuple[int, int, int]:
        return self._keys[namespace], self._bytes[namespace], self._digests[namespace] % DIGEST_MODULUS


def _told_by(tally: Tally) -> tuple[int, int, int]:
    return tally.keys, tally.size_bytes, tally.digest
