"""What readers may ask of a store; any thread, at any time.

Every read takes the view once, so that what it reads belongs together though another replica may take this one's
place meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from zlib import crc32

import lmdb

from kvnet.core.catalog import Cluster, Member, Namespace, Token
from kvnet.core.entries import HASH_BYTES
from kvnet.core.frames import Frame
from kvnet.core.messages import Page
from kvnet.core.versions import Position, Version
from kvnet.storage.catalogue import Catalogue
from kvnet.storage.environment import Environment
from kvnet.storage.faults import translated
from kvnet.storage.journal import LmdbJournal
from kvnet.storage.keys import SLICE_BYTES, find
from kvnet.storage.listing import ListedKey, list_some
from kvnet.storage.pages import PAGE_BYTES, pack, read_stretch
from kvnet.storage.records import (
    PLAIN,
    PLAIN_VALUE,
    RESIDUE,
    StoredRecord,
    read_record,
)
from kvnet.storage.requests import outcome
from kvnet.storage.state import State, Tally, read_state, read_tallies
from kvnet.storage.verification import Verification, verify


class View(NamedTuple):
    """What the last commit left, swapped whole: a reader takes it once, and what it takes belongs together."""

    environment: Environment
    begin: Callable[..., lmdb.Transaction[Any]]
    """The environment's; it stays open as long as somebody has this."""
    records: lmdb._Database
    tallies: dict[bytes, Tally]
    state: State
    catalogue: Catalogue

    def journal(self, txn: lmdb.Transaction[memoryview]) -> LmdbJournal:
        return LmdbJournal(txn, self.environment.database("journal"), self.state)


class Reads:
    """The reading part of a store."""

    _view: View

    @property
    def view(self) -> View:
        """What the last commit left, for who takes it apart himself."""
        return self._view

    @property
    def environment(self) -> Environment:
        """The replica's."""
        return self._view.environment

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

    # Reads.

    def get(self, namespace: bytes, key: bytes) -> StoredRecord | None:
        """Return the record as it is now, expired or not; None also when the namespace doesn't exist.

        Read as bytes, not as a view: below 64 KiB that is the faster of the two.

        Raises:
            StorageDamaged: it isn't what was written.
        """
        # Taken apart, which is quicker than three of its names.
        environment, begin, records, tallies, _, _ = self._view
        tally = tallies.get(namespace)
        if tally is None:
            return None
        try:
            # The transaction ends with the expression: nothing else holds it. `with` costs a sixth of a read.
            if len(key) <= SLICE_BYTES:
                stored = begin(records).get(tally.prefix + key)
            else:
                stored = find(begin(records).get, tally.prefix, key)
        except lmdb.Error as error:
            raise translated(error, environment.path) from error
        if stored is None:
            return None
        # What `read_record` does with a record that has neither metadata nor expiry: nearly all, and a call less.
        if crc32(stored, crc32(key)) == RESIDUE and stored[0] == PLAIN:
            return StoredRecord(stored[PLAIN_VALUE], b"", 0, stored)
        return read_record(key, stored)

    def get_many(self, namespace: bytes, keys: Sequence[bytes]) -> list[StoredRecord | None]:
        """Return the record of each key, all as of one commit; otherwise as `get`.

        Raises:
            StorageDamaged: one isn't what was written.
        """
        environment, begin, records, tallies, _, _ = self._view
        tally = tallies.get(namespace)
        if tally is None:
            return [None] * len(keys)
        prefix = tally.prefix
        try:
            with begin(records) as txn:
                get = txn.get
                held = [get(prefix + key) if len(key) <= SLICE_BYTES else find(get, prefix, key) for key in keys]
        except lmdb.Error as error:
            raise translated(error, environment.path) from error
        # As in `get`: a record that has neither metadata nor expiry takes no call.
        return [
            None
            if stored is None
            else StoredRecord(stored[PLAIN_VALUE], b"", 0, stored)
            if crc32(stored, crc32(key)) == RESIDUE and stored[0] == PLAIN
            else read_record(key, stored)
            for key, stored in zip(keys, held, strict=True)
        ]

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
            return view.journal(txn).frames_after(seq, bytes_max)

    def holds(self, position: Position) -> bool:
        """Whether `position` is a frame's end of this store's own history, as far as the journal can prove."""
        view = self._view
        state = view.state
        if position in (state.position, state.horizon):
            return True
        if not state.horizon.seq < position.seq < state.position.seq:
            return False
        with view.environment.view() as txn:
            return view.journal(txn).ends_at(position)

    def end_before(self, seq: int) -> Position | None:
        """Return this history's last frame end at or below `seq`; None where the journal begins later."""
        view = self._view
        if seq >= view.state.position.seq:
            return view.state.position
        if seq < view.state.horizon.seq:
            return None
        with view.environment.view() as txn:
            return view.journal(txn).last_end(seq) or view.state.horizon

    def digest_at(self, seq: int) -> tuple[Position, int] | None:
        """Return position and digest where a frame ends at `seq`; None if the journal can't tell."""
        view = self._view
        if seq == view.state.position.seq:
            return view.state.position, view.state.digest
        with view.environment.view() as txn:
            frame = view.journal(txn).frame_that_ends_at(seq)
        return None if frame is None else (frame.position, int.from_bytes(frame.digest_after, "big"))

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
