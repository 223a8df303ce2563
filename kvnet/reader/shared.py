"""An edge's replica as the store of another process that answers in the edge's name.

A `Replica` (replica.py) is for who reads now and then; this is for who serves. What it gives is never older than
what any process has given from this replica before: a look rests on the page's count of changes, and while a
commit is under way each look is a new one. A task that looks again before it has awaited anything sees the same,
so that what it reads is never older than the position and the staleness it tells.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Final, NamedTuple, cast

import lmdb

from kvnet.core.catalog import Cluster, Namespace, Token, read_item
from kvnet.core.entries import SYSTEM_NAMESPACE
from kvnet.core.freshness import staleness_ms
from kvnet.core.versions import Position
from kvnet.errors import ProtocolError, StorageDamaged, StorageError
from kvnet.reader.folder import ReplicaFolder
from kvnet.reader.opened import Opened
from kvnet.storage import chunks
from kvnet.storage.catalogue import Catalogue
from kvnet.storage.environment import Environment
from kvnet.storage.keys import walk
from kvnet.storage.listing import ListedKey
from kvnet.storage.reads import Reads, View
from kvnet.storage.records import StoredRecord, read_record
from kvnet.storage.serving import WORD, BeaconView
from kvnet.storage.state import State, Tally, read_state, read_tallies
from kvnet.storage.successor import VERIFIED_KEY

SETTLE_S: Final = 1.0
"""How long a look is repeated while the node puts another environment in the place of the one looked at."""
PAUSE_S: Final = 0.002
_NEVER: Final = -1
"""No word and no count of changes: what was found holds for one look."""

_log = logging.getLogger(__name__)


class SharedEnvironment(Environment):
    """An environment that another process writes."""

    def __init__(self, opened: Opened) -> None:
        self.path = opened.path
        self.lmdb = opened.environment
        self._users = 0
        self._users_changed = threading.Condition()
        self._retired = self._reopening = False
        self._databases = {b"meta": opened.meta, b"records": opened.records}
        self.chunk_databases = opened.chunk_databases


class Snapshot(Reads):
    """What was found at one look."""

    def __init__(self, view: View, *, verified: bool) -> None:
        self._view = view
        self.verified = verified
        """Whether the replica has once stood where the network stood."""


class _Known(NamedTuple):
    """What holds as long as the page has this word."""

    word: int
    environment: SharedEnvironment
    tallies: dict[bytes, Tally]
    catalogue: Catalogue
    verified: bool


def _no_transaction(*_: Any, **__: Any) -> lmdb.Transaction[Any]:
    raise StorageError("there is no replica to read")


_NOTHING: Final = Snapshot(
    View(cast("Environment", None), _no_transaction, cast("Any", None), {}, State(), Catalogue()),
    verified=False,
)
"""A replica that can't be read: nobody is let in, since it knows no cluster."""


