"""One node's replica and journal: what is applied together, read together and proven together.

Readers see the replica. While a successor is in the making (successor.py), frames go to its journal only, and the
protocol sees that journal; the moment it is proven it takes the replica's place, and this object goes on with it.

Threads: what writes (`apply`, pages, replay, `erase_some`, `reset`, compaction's end) belongs to one thread at
a time; everything else may be called from another one meanwhile. What a reader sees in memory may be one commit
behind what it reads from the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Final, NamedTuple, Self

import lmdb

from kvnet.core.catalog import Cluster, Member, Namespace, Token, read_item
from kvnet.core.entries import HASH_BYTES, SYSTEM_NAMESPACE
from kvnet.core.events import BootstrapProgress
from kvnet.core.frames import Frame
from kvnet.core.messages import Page
from kvnet.core.versions import Position, Version
from kvnet.errors import ChunksMissing, ProtocolError, StorageDamaged
from kvnet.storage import chunks, journal
from kvnet.storage.batch import Batch
from kvnet.storage.catalogue import Catalogue
from kvnet.storage.disk import HOST, Disk
from kvnet.storage.environment import MAP_SIZE_BYTES, Environment, Owner
from kvnet.storage.erasure import erase
from kvnet.storage.faults import translated
from kvnet.storage.folder import DataFolder, Durability
from kvnet.storage.keys import SLICE_BYTES, find_place, root_prefix, walk
from kvnet.storage.listing import ListedKey, list_some
from kvnet.storage.pages import PAGE_BYTES, pack, read_stretch
from kvnet.storage.records import StoredRecord, read_record
from kvnet.storage.requests import Remembered, outcome, remember
from kvnet.storage.state import STATE_KEY, State, Tally, read_state, read_tallies, tally_key
from kvnet.storage.successor import VERIFIED_KEY, Successor
from kvnet.storage.verification import Verification, verify

__all__ = ["Durability", "ListedKey", "Store", "StoredRecord", "Verification"]

COLLECT_INTERVAL_S: Final = 60.0
"""How often it is looked for chunks whose time is over."""
REPLAYED_AT_ONCE: Final = 1000
"""Entries of a journal that are applied in one transaction."""


class _View(NamedTuple):
    """What the last commit left, swapped whole."""

    state: State
    catalogue: Catalogue


def _no_step(name: str) -> None:
    """Where a test may end the process."""


class Store:
    """One node's replica and journal in one data folder."""

    def __init__(
        self, folder: DataFolder, *, journal_bytes_max: int | None, tracks_expiries: bool = False
    ) -> None:
        self._folder = folder
        self._step = folder.step
        self._journal_bytes_max = journal_bytes_max
        self._tracks_expiries = tracks_expiries
        self._view = _View(State(), Catalogue())
        self._collect_at = 0.0
        self._bind(folder.replica)
        self._successor: Successor | None = None
        if folder.successor is not None:
            self._successor = Successor(folder.successor, tracks_expiries=tracks_expiries, step=self._step)
            if self._successor.progress is None:  # it was being made when the process ended
                self.abandon_successor()
        self.journal = StoreJournal(self)
        """What the protocol sees."""

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        node: str,
        cluster_id: bytes,
        durability: Durability,
        map_size_bytes: int = MAP_SIZE_BYTES,
        journal_bytes_max: int | None = None,
        refillable: bool = False,
        tracks_expiries: bool = False,
        disk: Disk = HOST,
        step: Callable[[str], None] = _no_step,
    ) -> Self:
        """Open or make the store in `folder`; `journal_bytes_max` None keeps every frame.

        A `refillable` replica that is damaged is thrown away and begins empty (`discarded` says why); another one
        is refused.

        Raises:
            ForeignEnvironment: the folder holds another cluster's, another node's or another format's data.
            StorageDamaged: what is here isn't what was written, and isn't refillable.
            StorageError: another process holds it, or it can't be read or written.
        """
        opened = DataFolder(
            folder,
            Owner(cluster_id.hex(), node),
            durability=durability,
            map_size_bytes=map_size_bytes,
            refillable=refillable,
            disk=disk,
            step=step,
        )
        try:
            try:
                return cls(opened, journal_bytes_max=journal_bytes_max, tracks_expiries=tracks_expiries)
            except StorageDamaged as damage:
                if not refillable:
                    raise
                opened.replica.retire()
                opened.discard_replica(str(damage))
                return cls(opened, journal_bytes_max=journal_bytes_max, tracks_expiries=tracks_expiries)
        except BaseException:
            opened.close(clean=False)
            raise

    def _bind(self, environment: Environment) -> None:
        """Go on with this environment as the replica.

        Raises:
            StorageDamaged: what it says about itself can't be read.
        """
        meta = environment.database("meta")
        with environment.view() as txn, txn.cursor() as cursor:
            try:
                state = read_state(txn, meta)
                tallies = read_tallies(txn, meta)
                items = {
                    key: read_item(key, read_record(key, bytes(stored)).value)
                    for key, stored in walk(cursor, tallies[SYSTEM_NAMESPACE].prefix)
                }
            except (ProtocolError, ValueError, lmdb.Error) as error:
                raise StorageDamaged(f"{environment.path} can't be read: {error}") from error
            self._verified = txn.get(VERIFIED_KEY, db=meta) is not None
            self._erasing_some = txn.stat(environment.database("erasing"))["entries"] > 0
        self.environment = environment
        self._meta = meta
        self._records = environment.database("records")
        self._journal = environment.database("journal")
        self._requests = environment.database("requests")
        self._request_times = environment.database("request_times")
        self._erasing = environment.database("erasing")
        self._begin = environment.lmdb.begin
        self._tallies = tallies
        old = self._view.catalogue
        gone = {key: None for key in old.items if key not in items}
        self._view = _View(state, old.changed({**items, **gone}))

    @property
    def discarded(self) -> str:
        """Why what the folder held had to be deleted at the start; "" if it hadn't."""
        return self._folder.discarded

    @property
    def crash_file(self) -> Path:
        """Where a process that dies of a fatal signal says so: no refillable replica is trusted after that."""
        return self._folder.crash_file

    @property
    def verified(self) -> bool:
        """Whether this replica has once stood where the network stood; only then may it serve, also when alone."""
        return self._verified

    def mark_verified(self) -> None:
        """Remember, over restarts, that it has; until `reset`."""
        with self.environment.write() as txn:
            txn.put(VERIFIED_KEY, b"", db=self._meta)
        self._verified = True

    # The state as of the last commit.

    @property
    def position(self) -> Position:
        return self._view.state.position

    @property
    def digest(self) -> int:
        """Sum of the hashes of all stored records, mod 2**128."""
        return self._view.state.digest

    @property
    def stamp(self) -> int:
        """Hybrid clock of the last applied frame."""
        return self._view.state.stamp

    @property
    def horizon_seq(self) -> int:
        """The lowest seq from which `frames_after` can go on."""
        return self._view.state.horizon.seq

    @property
    def tallies(self) -> Mapping[bytes, Tally]:
        """By namespace, the system namespace included."""
        return self._tallies

    @property
    def catalogue(self) -> Catalogue:
        """Everything below as of one commit."""
        return self._view.catalogue

    @property
    def catalogue_generation(self) -> int:
        """Grows whenever a catalogue record changed, while the store is open."""
        return self._view.catalogue.generation

    @property
    def namespaces(self) -> Mapping[bytes, Namespace]:
        return self._view.catalogue.namespaces

    @property
    def titles(self) -> Mapping[str, Namespace]:
        return self._view.catalogue.titles

    @property
    def tokens(self) -> Mapping[bytes, Token]:
        """By the hash of the bearer token."""
        return self._view.catalogue.tokens

    @property
    def members(self) -> Mapping[str, Member]:
        return self._view.catalogue.members

    @property
    def cluster(self) -> Cluster | None:
        return self._view.catalogue.cluster

    # Writes.

    def apply(self, frames: Sequence[Frame], requests: Sequence[Remembered] = ()) -> Position:
        """Everything in `frames` is in the replica and the journal, in one transaction; return the position.

        While there is a successor they are in its journal, and the position is where that ends. `requests` are
        remembered with them: (request id, version, wall time in ms). After any error nothing has changed, neither
        on the disk nor in memory.

        Raises:
            StorageFull: no room; reads go on.
            Divergence: the replica isn't what the coordinator's was at the same position.
            ProtocolError: a frame's body can't be read.
            ChunksMissing: a large value's chunks aren't here; tells how many frames could be applied without.
        """
        assert frames or requests, "nothing to apply"
        if self._successor is not None and frames:
            self._successor.append(frames)
            return self._successor.end
        view = self._view
        self._step("apply: begin")
        with self.environment.write() as txn:
            batch = self._batch(txn)
            state = view.state
            if frames:
                for index, frame in enumerate(frames):
                    try:
                        batch.take(frame)
                    except ChunksMissing as missing:
                        raise ChunksMissing(missing.hashes, index) from None
                state = journal.append(txn, self._journal, frames, state)
                if self._journal_bytes_max is not None:
                    state = journal.drop_oldest(
                        txn, self._journal, state, bytes_max=self._journal_bytes_max, appended=len(frames)
                    )
                state = batch.finish(state)
            if requests:
                remember(txn, self._requests, self._request_times, requests)
            self._step("apply: written")
        self._step("apply: committed")
        self._publish(batch, state)
        return state.position

    def _batch(self, txn: lmdb.Transaction[bytes]) -> Batch:
        return Batch(self.environment, txn, self._view.state, self._tallies, tracks_expiries=self._tracks_expiries)

    def _publish(self, batch: Batch, state: State) -> None:
        for namespace in batch.removed:
            self._tallies.pop(namespace, None)
        self._tallies.update(batch.tallies)
        self._erasing_some = self._erasing_some or batch.erases
        catalogue = self._view.catalogue
        if batch.catalogue_changes:
            catalogue = catalogue.changed(batch.catalogue_changes)
        self._view = _View(state, catalogue)

    def erase_some(self, budget: int = 1000) -> bool:
        """Erase up to `budget` records of deleted namespaces, and some chunks that nobody names; whether more are left.

        Costs nothing when there are none.
        """
        if not self._erasing_some and monotonic() < self._collect_at:
            return False
        dbs = self.environment.chunk_databases
        with self.environment.write() as txn:
            left = self._erasing_some and erase(txn, self._erasing, dbs, budget)
            uncollected = chunks.collect(txn, dbs)
        self._erasing_some = left
        if not uncollected:
            self._collect_at = monotonic() + COLLECT_INTERVAL_S
        return left or uncollected

    def reset(self) -> None:
        """Replica and journal are empty, as those of a node that was never part of the network; it keeps its name.

        For a replica that can't continue its history: forked, diverged, damaged. A successor is gone as well.
        """
        self.abandon_successor()
        state = self._view.state
        empty = State(next_layer=state.next_layer, next_number=state.next_number)
        names = ("records", "journal", "requests", "request_times", "erasing", "expiries")
        with self.environment.write() as txn:
            for db in (*(self.environment.database(name) for name in names), *self.environment.chunk_databases):
                txn.drop(db, delete=False)
            for namespace in self._tallies:
                txn.delete(tally_key(namespace), db=self._meta)
            txn.delete(VERIFIED_KEY, db=self._meta)
            txn.put(STATE_KEY, empty.pack(), db=self._meta)
        self._verified = False
        self._tallies = {SYSTEM_NAMESPACE: Tally(root_prefix(0))}
        self._erasing_some = False
        catalogue = self.catalogue.changed(dict.fromkeys(self.catalogue.items))
        self._view = _View(empty, catalogue)

    def tidy(self) -> None:
        """Clear what readers that died have left."""
        self.environment.tidy()

    # Large values.

    def put_chunks(self, stored: Sequence[tuple[bytes, bytes]]) -> None:
        """Keep these chunks, (hash, data) each; where there is a successor, there.

        Raises:
            StorageFull: no room.
            ProtocolError: one isn't what its hash says; none is kept.
        """
        environment = self.environment if self._successor is None else self._successor.environment
        with environment.write() as txn:
            chunks.put(txn, environment.chunk_databases, stored)

    def chunk(self, name: bytes) -> bytes | None:
        """Return a chunk's data; None when it isn't here."""
        with self.environment.view() as txn:
            data = txn.get(name, db=self.environment.chunk_databases.data)
            if data is not None:
                return bytes(data)
        if self._successor is None:
            return None
        environment = self._successor.environment
        with environment.view() as txn:
            data = txn.get(name, db=environment.chunk_databases.data)
            return None if data is None else bytes(data)

    def lacking_chunks(self, names: Sequence[bytes]) -> list[bytes]:
        """Return those of these chunks that aren't here, each once, in their order.

        What the old replica has the successor is given when it needs it.
        """
        with self.environment.view() as txn:
            missing = chunks.lacking(txn, self.environment.chunk_databases, names)
        if not missing or self._successor is None:
            return missing
        environment = self._successor.environment
        with environment.view() as txn:
            return chunks.lacking(txn, environment.chunk_databases, missing)

    # Pages, and the successor that is made of them.

    def read_page(self, after: bytes, bytes_max: int = PAGE_BYTES) -> Page:
        """Return the records behind a place, in one short read transaction.

        Raises:
            StorageDamaged: one of them isn't what was written.
        """
        with self.environment.view() as txn, txn.cursor() as cursor:
            state = read_state(txn, self._meta)
            stretch = read_stretch(cursor, read_tallies(txn, self._meta), after, bytes_max)
        digest = state.digest.to_bytes(HASH_BYTES, "big")
        return Page(state.position, digest, after, stretch.until, pack(stretch.groups))

    @property
    def bootstrap(self) -> BootstrapProgress | None:
        """How far the successor is; None when there is none."""
        return None if self._successor is None else self._successor.progress

    def begin_successor(self, position: Position) -> None:
        """Begin an empty replica whose journal begins at this position, in place of one begun before."""
        environment = self._folder.begin_successor()
        self._successor = Successor(environment, tracks_expiries=self._tracks_expiries, step=self._step)
        self._successor.begin(position)

    def store_page(self, page: Page) -> None:
        """Add a page to the successor.

        Raises:
            PageDamaged: it was altered, or isn't the one that comes next; nothing of it was stored.
            StorageFull: no room.
        """
        self._made().store_page(page)

    def replay_some(self, until: Position, digest: bytes, budget: int = REPLAYED_AT_ONCE) -> Position | None:
        """Bring the successor nearer to its proof; return its position once it is the replica, None before.

        `until` and `digest` are the highest position of a page, and its donor's digest there.

        Raises:
            Divergence, ProtocolError: it isn't what the coordinator's replica was.
            ChunksMissing: chunks must be fetched first.
            StorageFull: no room.
        """
        successor = self._made()
        try:
            if not successor.replay_some(until, digest, budget):
                return None
        except ChunksMissing as missing:
            if not self._copy_chunks(missing.hashes):
                raise
            return None
        self._adopt()
        return self.position

    def abandon_successor(self) -> None:
        """Throw the successor away, if there is one."""
        self._successor = None
        self._folder.abandon_successor()

    def _made(self) -> Successor:
        assert self._successor is not None, "begin_successor() comes first"
        return self._successor

    def _copy_chunks(self, names: Sequence[bytes]) -> bool:
        """Copy what the old replica has of these to the successor; return whether that was any."""
        with self.environment.view() as txn:
            data = self.environment.chunk_databases.data
            found = [(name, bytes(held)) for name in names if (held := txn.get(name, db=data)) is not None]
        if found:
            self.put_chunks(found)
        return bool(found)

    def _adopt(self) -> None:
        """The successor is the replica: durably first, then here, between two reads."""
        self._folder.adopt_successor()
        self._successor = None
        self._bind(self._folder.replica)

    # Compaction: a copy without its free pages takes the replica's place.

    def copy_compacted(self) -> None:
        """Copy the replica into what is to become its successor; may run in a thread beside all else.

        Nothing that needs a successor may begin meanwhile. `finish_compaction` completes it.
        """
        path = self._folder.prepare_successor()
        path.mkdir(mode=0o700)
        self.environment.copy_to(path)

    def finish_compaction(self) -> None:
        """Apply to the copy what was written since it was made, and put it in the replica's place."""
        environment = self._folder.open_successor()
        meta = environment.database("meta")
        with environment.view() as txn:
            state, tallies = read_state(txn, meta), read_tallies(txn, meta)
        for frames in self._frames_since(state.position.seq):
            with environment.write() as txn:
                batch = Batch(environment, txn, state, tallies, tracks_expiries=self._tracks_expiries)
                for frame in frames:
                    batch.take(frame)
                db = environment.database("journal")
                state = batch.finish(journal.append(txn, db, frames, state))
            for namespace in batch.removed:
                tallies.pop(namespace, None)
            tallies.update(batch.tallies)
        self._adopt()

    def _frames_since(self, seq: int) -> Any:
        while frames := self.frames_after(seq, 1 << 20):
            yield frames
            seq = frames[-1].last_seq

    # Reads.

    def get(self, namespace: bytes, key: bytes) -> StoredRecord | None:
        """Return the record as it is now, expired or not; None also when the namespace doesn't exist.

        Read as bytes, not as a view: below 64 KiB that is the faster of the two.

        Raises:
            StorageDamaged: it isn't what was written.
        """
        tally = self._tallies.get(namespace)
        if tally is None:
            return None
        try:
            if len(key) <= SLICE_BYTES:
                # The transaction ends with the expression: nothing else holds it. `with` costs a sixth of a read.
                stored = self._begin(self._records).get(tally.prefix + key)
            else:
                with self._begin(self._records) as txn:
                    place = find_place(txn, tally.prefix, key)
                    stored = None if place is None else txn.get(place)
        except lmdb.Error as error:
            raise translated(error, self.environment.path) from error
        return None if stored is None else read_record(key, stored)

    def list_keys(
        self, namespace: bytes, prefix: bytes, after: bytes | None, limit: int, now_s: int
    ) -> tuple[list[ListedKey], bool]:
        """Return up to `limit` unexpired keys that start with `prefix`, in byte order, and whether more follow.

        `after` is the last key of the listing that this one continues. A listing longer than LISTED_AT_ONCE
        records (listing.py) is read in several transactions, so it is not of one position.

        Raises:
            StorageDamaged: a record isn't what was written.
        """
        listed: list[ListedKey] = []
        start: bytes | None = prefix if after is None or after < prefix else after + b"\0"
        while start is not None and len(listed) <= limit:
            tally = self._tallies.get(namespace)
            if tally is None:
                break
            with self.environment.view() as txn, txn.cursor() as cursor:
                some = list_some(cursor, tally.prefix, prefix, start, limit + 1 - len(listed), now_s)
            listed += some.keys
            start = some.next
        return listed[:limit], len(listed) > limit

    def frames_after(self, seq: int, bytes_max: int) -> list[Frame]:
        """Return the frames from `seq` + 1 on, oldest first: at least one, then as many as fit `bytes_max`.

        [] at the head.

        Raises:
            BeyondHorizon: the journal starts later, or no frame of this history ends at `seq`.
        """
        if seq >= self.position.seq:
            return []
        with self.environment.view() as txn:
            return journal.frames_after(txn, self._journal, seq, bytes_max)

    def holds(self, position: Position) -> bool:
        """Whether `position` is a frame's end of this store's own history, as far as the journal can prove."""
        state = self._view.state
        if position in (state.position, state.horizon):
            return True
        if not state.horizon.seq < position.seq < state.position.seq:
            return False
        with self.environment.view() as txn:
            return journal.ends_at(txn, self._journal, position)

    def end_before(self, seq: int) -> Position | None:
        """Return this history's last frame end at or below `seq`; None where the journal begins later."""
        state = self._view.state
        if seq >= state.position.seq:
            return state.position
        if seq < state.horizon.seq:
            return None
        with self.environment.view() as txn:
            return journal.last_end(txn, self._journal, seq) or state.horizon

    def namespace_digest(self, namespace: bytes) -> int:
        """Return the sum of the hashes of this namespace's records, mod 2**128; 0 if it doesn't exist."""
        tally = self._tallies.get(namespace)
        return 0 if tally is None else tally.digest

    def request_outcome(self, request_id: bytes) -> Version | None:
        """Return the version that this request's write got, for ten minutes at least; None if unknown."""
        with self.environment.view() as txn:
            return outcome(txn, self._requests, request_id)

    def recompute(self) -> Verification:
        """Compute every hash and digest again from the stored bytes, at one position.

        Takes a microsecond or two per record: not for an event loop.
        """
        return verify(self.environment)

    def stats(self) -> dict[str, Any]:
        """Sizes for people and metrics; `map_bytes` is what the environment's file has taken of the disk."""
        state = self._view.state
        tallies = self._tallies.copy()
        return {
            "keys": {namespace.hex(): tally.keys for namespace, tally in tallies.items()},
            "bytes": {namespace.hex(): tally.size_bytes for namespace, tally in tallies.items()},
            **self.environment.stats(),
            "journal_frames": state.journal_frames,
            "journal_bytes": state.journal_bytes,
            "horizon_seq": state.horizon.seq,
        }

    def close(self, *, clean: bool = True) -> None:
        """Give the folder back; `clean=False` leaves it as a killed process would."""
        self._folder.close(clean=clean)


class StoreJournal:
    """The journal that the protocol follows: the successor's while there is one, else the replica's."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def position(self) -> Position:
        successor = self._store._successor  # noqa: SLF001 - the store's own face
        return self._store.position if successor is None else successor.end

    @property
    def horizon_seq(self) -> int:
        successor = self._store._successor  # noqa: SLF001
        return self._store.horizon_seq if successor is None else successor.start.seq

    def frames_after(self, seq: int, bytes_max: int) -> list[Frame]:
        successor = self._store._successor  # noqa: SLF001
        return (self._store if successor is None else successor).frames_after(seq, bytes_max)

    def holds(self, position: Position) -> bool:
        successor = self._store._successor  # noqa: SLF001
        if successor is None:
            return self._store.holds(position)
        return successor.end_before(position.seq) == position

    def end_before(self, seq: int) -> Position | None:
        successor = self._store._successor  # noqa: SLF001
        return (self._store if successor is None else successor).end_before(seq)

    @property
    def verified(self) -> bool:
        return self._store.verified

    @property
    def bootstrap(self) -> BootstrapProgress | None:
        return self._store.bootstrap

    def lacking_chunks(self, hashes: Sequence[bytes]) -> list[bytes]:
        return self._store.lacking_chunks(hashes)
