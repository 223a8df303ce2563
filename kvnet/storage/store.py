"""One node's replica and journal: what is applied together, read together and proven together.

Readers see the replica. While a successor is in the making (successor.py), frames go to its journal only, and the
protocol sees that journal; the moment it is proven it takes the replica's place, and this object goes on with it.

Threads: what writes (`apply`, pages, replay, `erase_some`, `reset`, compaction's end) belongs to one thread at
a time; everything else may be called from another one meanwhile. What a reader sees in memory may be one commit
behind what it reads from the disk.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Final, Self

import lmdb

from kvnet.core.catalog import TOKEN_PREFIX, read_item
from kvnet.core.entries import SYSTEM_NAMESPACE
from kvnet.core.events import BootstrapProgress
from kvnet.core.frames import Frame
from kvnet.core.messages import Page
from kvnet.core.versions import Position
from kvnet.core.writer import ExpiringRecord
from kvnet.errors import ChunksMissing, Divergence, ProtocolError, StorageDamaged, StorageError, StorageFull
from kvnet.storage import chunks, expiries
from kvnet.storage.batch import Batch
from kvnet.storage.catalogue import Catalogue
from kvnet.storage.compaction import Compacted, Compaction
from kvnet.storage.disk import HOST, Disk
from kvnet.storage.environment import MAP_SIZE_BYTES, Environment, Owner
from kvnet.storage.erasure import erase
from kvnet.storage.expiries import Expiring
from kvnet.storage.faults import translated
from kvnet.storage.folder import DataFolder, Durability
from kvnet.storage.journal import LmdbJournal
from kvnet.storage.keys import walk
from kvnet.storage.listing import ListedKey
from kvnet.storage.port import StoreJournal
from kvnet.storage.reads import Reads, View
from kvnet.storage.records import StoredRecord, read_record
from kvnet.storage.requests import Remembered, remember
from kvnet.storage.retention import KEEP_ALL, Retention
from kvnet.storage.serving import ServingPage
from kvnet.storage.state import State, read_state, read_tallies
from kvnet.storage.successor import VERIFIED_KEY, Successor
from kvnet.storage.verification import Verification

__all__ = ["Compacted", "Durability", "ListedKey", "Store", "StoredRecord", "Verification"]

COLLECT_INTERVAL_S: Final = 60.0
"""How often it is looked for chunks whose time is over."""
REPLAYED_AT_ONCE: Final = 1000
"""Entries of a journal that are applied in one transaction."""


def _no_step(name: str) -> None:
    """Where a test may end the process."""


class Store(Reads):
    """One node's replica and journal in one data folder."""

    def __init__(self, folder: DataFolder, *, retention: Retention, tracks_expiries: bool = False) -> None:
        self._folder = folder
        self._step = folder.step
        self._retention = retention
        self._tracks_expiries = tracks_expiries
        self._collect_at = 0.0
        self._compaction: Compaction | None = None
        self.changes = folder.serving.changes if folder.serving else memoryview(bytearray(8)).cast("Q")
        """One number, raised before and after whatever a reader may see: odd meanwhile (serving.py)."""
        self._bind(folder.replica, Catalogue())
        self.successor: Successor | None = None
        """What is to become the replica, if there is such a thing."""
        self._go_on_with_successor()
        folder.opened()
        self._settle()
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
        retention: Retention = KEEP_ALL,
        journal_bytes_max: int | None = None,
        refillable: bool = False,
        tracks_expiries: bool = False,
        shared: bool = False,
        disk: Disk = HOST,
        step: Callable[[str], None] = _no_step,
    ) -> Self:
        """Open or make the store in `folder`.

        The journal keeps what `retention` says; `journal_bytes_max` is short for one by size alone.

        A `refillable` replica that is damaged is thrown away and begins empty (`discarded` says why); another one
        is refused. A `shared` store may be read by other processes (serving.py).

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
            shared=shared,
            disk=disk,
            step=step,
        )
        if journal_bytes_max is not None:
            retention = retention._replace(bytes_max=journal_bytes_max)
        try:
            try:
                return cls(opened, retention=retention, tracks_expiries=tracks_expiries)
            except StorageDamaged as damage:
                if not refillable:
                    raise
                opened.replica.retire()
                opened.discard_replica(str(damage))
                return cls(opened, retention=retention, tracks_expiries=tracks_expiries)
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
            self._index_mark = bytes(txn.get(expiries.INDEX_KEY, default=b"", db=meta))
        if self._index_mark and not self._tracks_expiries:  # what is written from here on isn't in the index
            with environment.write() as writing:
                writing.delete(expiries.INDEX_KEY, db=meta)
            self._index_mark = b""
        self._meta = meta
        self._journal = environment.database("journal")
        self._requests = environment.database("requests")
        self._request_times = environment.database("request_times")
        self._erasing = environment.database("erasing")
        self._expiries = environment.database("expiries")
        gone = {key: None for key in before.items if key not in items}
        self._view = View(
            environment,
            environment.lmdb.begin,
            environment.database("records"),
            tallies,
            state,
            before.changed({**items, **gone}),
        )

    @property
    def discarded(self) -> str:
        """Why what the folder held had to be deleted at the start; "" if it hadn't."""
        return self._folder.discarded

    @property
    def crash_file(self) -> Path:
        """Where a process that dies of a fatal signal says so: no refillable replica is trusted after that."""
        return self._folder.crash_file

    @property
    def clock_file(self) -> Path:
        """Where a node keeps the time by which it last found records expired (clock_file.py)."""
        return self._folder.clock_file

    @property
    def verified(self) -> bool:
        """Whether this replica has once stood where the network stood; only then may it serve, also when alone."""
        return self._verified

    def mark_verified(self) -> None:
        """Remember, over restarts, that it has; until `reset`."""
        with self.environment.write() as txn:
            txn.put(VERIFIED_KEY, b"", db=self._meta)
        self._verified = True
        self._settle()
        self.look_again()

    # What other processes are told.

    @property
    def serving(self) -> ServingPage | None:
        """The page that tells them; None where nobody else reads."""
        return self._folder.serving

    def _change(self) -> None:
        """What other processes remember of this replica holds no longer, until `_settle`."""
        if self._folder.serving is not None:
            self._folder.serving.begin()

    def _settle(self) -> None:
        if self._folder.serving is not None:
            self._folder.serving.settle(self.environment.path.name, verified=self._verified)

    def _unchanged(self) -> None:
        if self._folder.serving is not None:
            self._folder.serving.end()

    def _refuse(self) -> None:
        """Other processes read this replica no longer."""
        if self._folder.serving is not None:
            self._folder.serving.refuse()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """What readers remember holds no longer; meanwhile they remember nothing."""
        self.changes[0] += 1
        try:
            yield
        finally:
            self.changes[0] += 1

    def look_again(self) -> None:
        """Whether this replica may serve has changed: whoever remembers answers asks anew."""
        with self._changing():
            pass

    # Writes.

    def apply(
        self,
        frames: Sequence[Frame],
        requests: Sequence[Remembered] = (),
        stale: Sequence[ExpiringRecord] = (),
    ) -> Position:
        """Everything in `frames` is in the replica and the journal, in one transaction; return the position.

        While there is a successor they are in its journal, and the position is where that ends. `requests` are
        remembered with them: (request id, version, wall time in ms); `stale` rows are dropped from the index of
        expiries before any of it, since a frame may bring one of them back. After any error nothing has changed,
        neither on the disk nor in memory.

        Raises:
            StorageFull: no room; reads go on.
            Divergence: the replica isn't what the coordinator's was at the same position.
            ProtocolError: a frame's body can't be read.
            ChunksMissing: a large value's chunks aren't here; tells how many frames could be applied without.
        """
        assert frames or requests or stale, "nothing to apply"
        if self.successor is not None and frames:
            assert not requests, "who answers requests has its replica"
            self.successor.append(frames)
            return self.successor.end
        self._step("apply: begin")
        with self._changing():
            try:
                batch, state = self._commit(frames, requests, stale)
            except Divergence:
                self._refuse()
                raise
            except BaseException:
                self._unchanged()
                raise
            self._step("apply: committed")
            self._publish(batch, state)
        if self._compaction is not None:
            self._compaction.note_requests(requests)
        return state.position

    def _commit(
        self, frames: Sequence[Frame], requests: Sequence[Remembered], stale: Sequence[ExpiringRecord]
    ) -> tuple[Batch, State]:
        state = self._view.state
        with self.environment.write() as txn:
            batch = self._batch(txn)
            for row in stale:
                expiries.remove(txn, self._expiries, row.expires_at, row.namespace, row.key)
            if frames:
                for index, frame in enumerate(frames):
                    try:
                        batch.take(frame)
                    except ChunksMissing as missing:
                        raise ChunksMissing(missing.hashes, index) from None
                journal = LmdbJournal(txn, self._journal, state)
                journal.append(frames)
                journal.truncate(self._retention, len(frames))
                state = batch.finish(journal.noted_in(state))
            if requests:
                remember(txn, self._requests, self._request_times, requests)
            if batch.catalogue_changes:
                self._change()
            self._step("apply: written")
        return batch, state

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
        if batch.catalogue_changes and self.serving is not None:
            if any(key.startswith(TOKEN_PREFIX) for key in batch.catalogue_changes):
                self.serving.tokens_changed()
            self.serving.end()

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

    def due(self, now_s: int, limit: int) -> list[Expiring]:
        """Return up to `limit` rows of records whose time has come, the oldest first; empty where none are kept.

        A row may speak of a record that is gone or was written again: such rows go with `apply`'s `stale`.
        """
        view = self._view
        with view.environment.view() as txn:
            return expiries.due(txn, view.environment.database("expiries"), now_s, limit)

    def index_some(self, budget: int = 1000) -> bool:
        """Look at up to `budget` records that may not be in the index of expiries; return whether more are left.

        Costs nothing once all are, and where none is kept.
        """
        if not self._tracks_expiries or self._index_mark == expiries.COMPLETE:
            return False
        view = self._view
        with view.environment.view() as read:
            bite = expiries.find_missing(read, view.tallies, self._index_mark, budget)
        with view.environment.write() as txn:
            for row in bite.rows:
                expiries.add(txn, self._expiries, *row)
            txn.put(expiries.INDEX_KEY, bite.mark, db=self._meta)
        self._index_mark = bite.mark
        return bite.mark != expiries.COMPLETE

    def reset(self) -> None:
        """Replica and journal are empty, as those of a node that was never part of the network; it keeps its name.

        For a replica that can't continue its history: forked, diverged, damaged. A successor is gone as well.
        It is another environment: what is wrong with the old one is never looked at again, and readers may finish.

        Raises:
            StorageFull: no room; nothing has changed but that there is no successor.
        """
        self._refuse()
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
        successor, environment = self.successor, self.environment  # in this order: it may become the replica
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
        successor, environment = self.successor, self.environment
        with environment.view() as txn:
            missing = chunks.lacking(txn, environment.chunk_databases, names)
        if not missing or successor is None:
            return missing
        environment = successor.environment
        with environment.view() as txn:
            return chunks.lacking(txn, environment.chunk_databases, missing)

    # Pages, and the successor that is made of them.

    @property
    def bootstrap(self) -> BootstrapProgress | None:
        """How far the successor is; None when there is none."""
        return None if self.successor is None else self.successor.progress

    @property
    def bootstrap_keys(self) -> int:
        """How many records the successor has; 0 when there is none."""
        return 0 if self.successor is None else self.successor.keys

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

    def sync_successor(self) -> None:
        """What the successor has so far is on the disk; in any thread, so that little of it is left for the swap.

        An unsynced store has nothing to do.
        """
        successor = self.successor
        if successor is None or self._folder.durability is Durability.NONE:
            return
        try:
            successor.environment.sync()
        except StorageError:
            if self.successor is successor:
                raise

    def abandon_successor(self) -> None:
        """Throw the successor away, if there is one; a compaction under way as well."""
        self.successor = None
        self._folder.abandon_successor()
        if self._compaction is not None:
            self._abandon_compaction()

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
        self._change()
        with self._changing():
            try:
                self._folder.adopt(environment)
                self._bind(environment, self.catalogue)
            except BaseException:
                self._unchanged()
                raise
        if self.serving is not None:
            self.serving.tokens_changed()
        self._settle()
        self.successor = self._compaction = None

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
        except (OSError, StorageError) as error:
            if self._compaction is not compaction:  # ended meanwhile
                return
            self._abandon_compaction()
            if isinstance(error, OSError):
                raise translated(error, self._folder.path) from error
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
        try:
            environment = compaction.opened or self._folder.open_unnamed(compaction.place)
            compaction.opened = environment
            same = compaction.catch_up(
                self.environment, environment, bytes_max, tracks_expiries=self._tracks_expiries
            )
        except StorageFull:
            raise
        except (StorageError, ProtocolError):
            self._abandon_compaction()
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

    def _abandon_compaction(self) -> None:
        self._compaction = None
        self._folder.empty_place()

    @property
    def is_compacting(self) -> bool:
        return self._compaction is not None

    def close(self, *, clean: bool = True) -> None:
        """Give the folder back; `clean=False` leaves it as a killed process would."""
        if self._compaction is not None and self._compaction.opened is not None:
            self._compaction.opened.retire()
        self._compaction = None
        self._folder.close(clean=clean)
