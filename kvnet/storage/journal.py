"""The journal: every frame from a horizon to an end, contiguous, in the order of their seqs.

`Journal` is all that a store wants of it. `LmdbJournal` keeps it in the environment of the records, as seen by one
transaction, so that frames and what they change are durable together.

A database server can be the second engine. What it takes over is the fence: its `append` is one statement of its
own that inserts the frames only where the newest row has their chain and no higher epoch, committed there before
the records follow in LMDB. So of two coordinators that both believe to be the one, the first to append with the
higher epoch ends the other, on whatever machines they run. After a crash between the two commits the journal is
ahead of the records, and `frames_after` the records' position is what they lack; the other way round can't happen.

    journal      first seq u64 -> chain after 16 ‖ frame

The chain is stored, so that a frame read back for a neighbour isn't hashed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import lmdb

from kvnet.core.clock import stamp_ms
from kvnet.core.frames import Frame, read_frame
from kvnet.core.versions import CHAIN_BYTES, Position
from kvnet.errors import BeyondHorizon, Fenced, ProtocolError, StorageDamaged
from kvnet.storage.retention import Retention
from kvnet.storage.state import State

DROPPED_AT_ONCE_MAX: Final = 512
"""Frames a single commit drops at most, on top of two for each it appends."""


class Journal(Protocol):
    """Frames from `horizon` to `end`."""

    @property
    def horizon(self) -> Position:
        """Where the first frame starts."""

    @property
    def end(self) -> Position:
        """Where the last frame leads; the horizon of an empty journal."""

    def append(self, frames: Sequence[Frame]) -> None:
        """These frames, which continue each other, are behind the last.

        Raises:
            Fenced: they don't continue the journal, or are of an epoch that is over; nothing was appended.
        """

    def truncate(self, retention: Retention, appended: int) -> None:
        """Drop the oldest frames, a bounded number: some more than `appended`, so that it gets ahead."""

    def frames_after(self, seq: int, bytes_max: int) -> list[Frame]:
        """Return the frames from `seq` + 1 on, oldest first: at least one, then as many as fit `bytes_max`.

        Raises:
            BeyondHorizon: no frame starts there.
        """

    def ends_at(self, position: Position) -> bool:
        """Whether a frame stored here ends exactly at `position`."""

    def last_end(self, seq: int) -> Position | None:
        """Return the last frame's end at or below `seq`; None if no frame stored here ends there."""

    def frame_that_ends_at(self, seq: int) -> Frame | None:
        """Return the frame whose last entry is `seq`, if it is stored here."""


class LmdbJournal:
    """The journal of one environment, through one transaction; a `Journal`."""

    def __init__(self, txn: lmdb.Transaction[Any], db: lmdb._Database, state: State) -> None:
        """`state` is what the environment says of itself in this transaction."""
        self._txn = txn
        self._db = db
        self._horizon = state.horizon
        self._frames = state.journal_frames
        self._bytes = state.journal_bytes

    def noted_in(self, state: State) -> State:
        """Return `state` with what has become of the journal: to be stored by the transaction that changed it."""
        return state._replace(horizon=self._horizon, journal_frames=self._frames, journal_bytes=self._bytes)

    @property
    def horizon(self) -> Position:
        return self._horizon

    @property
    def end(self) -> Position:
        with self._txn.cursor(self._db) as cursor:
            return _read(cursor.value()).position if cursor.last() else self._horizon

    def append(self, frames: Sequence[Frame]) -> None:
        """As Journal.append: the whole transaction must be dropped when it raises."""
        end = self.end
        for frame in frames:
            if frame.epoch < end.epoch:
                raise Fenced(f"a frame of epoch {frame.epoch}, which ended when epoch {end.epoch} began")
            if frame.first_seq != end.seq + 1 or frame.chain_before != end.chain:
                raise Fenced(f"frame {frame.first_seq} doesn't continue the journal, which ends at {end}")
            end = frame.position
        with self._txn.cursor(self._db) as cursor:
            for frame in frames:
                cursor.put(_key(frame.first_seq), frame.chain_after + frame.data, append=True)
                self._frames += 1
                self._bytes += len(frame.data)

    def truncate(self, retention: Retention, appended: int) -> None:
        budget = DROPPED_AT_ONCE_MAX + 2 * appended
        with self._txn.cursor(self._db) as cursor:
            if not self._is_over(cursor, retention):
                return
            oldest_ms = _kept_since(cursor, retention.age_ms)
            found = cursor.first()
            while found and self._frames > 1 and budget:
                frame = _read(cursor.value())
                too_large = retention.bytes_max is not None and self._bytes > retention.bytes_max
                if not (too_large or stamp_ms(frame.stamp) < oldest_ms):
                    break
                found = cursor.delete()
                budget -= 1
                self._horizon = frame.position
                self._frames -= 1
                self._bytes -= len(frame.data)

    def _is_over(self, cursor: lmdb.Cursor[Any], retention: Retention) -> bool:
        """Whether it is so much over its limits that dropping begins."""
        bytes_max, age_ms = retention
        if bytes_max is not None and self._bytes > bytes_max + bytes_max // 8:
            return True
        if age_ms is None or not cursor.first():
            return False
        return stamp_ms(_read(cursor.value()).stamp) < _kept_since(cursor, age_ms + age_ms // 8)

    def frames_after(self, seq: int, bytes_max: int) -> list[Frame]:
        frames: list[Frame] = []
        size = 0
        with self._txn.cursor(self._db) as cursor:
            if not cursor.set_key(_key(seq + 1)):
                raise BeyondHorizon(f"no frame in the journal starts at {seq + 1}")
            for stored in cursor.iternext(keys=False):
                size += len(stored) - CHAIN_BYTES
                if frames and size > bytes_max:
                    break
                frames.append(_read(stored))
        return frames

    def ends_at(self, position: Position) -> bool:
        with self._txn.cursor(self._db) as cursor:
            return _seek_before(cursor, position.seq + 1) and _read(cursor.value()).position == position

    def last_end(self, seq: int) -> Position | None:
        with self._txn.cursor(self._db) as cursor:
            found = _seek_before(cursor, seq + 1)
            while found:
                position = _read(cursor.value()).position
                if position.seq <= seq:
                    return position
                found = cursor.prev()
        return None

    def frame_that_ends_at(self, seq: int) -> Frame | None:
        with self._txn.cursor(self._db) as cursor:
            frame = _read(cursor.value()) if _seek_before(cursor, seq + 1) else None
        return frame if frame is not None and frame.last_seq == seq else None


def _seek_before(cursor: lmdb.Cursor[Any], seq: int) -> bool:
    """Stand at the last frame that starts before `seq`; return whether there is one."""
    return cursor.prev() if cursor.set_range(_key(seq)) else cursor.last()


def _kept_since(cursor: lmdb.Cursor[Any], age_ms: int | None) -> int:
    """Return the time from which on frames are kept, in milliseconds since 1970, beside the newest frame's."""
    if age_ms is None or not cursor.last():
        return 0
    return stamp_ms(_read(cursor.value()).stamp) - age_ms


def _read(stored: bytes | memoryview) -> Frame:
    """Return a frame of the journal, which was one when it was written.

    Raises:
        StorageDamaged: it isn't any more.
    """
    try:
        return read_frame(bytes(stored[CHAIN_BYTES:]), chain_after=bytes(stored[:CHAIN_BYTES]))
    except ProtocolError as error:
        raise StorageDamaged(f"a frame of the journal can't be read: {error}") from error


def _key(first_seq: int) -> bytes:
    return first_seq.to_bytes(8, "big")
