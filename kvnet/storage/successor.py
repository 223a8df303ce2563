"""A replica in the making: pages first, then the frames that came meanwhile, then the proof.

The successor lives in an environment of its own, beside the replica that readers see. Its journal begins at the
lowest position that any page can have, and takes every later frame while the pages come. When all are there,
these frames are applied to what the pages brought: leniently up to the highest position that a page had, since
each record is already as of some position in between; there the digest must be the coordinator's, and from
there on every frame is applied as ever. Whatever is done is done in transactions, so that a killed process goes
on where it was.

    meta/bootstrap    start, until, whole, highest, digest: core.events.BootstrapProgress
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import lmdb
import msgpack

from kvnet.core.catalog import Namespace, read_item
from kvnet.core.entries import HASH_BYTES, KEY_BYTES_MAX, SYSTEM_NAMESPACE, record_hash
from kvnet.core.events import BootstrapProgress
from kvnet.core.frames import Frame
from kvnet.core.messages import Page
from kvnet.core.versions import Position
from kvnet.errors import BeyondHorizon, ChunksMissing, Divergence, PageDamaged, ProtocolError, StorageDamaged
from kvnet.storage import chunks, expiries
from kvnet.storage.batch import Batch
from kvnet.storage.environment import Environment
from kvnet.storage.journal import LmdbJournal
from kvnet.storage.keys import SLICE_BYTES, place
from kvnet.storage.pages import unpack
from kvnet.storage.records import OVERHEAD_BYTES, PLAIN, is_whole, read_hash, read_record, read_replaced
from kvnet.storage.state import STATE_KEY, State, read_state, read_tallies

PROGRESS_KEY: Final = b"bootstrap"
VERIFIED_KEY: Final = b"verified"
CHUNKS_NAMED_MAX: Final = 128
REPLAY_BYTES: Final = 256 * 1024


class Successor:
    """A successor's environment, from the first page to the moment it takes the replica's place."""

    def __init__(self, environment: Environment, *, tracks_expiries: bool, step: Callable[[str], None]) -> None:
        self.environment = environment
        self._tracks_expiries = tracks_expiries
        self._step = step
        with environment.view() as txn:
            self._state = read_state(txn, self._meta)
            self._tallies = read_tallies(txn, self._meta)
            self._proven = txn.get(VERIFIED_KEY, db=self._meta) is not None
            stored = txn.get(PROGRESS_KEY, db=self._meta)
            self.progress = None if stored is None else _unpack_progress(bytes(stored))
            self._end = self._journal(txn).end
        self._chunks_from = b""
        """Whatever records name before this one is here."""

    @property
    def is_ready(self) -> bool:
        """Proven, and nothing came since."""
        return self._proven and self._state.position == self._end

    # Handles are the environment's, and others once it was opened anew.

    @property
    def _meta(self) -> lmdb._Database:
        return self.environment.database("meta")

    def _journal(self, txn: lmdb.Transaction[Any]) -> LmdbJournal:
        return LmdbJournal(txn, self.environment.database("journal"), self._state)

    def begin(self, position: Position) -> None:
        """Nothing is there yet, and the journal begins at this position."""
        progress = BootstrapProgress(position, b"", whole=False, highest=position, digest=bytes(HASH_BYTES))
        state = State(position=position, horizon=position)
        with self.environment.write() as txn:
            txn.put(STATE_KEY, state.pack(), db=self._meta)
            if self._tracks_expiries:
                txn.put(expiries.INDEX_KEY, expiries.COMPLETE, db=self._meta)
            self._put_progress(txn, progress)
            self._step("successor: begun")
        self._state, self.progress, self._end = state, progress, position

    @property
    def keys(self) -> int:
        """How many records it has so far."""
        return sum(tally.keys for tally in self._tallies.copy().values())

    @property
    def begun(self) -> BootstrapProgress:
        assert self.progress is not None, "begin() comes first"
        return self.progress

    # -- pages -----------------------------------------------------------------------------------------------

    def store_page(self, page: Page) -> None:
        """Add the records of the page that comes next.

        Raises:
            PageDamaged: it was altered, doesn't come next, or is older than where the journal begins.
        """
        before = self.begun
        if before.whole or page.after != before.until or page.position.seq < before.start.seq:
            raise PageDamaged("a page that doesn't come next")
        if page.until and page.until <= page.after:
            raise PageDamaged("a page that ends before it begins")
        groups = unpack(page.body)
        newer = page.position.seq > before.highest.seq or not before.until
        progress = BootstrapProgress(
            before.start,
            page.until or before.until,
            whole=not page.until,
            highest=page.position if newer else before.highest,
            digest=page.digest if newer else before.digest,
        )
        with self.environment.write() as txn:
            batch = Batch(self.environment, txn, self._state, self._tallies, tracks_expiries=self._tracks_expiries)
            last = page.after
            for namespace, keys, stored in groups:
                if keys:
                    first, final = namespace + keys[0], namespace + keys[-1]
                    if first <= last or (page.until and final > page.until):
                        raise PageDamaged("a page with records that aren't its own")
                    try:
                        self._store_group(txn, batch, namespace, keys, stored)
                    except (ProtocolError, StorageDamaged) as error:
                        raise PageDamaged(f"a page with a record that can't be read: {error}") from None
                    last = final
            state = batch.finish(self._state)
            self._put_progress(txn, progress)
            self._step("page: stored")
        self._take_over(batch, state)
        self.progress = progress
        self._step("page: committed")

    def _store_group(
        self,
        txn: lmdb.Transaction[bytes],
        batch: Batch,
        namespace: bytes,
        keys: list[bytes],
        stored: list[bytes],
    ) -> None:
        _check_namespace(namespace, keys[0], stored[0])
        if namespace == SYSTEM_NAMESPACE:
            _take_catalogue(batch, keys, stored)
        tally = batch.tally_of(namespace)
        prefix = tally.prefix
        total = size = 0
        before = b""
        places: list[tuple[bytes, bytes]] = []
        layers: list[tuple[bytes, bytes]] = []
        for key, record in zip(keys, stored, strict=True):
            if not is_whole(key, record) or key <= before or len(key) > KEY_BYTES_MAX:
                raise PageDamaged(f"the record of {key[:64]!r} was altered on its way")
            before = key
            total += read_hash(record)
            size += len(key)
            if record[0] == PLAIN:
                size += len(record) - OVERHEAD_BYTES
            else:
                size += self._attach(txn, namespace, key, record)
            if len(key) <= SLICE_BYTES:
                places.append((prefix + key, record))
            else:
                layers.append((key, record))
        _put_in_order(txn, places)
        for key, record in layers:
            place(txn, prefix, key, record, batch.new_layer)
        tally.keys += len(keys)
        tally.size_bytes += size
        tally.digest += total
        batch.add_to_digest(total)

    def _attach(self, txn: lmdb.Transaction[bytes], namespace: bytes, key: bytes, record: bytes) -> int:
        """Index a record's expiry and count its chunks; return the bytes of its metadata and value."""
        told = read_replaced(key, record)
        if told.expires_at and self._tracks_expiries:
            expiries.add(txn, self.environment.database("expiries"), told.expires_at, namespace, key)
        if told.large:
            chunks.refer(txn, self.environment.chunk_databases, told.large, 1)
        return told.size

    # -- the journal, as the protocol sees it ----------------------------------------------------------------

    @property
    def end(self) -> Position:
        """Where its journal ends."""
        return self._end

    @property
    def start(self) -> Position:
        return self.begun.start

    def append(self, frames: Sequence[Frame]) -> None:
        """Keep these frames, which continue the journal, until they can be applied."""
        with self.environment.write() as txn:
            journal = self._journal(txn)
            journal.append(frames)
            state = journal.noted_in(self._state)
            txn.put(STATE_KEY, state.pack(), db=self._meta)
            self._step("tail: appended")
        self._step("tail: committed")
        self._state = state
        self._end = frames[-1].position

    def frames_after(self, seq: int, bytes_max: int) -> list[Frame]:
        """As Store.frames_after."""
        if seq >= self._end.seq:
            return []
        if seq < self.start.seq:
            raise BeyondHorizon(f"the journal begins at {self.start}")
        with self.environment.view() as txn:
            return self._journal(txn).frames_after(seq, bytes_max)

    def end_before(self, seq: int) -> Position | None:
        if seq >= self._end.seq:
            return self._end
        if seq < self.start.seq:
            return None
        with self.environment.view() as txn:
            return self._journal(txn).last_end(seq) or self.start

    # -- the proof -------------------------------------------------------------------------------------------

    def replay_some(self, until: Position, digest: bytes, budget: int) -> bool:
        """Apply up to about `budget` entries of the journal; return whether all is applied and proven.

        Raises:
            Divergence: at `until` it isn't what the coordinator's was, or later.
            ProtocolError: a frame's body can't be read.
            ChunksMissing: chunks that records name aren't here; more may be missing than it tells.
        """
        if self._state.position.seq < self._end.seq:
            self._apply_some(until, budget)
            return False
        if self._state.position.seq < until.seq:
            raise Divergence(f"the journal ends at {self._end}, before {until}")
        if until == self.start and self._state.position == until and self._state.digest != _number(digest):
            raise Divergence(f"the digest at {until} is not its donor's")
        with self.environment.view() as txn:
            dbs = self.environment.chunk_databases
            missing = chunks.referenced_and_lacking(txn, dbs, CHUNKS_NAMED_MAX, self._chunks_from)
        if missing:
            self._chunks_from = missing[0]
            raise ChunksMissing(tuple(missing), 0)
        self._step("replay: done")
        with self.environment.write() as txn:
            txn.delete(PROGRESS_KEY, db=self._meta)
            txn.put(VERIFIED_KEY, b"", db=self._meta)
        self._proven = True
        self._step("replay: verified")
        return True

    def _apply_some(self, until: Position, budget: int) -> None:
        with self.environment.view() as read:
            frames = self._journal(read).frames_after(self._state.position.seq, REPLAY_BYTES)
        with self.environment.write() as txn:
            batch = Batch(self.environment, txn, self._state, self._tallies, tracks_expiries=self._tracks_expiries)
            for frame in frames:
                lenient = frame.last_seq <= until.seq
                if frame.first_seq <= until.seq < frame.last_seq:
                    raise Divergence(f"a page was as of {until}, inside a frame of our history")
                batch.take(frame, lenient=lenient)
                if frame.last_seq == until.seq:
                    self._prove(frame, until, batch.digest)
                budget -= frame.last_seq - frame.first_seq + 1
                if budget <= 0:
                    break
            state = batch.finish(self._state)
            self._step("replay: applied")
        self._take_over(batch, state)
        self._step("replay: committed")

    def _prove(self, frame: Frame, until: Position, digest: int) -> None:
        if frame.position != until:
            raise Divergence(f"a page was as of {until}, and our history has {frame.position} there")
        if digest != _number(frame.digest_after):
            raise Divergence(f"what the pages brought isn't the coordinator's at {until}")

    def _take_over(self, batch: Batch, state: State) -> None:
        for namespace in batch.removed:
            self._tallies.pop(namespace, None)
        self._tallies.update(batch.tallies)
        self._state = state

    def _put_progress(self, txn: lmdb.Transaction[bytes], progress: BootstrapProgress) -> None:
        txn.put(PROGRESS_KEY, _pack_progress(progress), db=self._meta)