class SharedStore:
    """The replica in one edge's folder, as `api.backend.StoreView`; for one thread."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the edge's, or the `store` in it.

        Raises:
            StorageError, OSError: it has no serving page.
        """
        self._folder = ReplicaFolder(folder)
        self.page, _ = self._folder.page()
        self.changes = self.page.changes
        self._seen = _NEVER
        """The count of changes at which the snapshot was made."""
        self._snapshot = _NOTHING
        self._known: _Known | None = None
        self._holder: asyncio.Task[Any] | None = None
        """The task that sees the same until it awaits something."""
        self._told: BeaconView | None = None
        """What the page told of beacons when that task looked first."""
        self._problem = ""

    @property
    def is_replaced(self) -> bool:
        """Whether another page is in the place of this one, and this object of no more use."""
        return not self._folder.has_page(self.page)

    def look(self) -> Snapshot:
        """Return what the replica is now."""
        task = _current_task()
        if task is not None and task is self._holder:
            return self._snapshot
        told = None if task is None else self.page.view()
        changes = self.changes[0]
        if changes != self._seen:
            self._snapshot = self._renewed()
            readable = self._snapshot is not _NOTHING
            self._seen = changes if readable and not changes & 1 else _NEVER
        if task is not None:
            self._holder = task
            self._told = told
            task.get_loop().call_soon(self._release)
        return self._snapshot

    def _release(self) -> None:
        self._holder = None

    def _renewed(self) -> Snapshot:
        known = self._known
        if known is not None and known.word == self.page.numbers[WORD]:
            try:
                with known.environment.view() as txn:
                    state = read_state(txn, known.environment.database("meta"))
                    word = self.page.numbers[WORD]
            except StorageError as error:  # no place for another reader, say
                self._report(str(error))
                return _NOTHING
            # Looked at within the transaction: what the word speaks of changes after it, and is read after it.
            if word == known.word:
                return _snapshot(known, state)
        give_up_at = monotonic() + SETTLE_S
        while True:
            trace = self._folder.trace()
            try:
                self._known, state = self._read()
            except (lmdb.Error, OSError, StorageError) as error:
                if self._folder.trace() != trace and monotonic() < give_up_at:
                    time.sleep(PAUSE_S)
                    continue
                self._known = None
                self._report(str(self._folder.told(error)))
                return _NOTHING
            self._report("")
            return _snapshot(self._known, state)

    def _report(self, problem: str) -> None:
        if problem and problem != self._problem:
            _log.warning("%s", problem)
        self._problem = problem

    def _read(self) -> tuple[_Known, State]:
        word = self.page.numbers[WORD]
        mark = self._folder.mark()
        opened = self._folder.open(mark)
        known = self._known
        if known is not None and known.environment.lmdb is opened.environment:
            environment = known.environment
        else:
            environment = SharedEnvironment(opened)
        with environment.view() as txn, txn.cursor() as cursor:
            try:
                state = read_state(txn, opened.meta)
                tallies = read_tallies(txn, opened.meta)
                items = {
                    key: read_item(key, read_record(key, bytes(stored)).value)
                    for key, stored in walk(cursor, tallies[SYSTEM_NAMESPACE].prefix)
                }
            except (ProtocolError, ValueError, struct.error) as error:
                raise StorageDamaged(f"{opened.path} can't be read: {error}") from error
            verified = txn.get(VERIFIED_KEY, db=opened.meta) is not None
        # An odd one says that a change is under way: then the next look reads all of this again.
        holds = not word & 1 and self.page.numbers[WORD] == word
        catalogue = Catalogue().changed(items)
        if known is not None and known.catalogue == catalogue:
            catalogue = known.catalogue
        return _Known(word if holds else _NEVER, environment, tallies, catalogue, verified), state

    # -- of the node -----------------------------------------------------------------------------------------

    @property
    def serves(self) -> bool:
        """Whether the replica may be read: it was verified once, and its node hasn't found it damaged since."""
        return self.look().verified and not self.page.refused

    def now_s(self) -> float:
        """Return replica time, as the node reckons it; it goes on while the node is down."""
        return self.page.now_ms(monotonic() * 1000) / 1000

    def staleness_ms(self) -> float:
        """Return an upper bound on the age of the replica's view."""
        snapshot = self.look()
        task = _current_task()
        view = self.page.view() if task is None else self._told
        return staleness_ms(
            now_ms=monotonic() * 1000,
            wall_ms=time.time() * 1000,
            beacon=None if view is None else view.beacon,
            applied_stamp=snapshot.stamp if view is None else view.stamp,
        )

    # -- api.backend.StoreView -------------------------------------------------------------------------------

    @property
    def position(self) -> Position:
        return self.look().position

    @property
    def view(self) -> View:
        return self.look().view

    @property
    def namespaces(self) -> Mapping[bytes, Namespace]:
        return self.look().namespaces

    @property
    def titles(self) -> Mapping[str, Namespace]:
        return self.look().titles

    @property
    def tokens(self) -> Mapping[bytes, Token]:
        """By sha256 of the token."""
        return self.look().tokens

    @property
    def cluster(self) -> Cluster | None:
        return self.look().cluster

    @property
    def tallies(self) -> Mapping[bytes, Tally]:
        """By namespace; only where their keys lie is as new as all else."""
        return self.look().tallies

    def get(self, namespace: bytes, key: bytes) -> StoredRecord | None:
        return self.look().get(namespace, key)

    def get_many(self, namespace: bytes, keys: Sequence[bytes]) -> list[StoredRecord | None]:
        return self.look().get_many(namespace, keys)

    def list_keys(
        self, namespace: bytes, prefix: bytes, after: bytes | None, limit: int, now_s: int
    ) -> tuple[list[ListedKey], bool]:
        return self.look().list_keys(namespace, prefix, after, limit, now_s)

    def chunk(self, name: bytes) -> bytes | None:
        environment = self.look().environment
        with environment.view() as txn:
            return chunks.get(txn, environment.chunk_databases, name)

    def lacking_chunks(self, names: Sequence[bytes]) -> list[bytes]:
        environment = self.look().environment
        with environment.view() as txn:
            return chunks.lacking(txn, environment.chunk_databases, names)


def _snapshot(known: _Known, state: State) -> Snapshot:
    environment = known.environment
    view = View(
        environment,
        environment.lmdb.begin,
        environment.database("records"),
        known.tallies,
        state,
        known.catalogue,
    )
    return Snapshot(view, verified=known.verified)


def _current_task() -> asyncio.Task[Any] | None:
    """Return the task that runs; None in a callback of the loop, and without one."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
