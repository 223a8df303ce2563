"""The store as the protocol sees it: the successor's journal while there is one, else the replica's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kvnet.core.events import BootstrapProgress
from kvnet.core.frames import Frame
from kvnet.core.versions import Position
from kvnet.storage.successor import Successor


class JournaledStore(Protocol):
    """`store.Store`, as far as it is known here."""

    @property
    def position(self) -> Position: ...
    @property
    def horizon_seq(self) -> int: ...
    @property
    def verified(self) -> bool: ...
    @property
    def bootstrap(self) -> BootstrapProgress | None: ...
    @property
    def successor(self) -> Successor | None: ...
    def frames_after(self, seq: int, bytes_max: int) -> list[Frame]: ...
    def holds(self, position: Position) -> bool: ...
    def end_before(self, seq: int) -> Position | None: ...
    def lacking_chunks(self, names: Sequence[bytes]) -> list[bytes]: ...


class StoreJournal:
    """core.events.JournalPort on a store."""

    def __init__(self, store: JournaledStore) -> None:
        self._store = store

    @property
    def served(self) -> Position:
        return self._store.position

    @property
    def verified(self) -> bool:
        return self._store.verified

    @property
    def bootstrap(self) -> BootstrapProgress | None:
        return self._store.bootstrap

    @property
    def position(self) -> Position:
        successor = self._store.successor
        return self._store.position if successor is None else successor.end

    @property
    def horizon_seq(self) -> int:
        successor = self._store.successor
        return self._store.horizon_seq if successor is None else successor.start.seq

    def frames_after(self, seq: int, bytes_max: int) -> list[Frame]:
        successor = self._store.successor
        return (self._store if successor is None else successor).frames_after(seq, bytes_max)

    def holds(self, position: Position) -> bool:
        successor = self._store.successor
        if successor is None:
            return self._store.holds(position)
        return successor.end_before(position.seq) == position

    def end_before(self, seq: int) -> Position | None:
        successor = self._store.successor
        return (self._store if successor is None else successor).end_before(seq)

    def lacking_chunks(self, hashes: Sequence[bytes]) -> list[bytes]:
        return self._store.lacking_chunks(hashes)
