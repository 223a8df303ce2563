"""A node's disk in a simulated world: its journal and its records, what of them is synced, and what may break.

It takes frames as the real store does (kvnet/storage): whole batches, the digest compared after every frame. What
was written since the last fsync that the medium really did is lost with the power, or not, as it happens; a torn
transaction is one that was lost, since LMDB's meta page names the one before it. The journal survives a process
that is killed.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from copy import copy
from typing import Final, NamedTuple, assert_never
from zlib import crc32

import msgpack

from kvnet.core.catalog import NAMESPACE_PREFIX, Namespace, Token, read_item
from kvnet.core.entries import (
    DIGEST_MODULUS,
    HASH_BYTES,
    NAMESPACE_ID_BYTES,
    SYSTEM_NAMESPACE,
    Delete,
    Entry,
    Epoch,
    Put,
    PutLarge,
)
from kvnet.core.events import BootstrapProgress
from kvnet.core.frames import Frame
from kvnet.core.manifest import Manifest, hash_chunk
from kvnet.core.messages import Page
from kvnet.core.versions import GENESIS, Position, Version
from kvnet.errors import BeyondHorizon, ChunksMissing, Divergence, PageDamaged, StorageDamaged, StorageFull

KEPT_UNSYNCED: Final = 0.5
"""How often the kernel had written out what nobody synced when the power went."""
PAGE_RECORDS: Final = 8
"""Records of a page: few, so that a small replica has several."""


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

    def clear(self, base: Position = GENESIS) -> None:
        """Hold no frame, and begin after this position."""
        self.frames.clear()
        self._firsts.clear()
        self._bytes = 0
        self._base = base

    def limit(self, bytes_max: int | None) -> None:
        """Keep no more than so many bytes from now on."""
        self._bytes_max = bytes_max

    # -- as a port of its own: a replica that is nothing but a journal

    verified = True
    bootstrap = None

    @property
    def served(self) -> Position:
        return self.position

    def lacking_chunks(self, hashes: Sequence[bytes]) -> list[bytes]:
        del hashes
        return []

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
    large: bool = False
    """Whether the value is a manifest."""


class Records:
    """What frames add up to: records by namespace, the catalogue's namespaces, the digests."""

    def __init__(self) -> None:
        self.by_namespace: dict[bytes, dict[bytes, Record]] = {SYSTEM_NAMESPACE: {}}
        self.namespaces: dict[bytes, Namespace] = {}
        self.digest = 0
        self.digests: dict[bytes, int] = {SYSTEM_NAMESPACE: 0}

    def copied(self) -> Records:
        other = Records()
        other.by_namespace = {namespace: held.copy() for namespace, held in self.by_namespace.items()}
        other.namespaces = self.namespaces.copy()
        other.digest = self.digest
        other.digests = self.digests.copy()
        return other

    def take(self, entry: Entry, version: Version, *, lenient: bool = False) -> None:
        """Fold an entry in; `lenient` onto records that came with pages (storage/successor.py)."""
        match entry:
            case Put(namespace, key, value, metadata, expires_at, digest):
                self._put(namespace, key, Record(value, metadata, expires_at, version, digest), lenient=lenient)
            case PutLarge(namespace, key, manifest, metadata, expires_at, digest):
                record = Record(manifest, metadata, expires_at, version, digest, large=True)
                self._put(namespace, key, record, lenient=lenient)
            case Delete(namespace, key):
                removed = self.by_namespace.get(namespace, {}).pop(key, None)
                if removed is not None:
                    assert lenient or removed.version.seq < version.seq, "an entry removes a newer one"
                    self._add(namespace, -_number(removed.hash))
                is_item = namespace == SYSTEM_NAMESPACE and key.startswith(NAMESPACE_PREFIX)
                if is_item and (removed is not None or lenient):
                    self._drop(bytes.fromhex(key.removeprefix(NAMESPACE_PREFIX).decode()))
            case Epoch():
                pass
            case _:
                assert_never(entry)

    def _put(self, namespace: bytes, key: bytes, record: Record, *, lenient: bool) -> None:
        held = self.by_namespace.get(namespace)
        if held is None:
            if lenient:
                return
            raise Divergence(f"namespace {namespace.hex()} doesn't exist here")
        replaced = held.get(key)
        assert lenient or replaced is None or replaced.version.seq < record.version.seq, "a newer one is replaced"
        held[key] = record
        self._add(namespace, _number(record.hash) - (_number(replaced.hash) if replaced else 0))
        if namespace == SYSTEM_NAMESPACE:
            item = read_item(key, record.value)
            if isinstance(item, Namespace):
                self.namespaces[item.id] = item
                self.open(item.id)

    def open(self, namespace: bytes) -> dict[bytes, Record]:
        """Return a namespace's records; it exists afterwards."""
        self.digests.setdefault(namespace, 0)
        return self.by_namespace.setdefault(namespace, {})

    def _drop(self, namespace: bytes) -> None:
        if self.by_namespace.pop(namespace, None) is not None:
            self.namespaces.pop(namespace, None)
            self.digest = (self.digest - self.digests.pop(namespace)) % DIGEST_MODULUS

    def add_record(self, namespace: bytes, key: bytes, record: Record) -> None:
        """Add one that came with a page, where there is none."""
        self.open(namespace)
        self._put(namespace, key, record, lenient=True)

    def _add(self, namespace: bytes, change: int) -> None:
        self.digests[namespace] = (self.digests[namespace] + change) % DIGEST_MODULUS
        self.digest = (self.digest + change) % DIGEST_MODULUS

    def places(self) -> Iterator[tuple[bytes, Record]]:
        """Yield (namespace ‖ key, record) in the order of places."""
        for namespace in sorted(self.by_namespace):
            for key in sorted(self.by_namespace[namespace]):
                yield namespace + key, self.by_namespace[namespace][key]

    def chunks(self) -> dict[bytes, None]:
        """The chunks that records name."""
        return {
            name: None
            for held in self.by_namespace.values()
            for record in held.values()
            if record.large
            for name in Manifest.unpack(record.value).chunks
        }


