"""A node's disk in a simulated world: its journal and its records, what of them is synced, and what may break.

It takes frames as the real store does (kvnet/storage): whole batches, the digest compared after every frame. What
was written since the last fsync that the medium really did is lost with the power, or not, as it happens; a torn
transaction is one that was lost, since LMDB's meta page names the one before it. The journal survives a process
that is killed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Final, NamedTuple

from kvnet.core.catalog import Namespace, Token
from kvnet.core.entries import HASH_BYTES, PutLarge
from kvnet.core.frames import Frame
from kvnet.core.manifest import Manifest
from kvnet.core.messages import Page
from kvnet.core.versions import Position, Version
from kvnet.errors import ChunksMissing, Divergence, StorageDamaged, StorageFull
from kvnet.simulator.chunk_shelf import CHUNK_LIFE_MS, ChunkShelf
from kvnet.simulator.journal import KEEP_ALL, Kept, SimulatedJournal
from kvnet.simulator.port import DiskJournal
from kvnet.simulator.records import Record, Records, number_of, pack_page
from kvnet.simulator.successor import SimulatedSuccessor

KEPT_UNSYNCED: Final = 0.5
"""How often the kernel had written out what nobody synced when the power went."""
PAGE_RECORDS: Final = 8
"""Records of a page: few, so that a small replica has several."""
COLLECT_EVERY_MS: Final = 1000.0


class Expiring(NamedTuple):
    """A record whose time has come."""

    expires_at: int
    namespace: bytes
    key: bytes


class _Synced(NamedTuple):
    """What is on the medium for sure."""

    journal: SimulatedJournal
    position: Position
    content: Records | None
    """None where the journal is whole, and gives everything again."""
    stamp: int
    chunks: ChunkShelf


class SimulatedDisk:
    """What a node keeps while it is down: journal, records, digest, request ids, chunks, a successor, its time."""

    def __init__(self, *, kept: Kept = KEEP_ALL, folds: bool = True, chunk_life_ms: float = CHUNK_LIFE_MS) -> None:
        """`folds` is False for a world that only measures: it then keeps no records and checks no digest."""
        self.journal = SimulatedJournal(kept)
        self._kept = kept
        self.folds = folds
        self.now_ms: Callable[[], float] = float
        """The time by which chunks are collected."""
        self._chunk_life_ms = chunk_life_ms
        self._collected_at = 0.0
        self.is_full = False
        """Nothing can be written."""
        self.is_lying = False
        """fsync returns and has done nothing."""
        self.is_damaged = False
        """A record isn't what was written: whoever reads it finds that out, and shows it to nobody."""
        self.reached_s = 0
        """The last whole second of replica time that a read was answered by."""
        self.clocks_lost = 0
        """How often that was lost."""
        self._clear()
        self._keep()

    def _clear(self) -> None:
        self.journal = SimulatedJournal(self._kept)
        self._content = Records()
        self.is_damaged = False
        self.stamp = 0
        self.verified = False
        self.chunks = ChunkShelf(self._chunk_life_ms)
        self.successor: SimulatedSuccessor | None = None
        self._requests: dict[bytes, tuple[Version, int]] = {}
        """By request id: the answer, and the position of the transaction that remembers it."""

    def _keep(self) -> None:
        """What is there now is on the medium: all that is left when the power goes."""
        base = self.journal.horizon_seq
        # A journal that is whole gives everything again; one that isn't leaves nothing to derive it from.
        content = self._content.copied() if base and self.folds else None
        self._synced = _Synced(self.journal, self.journal.position, content, self.stamp, self.chunks.copied())

    # -- what readers and the writer read --------------------------------------------------------------------

    @property
    def records(self) -> dict[bytes, dict[bytes, Record]]:
        return self._content.by_namespace

    @property
    def expiring(self) -> Mapping[tuple[bytes, bytes], int]:
        """By place, when its record isn't there any more, in Unix seconds."""
        return self._content.expiring

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

    def due(self, now_s: float, limit: int) -> list[Expiring]:
        """Return records whose time has come, those first whose came first."""
        rows = sorted(
            Expiring(expires_at, *place) for place, expires_at in self.expiring.items() if expires_at <= now_s
        )
        return rows[:limit]

    def note_time(self, now_s: float) -> None:
        """Remember that something was hidden, or shown, by this time."""
        self.reached_s = max(self.reached_s, int(now_s))

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
                records are not, so that only `reset` helps.
        """
        self._refuse_if_full()
        if self.successor is not None and frames:
            for frame in frames:
                self.successor.journal.append(frame)
            return
        if self.folds:
            for index, frame in enumerate(frames):
                self._look_for_chunks(frame, index)
            self._fold(frames)
        for frame in frames:
            self.journal.append(frame)
        if frames:
            self.stamp = frames[-1].stamp
        for request_id, version, _ in requests:
            self._requests[request_id] = version, self.position.seq
        self.collect()

    def _refuse_if_full(self) -> None:
        if self.is_full:
            raise StorageFull("the simulated disk is full")

    def _look_for_chunks(self, frame: Frame, applicable: int = 0) -> None:
        for entry in frame.entries():
            if isinstance(entry, PutLarge):
                names = Manifest.unpack(entry.manifest).chunks
                missing = self.lacking_chunks(names)
                if missing:
                    raise ChunksMissing(tuple(missing), applicable)
                self.chunks.touch(names)

    def sync(self) -> None:
        """Make durable all that was written, unless the medium lies."""
        if not self.is_lying:
            self._keep()

    def _fold(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            for seq, entry in enumerate(frame.entries(), frame.first_seq):
                self._content.take(entry, Version(frame.epoch, seq))
            if self.digest != number_of(frame.digest_after):
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
        self._refuse_if_full()
        return self.chunks.put(name, data, self.now_ms(), self._content.named)

    def lacking_chunks(self, hashes: Sequence[bytes]) -> list[bytes]:
        return self.chunks.lacking(hashes)

    def lacking_named(self) -> list[bytes]:
        """Return chunks that records name and that aren't here."""
        return self.chunks.lacking(self._content.named)

    def collect(self) -> None:
        """Forget chunks that no record has named for long, now and then."""
        now_ms = self.now_ms()
        if self.chunks.data and abs(now_ms - self._collected_at) >= COLLECT_EVERY_MS:
            self._collected_at = now_ms
            successor = self.successor
            self.chunks.collect(now_ms, self._content.named, successor.records.named if successor else ())

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
        return Page(self.position, digest, after, until, pack_page(found))

    def begin_successor(self, position: Position) -> None:
        self.successor = SimulatedSuccessor(position)

    def store_page(self, page: Page) -> None:
        """Add a page to the successor.

        Raises:
            PageDamaged, StorageFull: it wasn't.
        """
        self._refuse_if_full()
        assert self.successor is not None, "a page without a successor"
        self.successor.store_page(page)

    def finish(self, until: Position, digest: bytes) -> Position:
        """Replay the successor's journal and put it in the replica's place, durably unless the medium lies.

        Raises:
            StorageFull, Divergence: it isn't.
            ChunksMissing: chunks that its records name aren't here.
        """
        self._refuse_if_full()
        successor = self.successor
        assert successor is not None, "there is nothing to finish"
        successor.replay(until, digest, self._look_for_chunks)
        missing = self.lacking_chunks(list(successor.records.named))
        if missing:
            raise ChunksMissing(tuple(missing), 0)
        self.chunks.touch(successor.records.named)
        self.journal = successor.journal
        self.journal.limit(self._kept)
        self._content = successor.records
        self.stamp = successor.stamp or self.stamp
        self.successor = None
        self.verified = True
        self.is_damaged = False
        self.sync()
        return self.position

    def abandon_successor(self) -> None:
        self.successor = None

    # -- what becomes of it ----------------------------------------------------------------------------------

    def reset(self) -> None:
        """Hold no replica, durably unless the medium lies; the time that was reached stays."""
        self._clear()
        self.sync()

    def wipe(self) -> None:
        """Be another disk, an empty one."""
        self._clear()
        self._lose_time()
        self._keep()

    def _lose_time(self) -> None:
        self.reached_s = 0
        self.clocks_lost += 1

    def lose_power(self, rng: random.Random) -> int:
        """Lose what was not synced, or not; return how many frames are gone.

        It is 1 at least when the replica before this one is back. Nothing of a successor is synced: it may be gone
        even where nothing else is.
        """
        synced = self._synced
        is_other = synced.journal is not self.journal
        beyond = [frame for frame in self.journal.frames if is_other or frame.last_seq > synced.position.seq]
        if not self.is_lying and rng.random() < KEPT_UNSYNCED:
            self._keep()
            return 0
        self.successor = None
        self._lose_time()
        self.chunks = synced.chunks.copied()
        if not beyond and not is_other:
            self._keep()
            return 0
        verified, requests = self.verified and not is_other, self._requests
        journal = synced.journal
        journal.truncate(sum(frame.last_seq <= synced.position.seq for frame in journal.frames))
        if synced.position.seq < journal.horizon_seq or (journal.horizon_seq and synced.content is None):
            self._clear()
            verified = False
        else:
            self.journal, self.stamp = journal, synced.stamp
            self._content = Records() if synced.content is None else synced.content.copied()
            if synced.content is None and self.folds:
                self._fold(journal.frames)
        self.verified = verified
        seq = self.position.seq
        self._requests = {id_: known for id_, known in requests.items() if known[1] <= seq}
        self._keep()
        return max(1, len(beyond))

    def copied(self) -> SimulatedDisk:
        """Return a copy as it is now."""
        other = copy(self)
        other.journal = self.journal.copied()
        other._content = self._content.copied()  # noqa: SLF001  (one of its own kind)
        other._requests = self._requests.copy()  # noqa: SLF001
        other.chunks = self.chunks.copied()
        other.successor = None if self.successor is None else self.successor.copied()
        other.is_full = other.is_lying = False
        other._keep()  # noqa: SLF001
        return other
