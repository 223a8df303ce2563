"""The journal by itself: its fence, what it drops, and what it says of itself."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from kvnet.core.versions import CHAIN_BYTES, GENESIS
from kvnet.errors import BeyondHorizon, Fenced, StorageDamaged
from kvnet.storage.disk import HOST
from kvnet.storage.environment import Environment, Owner
from kvnet.storage.journal import Journal, LmdbJournal
from kvnet.storage.retention import KEEP_ALL, Retention
from kvnet.storage.state import State
from tests.support.frames import FrameMaker
from tests.support.stores import open_store

HOUR_MS = 3_600_000


class Kept:
    """A journal in an environment of its own, between transactions."""

    def __init__(self, path):
        path.mkdir()
        owner = Owner("cluster", "node")
        self.environment = Environment(path, owner, synced=False, map_size_bytes=1 << 30, disk=HOST)
        self.state = State()

    @contextmanager
    def open(self):
        with self.environment.write() as txn:
            lmdb_journal = LmdbJournal(txn, self.environment.database("journal"), self.state)
            journal: Journal = lmdb_journal
            yield journal
            state = lmdb_journal.noted_in(self.state)
        self.state = state

    def append(self, frames, retention=KEEP_ALL):
        with self.open() as journal:
            journal.append(frames)
            journal.truncate(retention, len(frames))

    @property
    def frames(self):
        with self.open() as journal:
            horizon = journal.horizon
            return [] if journal.end == horizon else journal.frames_after(horizon.seq, 1 << 30)


def test_a_frame_that_is_none_any_more_is_damage(kept):
    maker = FrameMaker()
    maker.open_epoch()
    frames = frames_of(maker, 3)
    kept.append(frames)
    with kept.environment.write() as txn, txn.cursor(kept.environment.database("journal")) as cursor:
        assert cursor.last()
        cursor.put(cursor.key(), cursor.value()[: CHAIN_BYTES + 10])
    with kept.open() as journal, pytest.raises(StorageDamaged, match="a frame of the journal can't be read"):
        journal.frames_after(frames[0].last_seq, 1 << 30)


@pytest.fixture
def kept(tmp_path):
    kept = Kept(tmp_path / "env")
    yield kept
    kept.environment.retire()


def frames_of(maker, count, *, every_ms=0, size=100):
    namespace = maker.create_namespace("a")
    for number in range(count):
        maker.put(namespace, b"%d" % number, b"v" * size)
        maker.stamp += every_ms << 16
        maker.cut()
    return maker.frames


def test_an_empty_journal_ends_where_it_begins(kept):
    with kept.open() as journal:
        assert (journal.horizon, journal.end) == (GENESIS, GENESIS)
        assert journal.last_end(5) is None
        assert not journal.ends_at(GENESIS)
        with pytest.raises(BeyondHorizon):
            journal.frames_after(0, 1 << 20)


def test_frames_are_kept_in_order_and_found_by_where_they_end(kept, maker):
    frames = frames_of(maker, 10)
    kept.append(frames[:4])
    kept.append(frames[4:])
    assert kept.frames == frames
    with kept.open() as journal:
        assert journal.end == frames[-1].position
        for frame in frames:
            assert journal.ends_at(frame.position)
            assert not journal.ends_at(frame.position._replace(chain=bytes(16)))
            assert journal.frame_that_ends_at(frame.last_seq) == frame
            assert journal.last_end(frame.last_seq) == frame.position
        assert journal.last_end(1 << 40) == frames[-1].position
    assert kept.state.journal_frames == len(frames)
    assert kept.state.journal_bytes == sum(len(frame.data) for frame in frames)


def test_the_fence_keeps_out_an_epoch_that_is_over(kept, maker):
    """Two that believe to be the coordinator: the higher epoch's first append ends the other."""
    frames = frames_of(maker, 3)
    kept.append(frames[:-1])
    other = FrameMaker(epoch=2)
    other.position = frames[-2].position
    other.open_epoch()
    kept.append([other.cut()])
    before = kept.frames
    with pytest.raises(Fenced, match="epoch 1, which ended when epoch 2 began"):
        kept.append(frames[-1:])
    assert kept.frames == before