class SimulatedSuccessor:
    """A replica in the making, as storage/successor.py makes it: pages, the tail, the proof."""

    def __init__(self, start: Position) -> None:
        self.journal = SimulatedJournal()
        self.journal.clear(start)
        self.records = Records()
        self.stamp = 0
        self.replayed = start
        self.progress = BootstrapProgress(start, b"", whole=False, highest=start, digest=bytes(HASH_BYTES))

    def store_page(self, page: Page) -> None:
        """Add the records of the page that comes next.

        Raises:
            PageDamaged: it was altered or doesn't come next.
        """
        before = self.progress
        if before.whole or page.after != before.until or page.position.seq < before.start.seq:
            raise PageDamaged("a page that doesn't come next")
        for place, record in _unpack(page.body):
            self.records.add_record(place[:NAMESPACE_ID_BYTES], place[NAMESPACE_ID_BYTES:], record)
        newer = page.position.seq > before.highest.seq or not before.until
        self.progress = BootstrapProgress(
            before.start,
            page.until or before.until,
            whole=not page.until,
            highest=page.position if newer else before.highest,
            digest=page.digest if newer else before.digest,
        )

    def replay(self, until: Position, digest: bytes) -> None:
        """Apply the whole tail to what the pages brought.

        Raises:
            Divergence: it isn't what the coordinator's replica was.
        """
        for frame in self.journal.frames_after(self.replayed.seq, 1 << 40):
            lenient = frame.last_seq <= until.seq
            for seq, entry in enumerate(frame.entries(), frame.first_seq):
                self.records.take(entry, Version(frame.epoch, seq), lenient=lenient)
            if frame.last_seq == until.seq and frame.position != until:
                raise Divergence(f"a page was as of {until}, and our history has {frame.position} there")
            if frame.last_seq >= until.seq and self.records.digest != _number(frame.digest_after):
                raise Divergence(f"the digest at {frame.position} is not the coordinator's")
            self.replayed, self.stamp = frame.position, frame.stamp
        if self.replayed.seq < until.seq:
            raise Divergence(f"the journal ends at {self.replayed}, before {until}")
        if self.replayed == until == self.progress.start and self.records.digest != _number(digest):
            raise Divergence(f"the digest at {until} is not its donor's")

    def copied(self) -> SimulatedSuccessor:
        other = copy(self)
        other.journal = self.journal.copied()
        other.records = self.records.copied()
        return other


