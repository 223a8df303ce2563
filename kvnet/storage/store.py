"""One node's replica and journal: what is applied together, read together and proven together.

Readers see the replica. While a successor is in the making (successor.py), frames go to its journal only, and the
protocol sees that journal; the moment it is proven it takes the replica's place, and this object goes on with it.

Threads: what writes (`apply`, pages, replay, `erase_some`, `reset`, compaction's end) belongs to one thread at
a time; everything else may be called from another one meanwhile. What a reader sees in memory may be one commit
behind what it reads from the disk.
"""

from __future__ import annotations

import struct
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
from kvnet.errors import BeyondHorizon, ChunksMissing, ProtocolError, StorageDamaged, StorageError
from kvnet.storage import chunks, journal
from kvnet.storage.batch import Batch
from kvnet.storage.catalogue import Catalogue
from kvnet.storage.compaction import Compacted, Compaction
from kvnet.storage.disk import HOST, Disk
from kvnet.storage.environment import MAP_SIZE_BYTES, Environment, Owner
from kvnet.storage.erasure import erase
from kvnet.storage.faults import translated
from kvnet.storage.folder import DataFolder, Durability
from kvnet.storage.keys import SLICE_BYTES, find_place, walk
from kvnet.storage.listing import ListedKey, list_some
from kvnet.storage.pages import PAGE_BYTES, pack, read_stretch
from kvnet.storage.port import StoreJournal
from kvnet.storage.records import StoredRecord, read_record
from kvnet.storage.requests import Remembered, outcome, remember
from kvnet.storage.state import State, Tally, read_state, read_tallies
from kvnet.storage.successor import VERIFIED_KEY, Successor
from kvnet.storage.verification import Verification, verify

__all__ = ["Compacted", "Durability", "ListedKey", "Store", "StoredRecord", "Verification"]

COLLECT_INTERVAL_S: Final = 60.0
"""How often it is looked for chunks whose time is over."""
REPLAYED_AT_ONCE: Final = 1000
"""Entries of a journal that are applied in one transaction."""


