"""A node's disk in a simulated world: its journal and its records, what of them is synced, and what may break.

It takes frames as the real store does (kvnet/storage): whole batches, the digest compared after every frame. What
was written since the last fsync that the medium really did is lost with the power, or not, as it happens; a torn
transaction is one that was lost, since LMDB's meta page names the one before it. The journal survives a process
that is killed.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from copy import copy
from typing import Final, NamedTuple, assert_never

from kvnet.core.catalog import NAMESPACE_PREFIX, Namespace, read_item
from kvnet.core.entries import DIGEST_MODULUS, SYSTEM_NAMESPACE, Delete, Entry, Epoch, Put
from kvnet.core.frames import Frame
from kvnet.core.versions import GENESIS, Position, Version
from kvnet.errors import BeyondHorizon, Divergence, StorageFull

KEPT_UNSYNCED: Final = 0.5
"""How often the kernel had written out what nobody synced when the power went."""


class SimulatedJournal:
    """The journal port over a list of frames; checks that they are one chain."""

    __slots__ = ("_base", "_bytes", "_bytes_max", "_firsts", "frames")

    def __init__(self, bytes_max: int | None = None) -> None:
        self.frames: list[Frame] = []
        self._firsts: list[int] = []
        self._bytes = 0
        self._bytes_max = bytes_max
        self._base = GENESIS

    @property
    def position(self) -> Position:
        return self.frames[-1].position if self.frames else self._base

    @property
    def horizon_seq(self) -> int:
        return self._base.seq

    def append(self, frame: Frame) -> None:
        last = self.frames[-1] if self.frames else None
        if last is None:
            seq, chain, epoch = self._base.seq, self._base.chain, self._base.epoch
        else:
            seq, chain, epoch = last.last_seq, last.chain_after, last.epoch
        assert frame.first_seq == seq + 1, f"a gap: {frame.first_seq} after {seq}"
        assert frame.chain_before == chain, f"another history: {frame.position} after seq {seq}"
        assert frame.epoch >= epoch, "an epoch that goes back"
        self.frames.append(frame)
        self._firsts.append(frame.first_seq)
        self._bytes += len(frame.data)
        if self._bytes_max is not None and self._bytes > self._bytes_max:
            self._drop_oldest(self._bytes_max)

    def _drop_oldest(self, bytes_max: int) -> None:
        while self._bytes > bytes_max and len(self.frames) > 1:
            dropped = self.frames.pop(0)
            self._firsts.pop(0)
            self._bytes -= len(dropped.data)
            self._base = dropped.position

    def truncate(self, count: int) -> None:
        """Forget all but the oldest `count` frames."""
        self._bytes -= sum(len(frame.data) for frame in self.frames[count:])
        del self.frames[count:], self._firsts[count:]

    def clear(self) -> None:
        self.frames.clear()
        self._firsts.clear()
        self._bytes = 0
        self._base = GENESIS

    def copied(self) -> SimulatedJournal:
        """Return one of the same frames that goes its own way from here."""
        other = copy(self)
        other.frames = self.frames.copy()
        other._firsts = self._firsts.copy()  # noqa: SLF001  (one of its own kind)
        return other

    def frames_after(self, seq: int, bytes_max: int) -> list[Frame]:
        if seq < self._base.seq:
            raise BeyondHorizon(f"the journal begins after {self._base}")
        taken: list[Frame] = []
        size = 0
        for index in range(bisect_left(self._firsts, seq + 1), len(self.frames)):
            frame = self.frames[index]
            size += len(frame.data)
            if taken and size > bytes_max:
                break
            taken.append(frame)
        return taken

    def holds(self, position: Position) -> bool:
        return self.end_before(position.seq) == position

    def end_before(self, seq: int) -> Position | None:
        if seq < self._base.seq:
            return None
        index = bisect_right(self._firsts, seq)
        if index and self.frames[index - 1].last_seq > seq:
            index -= 1
        return self.frames[index - 1].position if index else self._base


class Record(NamedTuple):
    """A stored record, as the writer and the checkers read it."""

    value: bytes
    metadata: bytes
    expires_at: int
    version: Version
    hash: bytes


class SimulatedDisk:
    """What a node keeps while it is down: journal, records, digest, remembered request ids."""

    def __init__(self, *, journal_bytes_max: int | None = None, folds: bool = True) -> None:
        """`folds` is False for a world that only measures: it then keeps no records and checks no digest."""
        self.journal = SimulatedJournal(journal_bytes_max)
        self.folds = folds
        self.is_full = False
        """Nothing can be written."""
        self.is_lying = False
        """fsync returns and has done nothing."""
        self._clear()

    def _clear(self) -> None:
        self.journal.clear()
        self.records: dict[bytes, dict[bytes, Record]] = {SYSTEM_NAMESPACE: {}}
        self.namespaces: dict[bytes, Namespace] = {}
        self.digest = 0
        self.stamp = 0
        self._digests: dict[bytes, int] = {SYSTEM_NAMESPACE: 0}
        self._requests: dict[bytes, tuple[Version, int]] = {}
        """By request id: the answer, and the position of the transaction that remembers it."""
        self._durable = GENESIS

    # -- what the core and the writer read -------------------------------------------------------------------

    @property
    def position(self) -> Position:
        return self.journal.position

    @property
    def horizon_seq(self) -> int:
        return self.journal.horizon_seq

    def frames_after(self, seq: int, bytes_max: int) -> list[Frame]:
        return self.journal.frames_after(seq, bytes_max)

    def holds(self, position: Position) -> bool:
        return self.journal.holds(position)

    def end_before(self, seq: int) -> Position | None:
        return self.journal.end_before(seq)

    def namespace_digest(self, namespace: bytes) -> int:
        return self._digests[namespace]

    def get(self, namespace: bytes, key: bytes) -> Record | None:
        return self.records.get(namespace, {}).get(key)

    def request_outcome(self, request_id: bytes) -> Version | None:
        known = self._requests.get(request_id)
        return known[0] if known else None

    # -- writing ---------------------------------------------------------------------------------------------

    def apply(self, frames: Sequence[Frame], requests: Sequence[tuple[bytes, Version, int]] = ()) -> None:
        """Take these frames in one transaction, not yet synced.

        Raises:
            StorageFull: nothing was written.
            Divergence: the digest after one of them isn't the coordinator's; the journal is as it was, the
                records are not, so that only `wipe` helps.
        """
        if self.is_full:
            raise StorageFull("the simulated disk is full")
        if self.folds:
            self._fold(frames)
        for frame in frames:
            self.journal.append(frame)
        if frames:
            self.stamp = frames[-1].stamp
        for request_id, version, _ in requests:
            self._requests[request_id] = version, self.position.seq

    def sync(self) -> None:
        """Make durable all that was written, unless the medium lies."""
        if not self.is_lying:
            self._durable = self.position

    def _fold(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            for seq, entry in enumerate(frame.entries(), frame.first_seq):
                self._take(entry, Version(frame.epoch, seq))
            if self.digest != _number(frame.digest_after):
                raise Divergence(f"the digest at {frame.position} is not the coordinator's")

    def _take(self, entry: Entry, version: Version) -> None:
        match entry:
            case Put(namespace, key, value, metadata, expires_at, digest):
                held = self.records.get(namespace)
                if held is None:
                    raise Divergence(f"namespace {namespace.hex()} doesn't exist here")
                replaced = held.get(key)
                assert replaced is None or replaced.version.seq < version.seq, "an entry replaces a newer one"
                held[key] = Record(value, metadata, expires_at, version, digest)
                self._add(namespace, _number(digest) - (_number(replaced.hash) if replaced else 0))
                if namespace == SYSTEM_NAMESPACE:
                    self._put_item(key, value)
            case Delete(namespace, key):
                removed = self.records.get(namespace, {}).pop(key, None)
                if removed is None:
                    return
                assert removed.version.seq < version.seq, "an entry removes a newer one"
                self._add(namespace, -_number(removed.hash))
                if namespace == SYSTEM_NAMESPACE and key.startswith(NAMESPACE_PREFIX):
                    gone = bytes.fromhex(key.removeprefix(NAMESPACE_PREFIX).decode())
                    del self.records[gone], self.namespaces[gone]
                    self.digest = (self.digest - self._digests.pop(gone)) % DIGEST_MODULUS
            case Epoch():
                pass
            case _:
                assert_never(entry)

    def _put_item(self, key: bytes, value: bytes) -> None:
        item = read_item(key, value)
        if isinstance(item, Namespace):
            self.namespaces[item.id] = item
            self.records.setdefault(item.id, {})
            self._digests.setdefault(item.id, 0)

    def _add(self, namespace: bytes, change: int) -> None:
        self._digests[namespace] = (self._digests[namespace] + change) % DIGEST_MODULUS
        self.digest = (self.digest + change) % DIGEST_MODULUS

    # -- what becomes of it ----------------------------------------------------------------------------------

    def wipe(self) -> None:
        """Be empty."""
        self._clear()

    def lose_power(self, rng: random.Random) -> int:
        """Lose what was not synced, or not; return how many frames are gone."""
        frames = self.journal.frames
        kept = len(frames)
        while kept and frames[kept - 1].last_seq > self._durable.seq:
            kept -= 1
        lost = len(frames) - kept
        if not lost or (not self.is_lying and rng.random() < KEPT_UNSYNCED):
            self._durable = self.position
            return 0
        if self.journal.horizon_seq:
            self._clear()  # what came before the horizon can't be derived again
        else:
            self.journal.truncate(kept)
            self._build_again()
        return lost

    def _build_again(self) -> None:
        """Derive everything from the journal, which is whole."""
        journal, requests, position = self.journal.copied(), self._requests, self.position
        self._clear()
        was_full, self.is_full = self.is_full, False  # what is there needs no room
        self.apply(journal.frames)
        self.is_full = was_full
        self._requests = {id_: known for id_, known in requests.items() if known[1] <= position.seq}
        self._durable = position

    def copied(self) -> SimulatedDisk:
        """Return a copy as it is now."""
        other = copy(self)
        other.journal = self.journal.copied()
        other.records = {namespace: held.copy() for namespace, held in self.records.items()}
        other.namespaces = self.namespaces.copy()
        other._digests = self._digests.copy()  # noqa: SLF001  (one of its own kind)
        other._requests = self._requests.copy()  # noqa: SLF001
        other.is_full = other.is_lying = False
        return other


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "big")
