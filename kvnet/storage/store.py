"""One node's replica and journal: what is applied together, read together and proven together.

Threads: `apply`, `erase_some` and `reset` belong to one thread at a time; everything else may be called from
another one meanwhile. What a reader sees in memory may be one commit behind what it reads from the disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import lmdb

from kvnet.core.catalog import Cluster, Member, Namespace, Token, read_item
from kvnet.core.entries import SYSTEM_NAMESPACE
from kvnet.core.frames import Frame
from kvnet.core.versions import Position, Version
from kvnet.storage import journal
from kvnet.storage.batch import Batch
from kvnet.storage.catalogue import Catalogue
from kvnet.storage.environment import MAP_SIZE_BYTES, Durability, Environment, translated
from kvnet.storage.erasure import erase
from kvnet.storage.keys import SLICE_BYTES, find_place, root_prefix, walk
from kvnet.storage.listing import ListedKey, list_some
from kvnet.storage.records import StoredRecord, read_record
from kvnet.storage.requests import Remembered, outcome, remember
from kvnet.storage.state import STATE_KEY, State, Tally, read_state, read_tallies, tally_key
from kvnet.storage.verification import Verification, verify

__all__ = ["Durability", "ListedKey", "Store", "StoredRecord", "Verification"]

_VERIFIED_KEY: Final = b"verified"


class _View(NamedTuple):
    """What the last commit left, swapped whole."""

    state: State
    catalogue: Catalogue


class Store:
    """One node's replica and journal in one LMDB environment."""

    def __init__(self, environment: Environment, *, journal_bytes_max: int | None) -> None:
        self._environment = environment
        self._journal_bytes_max = journal_bytes_max
        self._meta = environment.database("meta")
        self._records = environment.database("records")
        self._journal = environment.database("journal")
        self._requests = environment.database("requests")
        self._request_times = environment.database("request_times")
        self._erasing = environment.database("erasing")
        self._begin = environment.lmdb.begin
        self._view = _View(State(), Catalogue())
        self._tallies: dict[bytes, Tally] = {}
        self._erasing_some = False
        self._load()

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
    ) -> Self:
        """Open or make the store in `folder`; `journal_bytes_max` None keeps every frame.

        Raises:
            ForeignEnvironment: the folder holds another cluster's, another node's or a newer format's data.
            StorageError: another process holds it, or it can't be read or written.
        """
        environment = Environment(
            folder, node=node, cluster_id=cluster_id, durability=durability, map_size_bytes=map_size_bytes
        )
        try:
            return cls(environment, journal_bytes_max=journal_bytes_max)
        except BaseException:
            environment.close(clean=False)
            raise

    def _load(self) -> None:
        with self._environment.view() as txn:
            state = read_state(txn, self._meta)
            self._verified = txn.get(_VERIFIED_KEY, db=self._meta) is not None
            tallies = read_tallies(txn, self._meta)
            self._erasing_some = txn.stat(self._erasing)["entries"] > 0
            with txn.cursor() as cursor:
                system = walk(cursor, tallies[SYSTEM_NAMESPACE].prefix)
                items = {key: read_item(key, read_record(bytes(stored)).value) for key, stored in system}
        self._tallies = tallies
        self._view = _View(state, self.catalogue.changed(items))

    @property
    def discarded(self) -> bool:
        """Whether what the folder held had to be deleted unopened: the machine went down without a clean stop."""
        return self._environment.discarded

    @property
    def verified(self) -> bool:
        """Whether this replica has once stood where the network stood; only then may it serve, also when alone."""
        return self._verified

    def mark_verified(self) -> None:
        """Remember, over restarts, that it has; until `reset`."""
        with self._environment.write() as txn:
            txn.put(_VERIFIED_KEY, b"", db=self._meta)
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

        `requests` are remembered with them: (request id, version, wall time in ms). After any error nothing
        has changed, neither on the disk nor in memory.

        Raises:
            StorageFull: no room; reads go on.
            Divergence: the replica isn't what the coordinator's was at the same position.
            ProtocolError: a frame's body can't be read.
        """
        assert frames or requests, "nothing to apply"
        view = self._view
        with self._environment.write() as txn:
            batch = Batch(self._environment, txn, view.state, self._tallies)
            state = view.state
            if frames:
                for frame in frames:
                    batch.take(frame)
                state = journal.append(txn, self._journal, frames, state)
                if self._journal_bytes_max is not None:
                    state = journal.drop_oldest(
                        txn, self._journal, state, bytes_max=self._journal_bytes_max, appended=len(frames)
                    )
                state = batch.finish(state)
            if requests:
                remember(txn, self._requests, self._request_times, requests)
        self._publish(batch, state)
        return state.position

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
        """Erase up to `budget` records of deleted namespaces; return whether more are left.

        Costs nothing when there are none.
        """
        if not self._erasing_some:
            return False
        with self._environment.write() as txn:
            left = erase(txn, self._erasing, budget)
        self._erasing_some = left
        return left

    def reset(self) -> None:
        """Replica and journal are empty, as those of a node that was never part of the network; it keeps its name.

        For a replica that can't continue its history: forked, diverged.
        """
        state = self._view.state
        empty = State(next_layer=state.next_layer, next_number=state.next_number)
        with self._environment.write() as txn:
            for db in (self._records, self._journal, self._requests, self._request_times, self._erasing):
                txn.drop(db, delete=False)
            for namespace in self._tallies:
                txn.delete(tally_key(namespace), db=self._meta)
            txn.delete(_VERIFIED_KEY, db=self._meta)
            txn.put(STATE_KEY, empty.pack(), db=self._meta)
        self._verified = False
        self._tallies = {SYSTEM_NAMESPACE: Tally(root_prefix(0))}
        self._erasing_some = False
        catalogue = self.catalogue.changed(dict.fromkeys(self.catalogue.items))
        self._view = _View(empty, catalogue)

    # Reads.

    def get(self, namespace: bytes, key: bytes) -> StoredRecord | None:
        """Return the record as it is now, expired or not; None also when the namespace doesn't exist.

        Read as bytes, not as a view: below 64 KiB that is the faster of the two.
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
            raise translated(error, self._environment.folder) from error
        return None if stored is None else read_record(stored)

    def list_keys(
        self, namespace: bytes, prefix: bytes, after: bytes | None, limit: int, now_s: int
    ) -> tuple[list[ListedKey], bool]:
        """Return up to `limit` unexpired keys that start with `prefix`, in byte order, and whether more follow.

        `after` is the last key of the listing that this one continues. A listing longer than LISTED_AT_ONCE
        records (listing.py) is read in several transactions, so it is not of one position.
        """
        listed: list[ListedKey] = []
        start: bytes | None = prefix if after is None or after < prefix else after + b"\0"
        while start is not None and len(listed) <= limit:
            tally = self._tallies.get(namespace)
            if tally is None:
                break
            with self._environment.view() as txn, txn.cursor() as cursor:
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
        with self._environment.view() as txn:
            return journal.frames_after(txn, self._journal, seq, bytes_max)

    def holds(self, position: Position) -> bool:
        """Whether `position` is a frame's end of this store's own history, as far as the journal can prove."""
        state = self._view.state
        if position in (state.position, state.horizon):
            return True
        if not state.horizon.seq < position.seq < state.position.seq:
            return False
        with self._environment.view() as txn:
            return journal.ends_at(txn, self._journal, position)

    def end_before(self, seq: int) -> Position | None:
        """Return this history's last frame end at or below `seq`; None where the journal begins later."""
        state = self._view.state
        if seq >= state.position.seq:
            return state.position
        if seq < state.horizon.seq:
            return None
        with self._environment.view() as txn:
            return journal.last_end(txn, self._journal, seq) or state.horizon

    def namespace_digest(self, namespace: bytes) -> int:
        """Return the sum of the hashes of this namespace's records, mod 2**128; 0 if it doesn't exist."""
        tally = self._tallies.get(namespace)
        return 0 if tally is None else tally.digest

    def request_outcome(self, request_id: bytes) -> Version | None:
        """Return the version that this request's write got, for ten minutes at least; None if unknown."""
        with self._environment.view() as txn:
            return outcome(txn, self._requests, request_id)

    def recompute(self) -> Verification:
        """Compute every hash and digest again from the stored bytes, at one position.

        Takes a microsecond or two per record: not for an event loop.
        """
        return verify(self._environment)

    def stats(self) -> dict[str, Any]:
        """Sizes for people and metrics; `map_bytes` is what the environment's file has taken of the disk."""
        state = self._view.state
        info = self._environment.lmdb.info()
        page_bytes = self._environment.lmdb.stat()["psize"]
        return {
            "keys": {namespace.hex(): tally.keys for namespace, tally in self._tallies.copy().items()},
            "map_bytes": (info["last_pgno"] + 1) * page_bytes,
            "journal_frames": state.journal_frames,
            "journal_bytes": state.journal_bytes,
            "horizon_seq": state.horizon.seq,
        }

    def close(self, *, clean: bool = True) -> None:
        """Give the folder back; `clean=False` leaves it as a killed process would."""
        self._environment.close(clean=clean)