def _check_namespace(namespace: bytes, key: bytes, stored: bytes) -> None:
    """A record's checksum doesn't say of which namespace it is; the hash of one tells it for all of a group."""
    record = read_record(key, stored)
    computed = record_hash(
        namespace, key, record.value, record.metadata, record.expires_at, *record.version, large=record.large
    )
    if computed != record.hash:
        raise PageDamaged(f"the record of {key[:64]!r} was altered, or is of another namespace")


def _take_catalogue(batch: Batch, keys: list[bytes], stored: list[bytes]) -> None:
    """Every namespace that it names is known, also one without a key."""
    for key, record in zip(keys, stored, strict=True):
        item = read_item(key, read_record(key, record).value)
        if isinstance(item, Namespace):
            batch.tally_of(item.id)


def _put_in_order(txn: lmdb.Transaction[bytes], places: list[tuple[bytes, bytes]]) -> None:
    """Put records whose keys ascend; behind all others without a search, which fills pages whole."""
    if not places:
        return
    with txn.cursor() as cursor:
        last = cursor.key() if cursor.last() else b""
        cursor.putmulti(places, append=last < places[0][0])


def _pack_progress(progress: BootstrapProgress) -> bytes:
    fields = (*progress.start, progress.until, progress.whole, *progress.highest, progress.digest)
    packed: bytes = msgpack.packb(fields)
    return packed


def _unpack_progress(stored: bytes) -> BootstrapProgress:
    fields = msgpack.unpackb(stored)
    return BootstrapProgress(Position(*fields[0:3]), fields[3], fields[4], Position(*fields[5:8]), fields[8])


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "big")