class _View(NamedTuple):
    """What the last commit left, swapped whole: a reader takes it once, and what it takes belongs together."""

    environment: Environment
    begin: Callable[..., lmdb.Transaction[Any]]
    """The environment's; it stays open as long as somebody has this."""
    records: lmdb._Database
    tallies: dict[bytes, Tally]
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
        self._collect_at = 0.0
        self._compaction: Compaction | None = None
        self._bind(folder.replica, Catalogue())
        self.successor: Successor | None = None
        """What is to become the replica, if there is such a thing."""
        self._go_on_with_successor()
        folder.opened()
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

    def _go_on_with_successor(self) -> None:
        """Do with a successor what the process that made it didn't come to."""
        environment = self._folder.successor
        if environment is None:
            return
        try:
            successor = Successor(environment, tracks_expiries=self._tracks_expiries, step=self._step)
        except (ValueError, TypeError, LookupError, struct.error, StorageError):
            successor = None
        if successor is not None and successor.is_ready:
            self._adopt(environment)
        elif successor is not None and successor.progress is not None:
            self.successor = successor
        else:  # it was begun, and no more
            self.abandon_successor()

    def _bind(self, environment: Environment, before: Catalogue) -> None:
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
            except (ProtocolError, ValueError, struct.error, lmdb.Error) as error:
                raise StorageDamaged(f"{environment.path} can't be read: {error}") from error
            self._verified = txn.get(VERIFIED_KEY, db=meta) is not None
            self._erasing_some = txn.stat(environment.database("erasing"))["entries"] > 0
        self._meta = meta
        self._journal = environment.database("journal")
        self._requests = environment.database("requests")
        self._request_times = environment.database("request_times")
        self._erasing = environment.database("erasing")
        gone = {key: None for key in before.items if key not in items}
        self._view = _View(
            environment,
            environment.lmdb.begin,
            environment.database("records"),
            tallies,
            state,
            before.changed({**items, **gone}),
        )

    @property
    def environment(self) -> Environment:
        """The replica's."""
        return self._view.environment

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
        return self._view.tallies

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
        if self.successor is not None and frames:
            assert not requests, "who answers requests has its replica"
            self.successor.append(frames)
            return self.successor.end
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
        if self._compaction is not None:
            self._compaction.note_requests(requests)
        return state.position

    def _batch(self, txn: lmdb.Transaction[bytes]) -> Batch:
        view = self._view
        return Batch(view.environment, txn, view.state, view.tallies, tracks_expiries=self._tracks_expiries)

    def _publish(self, batch: Batch, state: State) -> None:
        view = self._view
        for namespace in batch.removed:
            view.tallies.pop(namespace, None)
        view.tallies.update(batch.tallies)
        self._erasing_some = self._erasing_some or batch.erases
        catalogue = view.catalogue
        if batch.catalogue_changes:
            catalogue = catalogue.changed(batch.catalogue_changes)
        self._view = view._replace(state=state, catalogue=catalogue)

    def erase_some(self, budget: int = 1000) -> bool:
        """Erase up to `budget` records of deleted namespaces, and some chunks that no record names.

        Returns whether more are left. Costs nothing when there are none.
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
        It is another environment: what is wrong with the old one is never looked at again, and readers may finish.

        Raises:
            StorageFull: no room; nothing has changed but that there is no successor.
        """
        self.abandon_successor()
        environment = self._folder.open_unnamed(self._folder.empty_place())
        self._adopt(environment)

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
        environment = self.environment if self.successor is None else self.successor.environment
        with environment.write() as txn:
            chunks.put(txn, environment.chunk_databases, stored)
        if self._compaction is not None:
            self._compaction.note_chunks(name for name, _ in stored)

    def chunk(self, name: bytes, *, checked: bool = True) -> bytes | None:
        """Return a chunk's data; None when it isn't here. Unchecked it is for a peer, who checks it.

        Raises:
            StorageDamaged: it isn't what was written.
        """
        # The successor is asked second, and may be the replica by then: so it is looked up first.
        environment, successor = self.environment, self.successor
        with environment.view() as txn:
            data = chunks.get(txn, environment.chunk_databases, name, checked=checked)
        if data is not None or successor is None:
            return data
        environment = successor.environment
        with environment.view() as txn:
            return chunks.get(txn, environment.chunk_databases, name, checked=checked)

    def lacking_chunks(self, names: Sequence[bytes]) -> list[bytes]:
        """Return those of these chunks that aren't here, each once, in their order.

        What the old replica has the successor is given when it needs it.
        """
        environment, successor = self.environment, self.successor
        with environment.view() as txn:
            missing = chunks.lacking(txn, environment.chunk_databases, names)
        if not missing or successor is None:
            return missing
        environment = successor.environment
        with environment.view() as txn:
            return chunks.lacking(txn, environment.chunk_databases, missing)

    # Pages, and the successor that is made of them.

    def read_page(self, after: bytes, bytes_max: int = PAGE_BYTES) -> Page:
        """Return the records behind a place, in one short read transaction.

        Raises:
            StorageDamaged: one of them isn't what was written.
        """
        environment = self.environment
        meta = environment.database("meta")
        with environment.view() as txn, txn.cursor() as cursor:
            state = read_state(txn, meta)
            stretch = read_stretch(cursor, read_tallies(txn, meta), after, bytes_max)
        digest = state.digest.to_bytes(HASH_BYTES, "big")
        return Page(state.position, digest, after, stretch.until, pack(stretch.groups))

    @property
    def bootstrap(self) -> BootstrapProgress | None:
        """How far the successor is; None when there is none."""
        return None if self.successor is None else self.successor.progress

    def begin_successor(self, position: Position) -> None:
        """Begin an empty replica whose journal begins at this position, in place of one begun before."""
        self.abandon_successor()
        environment = self._folder.begin_successor()
        successor = Successor(environment, tracks_expiries=self._tracks_expiries, step=self._step)
        successor.begin(position)
        self.successor = successor

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
        self._adopt(successor.environment)
        return self.position

    def abandon_successor(self) -> None:
        """Throw the successor away, if there is one; a compaction under way as well."""
        self.successor = self._compaction = None
        self._folder.abandon_successor()

    def _made(self) -> Successor:
        assert self.successor is not None, "begin_successor() comes first"
        return self.successor

    def _copy_chunks(self, names: Sequence[bytes]) -> bool:
        """Copy what the old replica has of these to the successor; return whether that was any."""
        with self.environment.view() as txn:
            data = self.environment.chunk_databases.data
            found = [(name, bytes(held)) for name in names if (held := txn.get(name, db=data)) is not None]
        if found:
            self.put_chunks(found)
        return bool(found)

    def _adopt(self, environment: Environment) -> None:
        """This environment is the replica: durably first, then here, between two reads."""
        self._folder.adopt(environment)
        self.successor = self._compaction = None
        self._bind(environment, self.catalogue)

    # Compaction (compaction.py).

    def begin_compaction(self) -> None:
        """Begin to note what is written; `copy_compacted` comes next. A successor, and `reset`, end it."""
        assert self.successor is None, "a successor has no free pages to speak of"
        self._compaction = Compaction(self._folder.empty_place())

    def copy_compacted(self) -> None:
        """Copy the replica without its free pages; in any thread, beside all else.

        Raises:
            StorageFull: no room; `finish_compaction` then does nothing.
        """
        compaction, environment = self._compaction, self.environment
        if compaction is None:
            return
        try:
            compaction.copy(environment)
        except BaseException:
            self._compaction = None
            raise
        self._step("compaction: copied")

    def finish_compaction(self, bytes_max: int = 1 << 20) -> Compacted | None:
        """Apply some of what was written meanwhile; tell what it came to once the copy is the replica, else None.

        To be called until `is_compacting` is False.

        Raises:
            StorageFull: no room; may be tried again.
            StorageError: the journal doesn't reach back to the copy; the replica is as it was.
        """
        compaction = self._compaction
        if compaction is None:
            return None
        environment = compaction.opened or self._folder.open_unnamed(compaction.place)
        compaction.opened = environment
        try:
            same = compaction.catch_up(
                self.environment, environment, bytes_max, tracks_expiries=self._tracks_expiries
            )
        except BeyondHorizon:
            self._compaction = None
            raise
        self._step("compaction: caught up")
        if not same:
            return None
        before = self.environment.stats()["map_bytes"]
        if self._verified:
            with environment.write() as txn:
                txn.put(VERIFIED_KEY, b"", db=environment.database("meta"))
        self._adopt(environment)
        return Compacted(before, environment.stats()["map_bytes"])

    @property
    def is_compacting(self) -> bool:
        return self._compaction is not None

    # Reads.

    def get(self, namespace: bytes, key: bytes) -> StoredRecord | None:
        """Return the record as it is now, expired or not; None also when the namespace doesn't exist.

        Read as bytes, not as a view: below 64 KiB that is the faster of the two.

        Raises:
            StorageDamaged: it isn't what was written.
        """
        view = self._view
        tally = view.tallies.get(namespace)
        if tally is None:
            return None
        try:
            if len(key) <= SLICE_BYTES:
                # The transaction ends with the expression: nothing else holds it. `with` costs a sixth of a read.
                stored = view.begin(view.records).get(tally.prefix + key)
            else:
                with view.begin(view.records) as txn:
                    place = find_place(txn, tally.prefix, key)
                    stored = None if place is None else txn.get(place)
        except lmdb.Error as error:
            raise translated(error, view.environment.path) from error
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
            view = self._view
            tally = view.tallies.get(namespace)
            if tally is None:
                break
            with view.environment.view() as txn, txn.cursor() as cursor:
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
        view = self._view
        if seq >= view.state.position.seq:
            return []
        with view.environment.view() as txn:
            return journal.frames_after(txn, view.environment.database("journal"), seq, bytes_max)

    def holds(self, position: Position) -> bool:
        """Whether `position` is a frame's end of this store's own history, as far as the journal can prove."""
        view = self._view
        state = view.state
        if position in (state.position, state.horizon):
            return True
        if not state.horizon.seq < position.seq < state.position.seq:
            return False
        with view.environment.view() as txn:
            return journal.ends_at(txn, view.environment.database("journal"), position)

    def end_before(self, seq: int) -> Position | None:
        """Return this history's last frame end at or below `seq`; None where the journal begins later."""
        view = self._view
        if seq >= view.state.position.seq:
            return view.state.position
        if seq < view.state.horizon.seq:
            return None
        with view.environment.view() as txn:
            return journal.last_end(txn, view.environment.database("journal"), seq) or view.state.horizon

    def namespace_digest(self, namespace: bytes) -> int:
        """Return the sum of the hashes of this namespace's records, mod 2**128; 0 if it doesn't exist."""
        tally = self._view.tallies.get(namespace)
        return 0 if tally is None else tally.digest

    def request_outcome(self, request_id: bytes) -> Version | None:
        """Return the version that this request's write got, for ten minutes at least; None if unknown."""
        environment = self.environment
        with environment.view() as txn:
            return outcome(txn, environment.database("requests"), request_id)

    def recompute(self) -> Verification:
        """Compute every hash and digest again from the stored bytes, at one position.

        Takes a microsecond or two per record: not for an event loop.
        """
        return verify(self.environment)

    def stats(self) -> dict[str, Any]:
        """Sizes for people and metrics; `map_bytes` is what the environment's file has taken of the disk."""
        view = self._view
        state, tallies = view.state, view.tallies.copy()
        return {
            "keys": {namespace.hex(): tally.keys for namespace, tally in tallies.items()},
            "bytes": {namespace.hex(): tally.size_bytes for namespace, tally in tallies.items()},
            **view.environment.stats(),
            "journal_frames": state.journal_frames,
            "journal_bytes": state.journal_bytes,
            "horizon_seq": state.horizon.seq,
        }

    def close(self, *, clean: bool = True) -> None:
        """Give the folder back; `clean=False` leaves it as a killed process would."""
        if self._compaction is not None and self._compaction.opened is not None:
            self._compaction.opened.retire()
        self._compaction = None
        self._folder.close(clean=clean)