class SimulatedDisk:
    """What a node keeps while it is down: journal, records, digest, request ids, chunks, a successor."""

    def __init__(self, *, journal_bytes_max: int | None = None, folds: bool = True) -> None:
        """`folds` is False for a world that only measures: it then keeps no records and checks no digest."""
        self.journal = SimulatedJournal(journal_bytes_max)
        self._journal_bytes_max = journal_bytes_max
        self.folds = folds
        self.is_full = False
        """Nothing can be written."""
        self.is_lying = False
        """fsync returns and has done nothing."""
        self.is_damaged = False
        """A record isn't what was written: whoever reads it finds that out, and shows it to nobody."""
        self._clear()
        self._keep()

    def _clear(self) -> None:
        self.journal.clear()
        self._content = Records()
        self.is_damaged = False
        self.stamp = 0
        self.verified = False
        self.chunks: dict[bytes, bytes] = {}
        self.successor: SimulatedSuccessor | None = None
        self._requests: dict[bytes, tuple[Version, int]] = {}
        """By request id: the answer, and the position of the transaction that remembers it."""

    def _keep(self) -> None:
        """What is there now is on the medium: all that is left when the power goes."""
        self._durable = self.journal.position
        base = self.journal.horizon_seq
        # A journal that is whole gives everything again; one that isn't leaves nothing to derive it from.
        self._durable_content = (self._content.copied(), self.stamp) if base and self.folds else None

    # -- what readers and the writer read --------------------------------------------------------------------

    @property
    def records(self) -> dict[bytes, dict[bytes, Record]]:
        return self._content.by_namespace

    @property
    def tokens(self) -> dict[bytes, Token]:
        """None: no simulated client asks for any."""
        return {}

    @property
    def namespaces(self) -> dict[bytes, Namespace]:
        return self._content.namespaces

    @property
    def digest(self) -> int:
        return self._content.digest

    @property
    def position(self) -> Position:
        """Of the replica that readers see."""
        return self.journal.position

    @property
    def horizon_seq(self) -> int:
        return self.journal.horizon_seq

    def holds(self, position: Position) -> bool:
        """Whether this is a frame's end of the history that readers see, as far as the journal tells."""
        return self.journal.holds(position)

    def namespace_digest(self, namespace: bytes) -> int:
        return self._content.digests[namespace]

    def get(self, namespace: bytes, key: bytes) -> Record | None:
        return self.records.get(namespace, {}).get(key)

    def request_outcome(self, request_id: bytes) -> Version | None:
        known = self._requests.get(request_id)
        return known[0] if known else None

    @property
    def port(self) -> DiskJournal:
        """What the core reads."""
        return DiskJournal(self)

    # -- writing ---------------------------------------------------------------------------------------------

    def apply(self, frames: Sequence[Frame], requests: Sequence[tuple[bytes, Version, int]] = ()) -> None:
        """Take these frames in one transaction, not yet synced; where there is a successor, into its journal.

        Raises:
            StorageFull: nothing was written.
            ChunksMissing: nothing was written.
            Divergence: the digest after one of them isn't the coordinator's; the journal is as it was, the
                records are not, so that only `wipe` helps.
        """
        if self.is_full:
            raise StorageFull("the simulated disk is full")
        if self.successor is not None and frames:
            for frame in frames:
                self.successor.journal.append(frame)
            return
        if self.folds:
            self._look_for_chunks(frames)
            self._fold(frames)
        for frame in frames:
            self.journal.append(frame)
        if frames:
            self.stamp = frames[-1].stamp
        for request_id, version, _ in requests:
            self._requests[request_id] = version, self.position.seq

    def _look_for_chunks(self, frames: Sequence[Frame]) -> None:
        for index, frame in enumerate(frames):
            for entry in frame.entries():
                if isinstance(entry, PutLarge):
                    missing = self.lacking_chunks(Manifest.unpack(entry.manifest).chunks)
                    if missing:
                        raise ChunksMissing(tuple(missing), index)

    def sync(self) -> None:
        """Make durable all that was written, unless the medium lies."""
        if not self.is_lying:
            self._keep()

    def _fold(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            for seq, entry in enumerate(frame.entries(), frame.first_seq):
                self._content.take(entry, Version(frame.epoch, seq))
            if self.digest != _number(frame.digest_after):
                raise Divergence(f"the digest at {frame.position} is not the coordinator's")

    def mark_verified(self) -> None:
        """Remember that this replica stood where the network stood."""
        self.verified = True

    # -- chunks ----------------------------------------------------------------------------------------------

    def put_chunk(self, name: bytes, data: bytes) -> bool:
        """Keep a chunk; return whether it is what its name says.

        Raises:
            StorageFull: there is no room.
        """
        if self.is_full:
            raise StorageFull("the simulated disk is full")
        if hash_chunk(data) != name:
            return False
        self.chunks[name] = data
        return True

    def lacking_chunks(self, hashes: Sequence[bytes]) -> list[bytes]:
        return [name for name in dict.fromkeys(hashes) if name not in self.chunks]

    # -- pages and the successor -----------------------------------------------------------------------------

    def read_page(self, after: bytes) -> Page:
        """Return the records behind this place.

        Raises:
            StorageDamaged: one of them isn't what was written.
        """
        if self.is_damaged:
            raise StorageDamaged("a record isn't what was written")
        found: list[tuple[bytes, Record]] = []
        until = b""
        for place, record in self._content.places():
            if place > after:
                if len(found) == PAGE_RECORDS:
                    until = found[-1][0]
                    break
                found.append((place, record))
        digest = self.digest.to_bytes(HASH_BYTES, "big")
        return Page(self.position, digest, after, until, _pack(found))

    def begin_successor(self, position: Position) -> None:
        self.successor = SimulatedSuccessor(position)

    def store_page(self, page: Page) -> None:
        """Add a page to the successor.

        Raises:
            PageDamaged, StorageFull: it wasn't.
        """
        if self.is_full:
            raise StorageFull("the simulated disk is full")
        assert self.successor is not None, "a page without a successor"
        self.successor.store_page(page)

    def finish(self, until: Position, digest: bytes) -> Position:
        """Replay the successor's journal and put it in the replica's place, durably.

        Raises:
            StorageFull, Divergence: it isn't.
            ChunksMissing: chunks that its records name aren't here.
        """
        if self.is_full:
            raise StorageFull("the simulated disk is full")
        successor = self.successor
        assert successor is not None, "there is nothing to finish"
        successor.replay(until, digest)
        missing = self.lacking_chunks(list(successor.records.chunks()))
        if missing:
            raise ChunksMissing(tuple(missing), 0)
        self.journal = successor.journal
        self.journal.limit(self._journal_bytes_max)
        self._content = successor.records
        self.stamp = successor.stamp or self.stamp
        self.successor = None
        self.verified = True
        self.is_damaged = False
        if not self.is_lying:
            self._keep()
        return self.position

    def abandon_successor(self) -> None:
        self.successor = None

    # -- what becomes of it ----------------------------------------------------------------------------------

    def wipe(self) -> None:
        """Be empty."""
        self._clear()
        self._keep()

    def lose_power(self, rng: random.Random) -> int:
        """Lose what was not synced, or not; return how many frames are gone. Nothing of a successor is synced."""
        self.successor = None
        frames = self.journal.frames
        kept = len(frames)
        while kept and frames[kept - 1].last_seq > self._durable.seq:
            kept -= 1
        lost = len(frames) - kept
        if not lost or (not self.is_lying and rng.random() < KEPT_UNSYNCED):
            self._keep()
            return 0
        verified, requests = self.verified, self._requests
        if self._durable_content is not None and self._durable.seq >= self.journal.horizon_seq:
            self.journal.truncate(kept)
            content, self.stamp = self._durable_content
            self._content = content.copied()
        elif self.journal.horizon_seq:
            self._clear()
            verified = False
        else:
            self.journal.truncate(kept)
            self._build_again()
        self.verified = verified
        seq = self.position.seq
        self._requests = {id_: known for id_, known in requests.items() if known[1] <= seq}
        self._keep()
        return lost

    def _build_again(self) -> None:
        """Derive everything from the journal, which is whole."""
        journal, chunks = self.journal.copied(), self.chunks
        self._clear()
        self.chunks = chunks
        was_full, self.is_full = self.is_full, False  # what is there needs no room
        self.apply(journal.frames)
        self.is_full = was_full

    def copied(self) -> SimulatedDisk:
        """Return a copy as it is now."""
        other = copy(self)
        other.journal = self.journal.copied()
        other._content = self._content.copied()  # noqa: SLF001  (one of its own kind)
        other._requests = self._requests.copy()  # noqa: SLF001
        other.chunks = self.chunks.copy()
        other.successor = None if self.successor is None else self.successor.copied()
        other.is_full = other.is_lying = False
        return other


class DiskJournal:
    """The journal that the core follows: the successor's while there is one, else the replica's."""

    __slots__ = ("_disk",)

    def __init__(self, disk: SimulatedDisk) -> None:
        self._disk = disk

    @property
    def _journal(self) -> SimulatedJournal:
        successor = self._disk.successor
        return self._disk.journal if successor is None else successor.journal

    @property
    def position(self) -> Position:
        return self._journal.position

    @property
    def horizon_seq(self) -> int:
        return self._journal.horizon_seq

    def frames_after(self, seq: int, bytes_max: int) -> list[Frame]:
        return self._journal.frames_after(seq, bytes_max)

    def holds(self, position: Position) -> bool:
        return self._journal.holds(position)

    def end_before(self, seq: int) -> Position | None:
        return self._journal.end_before(seq)

    @property
    def served(self) -> Position:
        return self._disk.position

    @property
    def verified(self) -> bool:
        return self._disk.verified

    @property
    def bootstrap(self) -> BootstrapProgress | None:
        successor = self._disk.successor
        return None if successor is None else successor.progress

    def lacking_chunks(self, hashes: Sequence[bytes]) -> list[bytes]:
        return self._disk.lacking_chunks(hashes)


def _pack(found: Sequence[tuple[bytes, Record]]) -> bytes:
    packed: bytes = msgpack.packb([[place, *record[:3], *record.version, *record[4:]] for place, record in found])
    return crc32(packed).to_bytes(4, "big") + packed


def _unpack(body: bytes) -> list[tuple[bytes, Record]]:
    packed = body[4:]
    if crc32(packed) != int.from_bytes(body[:4], "big"):
        raise PageDamaged("a page that was altered on its way")
    return [
        (place, Record(value, metadata, expires_at, Version(epoch, seq), hash_, large))
        for place, value, metadata, expires_at, epoch, seq, hash_, large in msgpack.unpackb(packed)
    ]


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "big")
