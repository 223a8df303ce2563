"""A node of the protocol on a real store, where tests/support/conversation.py has a journal in memory."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvnet.core.events import Applied, BootstrapProgress, Diverged, Event, Started
from kvnet.core.frames import Frame
from kvnet.core.replica import Replica
from kvnet.core.versions import GENESIS, Position
from kvnet.errors import Divergence, ProtocolError
from kvnet.storage.store import Store
from tests.support.conversation import WALL_MS, Conversation
from tests.support.stores import open_store


class StoreJournal:
    """A store as the core's journal; emptied only at the end of a turn, as the driver does it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.emptying = False
        self.emptied = 0
        """How often the core ordered it."""
        self.resets = 0
        """How often it was done; of two orders before one commit the second finds it empty."""

    @property
    def position(self) -> Position:
        return self.store.position

    @property
    def horizon_seq(self) -> int:
        return self.store.horizon_seq

    def frames_after(self, seq: int, bytes_max: int) -> Sequence[Frame]:
        return self.store.frames_after(seq, bytes_max)

    def holds(self, position: Position) -> bool:
        return self.store.holds(position)

    def end_before(self, seq: int) -> Position | None:
        return self.store.end_before(seq)

    @property
    def served(self) -> Position:
        return self.store.position

    @property
    def verified(self) -> bool:
        return self.store.verified

    @property
    def bootstrap(self) -> BootstrapProgress | None:
        return self.store.bootstrap

    def lacking_chunks(self, hashes: Sequence[bytes]) -> list[bytes]:
        return self.store.lacking_chunks(hashes)

    def clear(self) -> None:
        self.emptying = True
        self.emptied += 1

    def settle(self) -> None:
        if self.emptying:
            self.emptying = False
            self.resets += 1
            self.store.reset()


class StoredConversation(Conversation):
    """A node on the store in `folder`, started from whatever lies there."""

    journal: StoreJournal

    def __init__(self, folder: Path, *, journal_bytes_max: int | None = None, seed: int = 1, **more: Any) -> None:
        super().__init__(start=False, **more)
        self.folder = folder
        self.store = open_store(folder, journal_bytes_max=journal_bytes_max)
        self.diverged = 0
        self.journal = StoreJournal(self.store)
        self.stood_at: set[Position] = {GENESIS, self.store.position}
        """Where its store stood in this life."""
        config = self.replica.state.config
        self.replica = Replica(
            config, self.timers, self.journal, self, random.Random(seed), lambda: WALL_MS + self.now
        )
        self.hear(Started())

    def hear(self, event: Event) -> None:
        emptied = self.journal.emptied
        super().hear(event)
        if self.journal.emptied > emptied:
            assert not self.parents, "emptied, and somebody still serves it"
            assert not self.children, "emptied, and it still serves somebody"

    def end_turn(self) -> None:
        """Do what the driver does before anything else can arrive; a slow disk doesn't delay it."""
        self.journal.settle()

    def _commit(self) -> Event:
        """All that waits, in one transaction, or nothing of it."""
        self.journal.settle()
        frames, self.uncommitted = self.uncommitted, []
        try:
            position = self.store.apply(frames) if frames else self.store.position
            self.stood_at.update(frame.position for frame in frames)
            return Applied(position)
        except (Divergence, ProtocolError) as error:
            self.diverged += 1
            return Diverged(str(error))

    def crash(self, *, clean: bool = False) -> None:
        """End here; what was not committed is gone."""
        self.store.close(clean=clean)

    def wipe(self) -> None:
        self.crash()
        shutil.rmtree(self.folder)
