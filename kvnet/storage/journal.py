"""The journal: frames by their first seq, in the environment and transaction of the records they changed.

Stored as `chain after 16 ‖ frame`, so that a frame read back for a neighbour isn't hashed again. What lies here
is contiguous from the horizon to the position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import lmdb

from kvnet.core.frames import Frame, read_frame
from kvnet.core.versions import CHAIN_BYTES, Position
from kvnet.errors import BeyondHorizon
from kvnet.storage.state import State

DROPPED_AT_ONCE_MAX: Final = 512
"""Frames a single commit drops at most, on top of two for each it appends."""


def append(txn: lmdb.Transaction[bytes], db: lmdb._Database, frames: Sequence[Frame], state: State) -> State:
    """Store `frames` behind the last; return `state` with the journal's new size."""
    added = 0
    with txn.cursor(db) as cursor:
        for frame in frames:
            data = frame.data
            stored = cursor.put(_key(frame.first_seq), frame.chain_after + data, append=True)
            assert stored, "a frame before the journal's last"
            added += len(data)
    return state._replace(
        journal_frames=state.journal_frames + len(frames), journal_bytes=state.journal_bytes + added
    )


def drop_oldest(
    txn: lmdb.Transaction[bytes], db: lmdb._Database, state: State, *, bytes_max: int, appended: int
) -> State:
    """Drop the oldest frames of a journal over `bytes_max`; return `state` with its new horizon.

    It starts an eighth above the limit and goes down to it: a few hundred neighbours at a time dirty far fewer
    pages than one per commit. The work of one commit is bounded, and the last frame always stays.
    """
    if state.journal_bytes <= bytes_max + bytes_max // 8:
        return state
    horizon, count, size = state.horizon, state.journal_frames, state.journal_bytes
    budget = DROPPED_AT_ONCE_MAX + 2 * appended
    with txn.cursor(db) as cursor:
        cursor.first()
        while size > bytes_max and count > 1 and budget > 0:
            frame = _read(memoryview(cursor.value()))
            cursor.delete()
            horizon, count, size, budget = frame.position, count - 1, size - len(frame.data), budget - 1
    return state._replace(horizon=horizon, journal_frames=count, journal_bytes=size)


def frames_after(txn: lmdb.Transaction[memoryview], db: lmdb._Database, seq: int, bytes_max: int) -> list[Frame]:
    """Return the frames from `seq` + 1 on, oldest first: at least one, then as many as fit `bytes_max`.

    Raises:
        BeyondHorizon: no frame starts there.
    """
    frames: list[Frame] = []
    size = 0
    with txn.cursor(db) as cursor:
        if not cursor.set_key(_key(seq + 1)):
            raise BeyondHorizon(f"no frame in the journal starts at {seq + 1}")
        for stored in cursor.iternext(keys=False):
            size += len(stored) - CHAIN_BYTES
            if frames and size > bytes_max:
                break
            frames.append(_read(stored))
    return frames


def ends_at(txn: lmdb.Transaction[memoryview], db: lmdb._Database, position: Position) -> bool:
    """Whether a frame stored here ends exactly at `position`."""
    with txn.cursor(db) as cursor:
        found = cursor.prev() if cursor.set_range(_key(position.seq + 1)) else cursor.last()
        return found and _read(cursor.value()).position == position


def last_end(txn: lmdb.Transaction[memoryview], db: lmdb._Database, seq: int) -> Position | None:
    """Return the last frame's end at or below `seq`; None if no frame stored here ends there."""
    with txn.cursor(db) as cursor:
        found = cursor.prev() if cursor.set_range(_key(seq + 1)) else cursor.last()
        while found:
            position = _read(cursor.value()).position
            if position.seq <= seq:
                return position
            found = cursor.prev()
    return None


def last_position(txn: lmdb.Transaction[memoryview], db: lmdb._Database) -> Position | None:
    """Return where the last frame stored here ends; None if there is none."""
    with txn.cursor(db) as cursor:
        return _read(cursor.value()).position if cursor.last() else None


def _read(stored: memoryview) -> Frame:
    return read_frame(bytes(stored[CHAIN_BYTES:]), chain_after=bytes(stored[:CHAIN_BYTES]))


def _key(first_seq: int) -> bytes:
    return first_seq.to_bytes(8, "big")