@pytest.mark.parametrize("skipped", [1, 2])
def test_the_fence_keeps_out_what_leaves_a_gap_or_comes_twice(kept, maker, skipped):
    frames = frames_of(maker, 6)
    kept.append(frames[:3])
    for wrong in (frames[3 + skipped :], frames[3 - skipped :], [frames[3], frames[5]]):
        with pytest.raises(Fenced, match="doesn't continue"):
            kept.append(wrong)
        assert kept.frames == frames[:3]
        assert kept.state.journal_frames == 3


def test_the_fence_keeps_out_another_history(kept, maker):
    kept.append(frames_of(maker, 3))
    other = FrameMaker()
    other.open_epoch()
    wrong = frames_of(other, 4, size=99)[3:]
    assert wrong[0].first_seq == maker.position.seq + 1
    with pytest.raises(Fenced, match="doesn't continue"):
        kept.append(wrong)


def test_after_its_last_drop_an_appended_frame_must_still_continue_it(kept, maker):
    frames = frames_of(maker, 20)
    kept.append(frames[:10], Retention(bytes_max=0))
    assert kept.frames == frames[9:10]
    with pytest.raises(Fenced):
        kept.append(frames[11:])
    kept.append(frames[10:])
    assert kept.frames == frames[9:]


def test_frames_older_than_the_newest_by_the_age_are_dropped(kept, maker):
    frames = frames_of(maker, 100, every_ms=HOUR_MS)
    retention = Retention(age_ms=24 * HOUR_MS)
    for count, frame in enumerate(frames, 1):
        kept.append([frame], retention)
        assert min(count, 24) <= len(kept.frames) <= 28
    assert kept.frames == frames[-len(kept.frames) :]
    assert kept.state.horizon == frames[-len(kept.frames) - 1].position


def test_the_size_drops_what_the_age_would_keep_and_the_age_what_the_size_would(kept, maker):
    frames = frames_of(maker, 40, every_ms=HOUR_MS, size=1000)
    kept.append(frames[:20], Retention(bytes_max=10_500, age_ms=24 * HOUR_MS))
    assert 8 <= len(kept.frames) <= 10
    for frame in frames[20:]:
        kept.append([frame], Retention(bytes_max=1 << 30, age_ms=4 * HOUR_MS))
    assert 5 <= len(kept.frames) <= 6


def test_an_idle_journal_and_a_clock_that_was_set_back_drop_nothing(kept, maker):
    frames = frames_of(maker, 5)
    maker.stamp += 1000 * HOUR_MS << 16
    kept.append(frames, Retention(age_ms=HOUR_MS))
    kept.append([], Retention(age_ms=HOUR_MS))
    assert kept.frames == frames


def test_the_last_frame_stays_whatever_the_limits_are(kept, maker):
    frames = frames_of(maker, 3, every_ms=HOUR_MS)
    kept.append(frames, Retention(bytes_max=0, age_ms=0))
    assert kept.frames == frames[-1:]


def test_one_commit_drops_a_bounded_number_of_frames(kept, maker, monkeypatch):
    monkeypatch.setattr("kvnet.storage.journal.DROPPED_AT_ONCE_MAX", 5)
    frames = frames_of(maker, 50, every_ms=HOUR_MS)
    kept.append(frames[:40])
    retention = Retention(age_ms=HOUR_MS)
    left = []
    for frame in frames[40:]:
        kept.append([frame], retention)
        left.append(len(kept.frames))
    assert left[:3] == [34, 28, 22]
    assert left[-1] == 2


def test_a_store_keeps_what_its_retention_says_over_restarts(folder, maker):
    frames = frames_of(maker, 60, every_ms=HOUR_MS)
    for first in range(0, 60, 20):
        store = open_store(folder, retention=Retention(1 << 20, 24 * HOUR_MS))
        for frame in frames[first : first + 20]:
            store.apply([frame])
        store.close()
    store = open_store(folder, retention=Retention(1 << 20, 24 * HOUR_MS))
    kept = store.frames_after(store.horizon_seq, 1 << 30)
    assert 24 <= len(kept) <= 28
    assert kept == frames[-len(kept) :]
    with pytest.raises(BeyondHorizon):
        store.frames_after(0, 1 << 20)
    store.close()
