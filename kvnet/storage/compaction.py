"""Compaction: a copy of the replica without its free pages takes the replica's place.

LMDB gives no page back to the disk. The copy is made by a thread of its own from one read transaction, while the
replica goes on; what was written meanwhile is then applied to the copy in bites, and the last one swaps them. The
mark doesn't name the copy before that, so a killed process leaves the replica as it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from kvnet.core.frames import Frame
from kvnet.storage import chunks
from kvnet.storage.batch import Batch
from kvnet.storage.environment import Environment
from kvnet.storage.journal import LmdbJournal
from kvnet.storage.requests import Remembered, remember
from kvnet.storage.state import read_state, read_tallies

CHUNKS_AT_ONCE: Final = 64


class Compacted(NamedTuple):
    """What a compaction came to, in bytes of the disk."""

    before: int
    after: int


class Compaction:
    """A copy on its way, and what the replica was given meanwhile beside frames."""

    def __init__(self, place: Path) -> None:
        self.place = place
        """Where the copy is put."""
        self.opened: Environment | None = None
        """The copy, once it is there."""
        self._requests: list[Remembered] = []
        self._chunks: dict[bytes, None] = {}

    def note_requests(self, requests: Iterable[Remembered]) -> None:
        self._requests.extend(requests)

    def note_chunks(self, names: Iterable[bytes]) -> None:
        self._chunks.update(dict.fromkeys(names))

    def copy(self, source: Environment) -> None:
        """Write the copy; in any thread, while the replica is written to."""
        self.place.mkdir(mode=0o700)
        source.copy_to(self.place)

    def catch_up(self, source: Environment, copy: Environment, bytes_max: int, *, tracks_expiries: bool) -> bool:
        """Bring the copy nearer to its source; return whether they hold the same.

        Raises:
            BeyondHorizon: the journal is shorter than what was written since the copy.
        """
        if self._chunks:
            self._copy_chunks(source, copy)
            return False
        meta = copy.database("meta")
        with copy.view() as read:
            state, tallies = read_state(read, meta), read_tallies(read, meta)
        with source.view() as read:
            theirs = read_state(read, source.database("meta"))
            frames: list[Frame] = []
            if state.position.seq < theirs.position.seq:
                journal = LmdbJournal(read, source.database("journal"), theirs)
                frames = journal.frames_after(state.position.seq, bytes_max)
        if not frames and not self._requests:
            return True
        with copy.write() as txn:
            if frames:
                batch = Batch(copy, txn, state, tallies, tracks_expiries=tracks_expiries)
                for frame in frames:
                    batch.take(frame)
                journal = LmdbJournal(txn, copy.database("journal"), state)
                journal.append(frames)
                batch.finish(journal.noted_in(state))
            if self._requests:
                remember(txn, copy.database("requests"), copy.database("request_times"), self._requests)
        self._requests.clear()
        return False

    def _copy_chunks(self, source: Environment, copy: Environment) -> None:
        names = list(islice(self._chunks, CHUNKS_AT_ONCE))
        with source.view() as read:
            db = source.chunk_databases.data
            found = [(name, bytes(data)) for name in names if (data := read.get(name, db=db)) is not None]
        with copy.write() as txn:
            chunks.put(txn, copy.chunk_databases, found)
        for name in names:
            del self._chunks[name]
