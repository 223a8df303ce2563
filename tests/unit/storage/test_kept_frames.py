"""Frames read back from a store, and which history it can prove."""

from __future__ import annotations

import pytest

from kvnet.core.frames import Frame
from kvnet.core.versions import GENESIS, Position
from kvnet.errors import BeyondHorizon
from tests.support.stores import assert_is_fold, open_store


def journal_of(maker, namespace, count: int) -> list[Frame]:
    for number in range(count):
        maker.put(namespace, b"%d" % (number % 10), b"v" * 1000)
        maker.cut()
    return maker.frames


def test_frames_are_read_back_as_they_were_cut(store, maker, namespace):
    frames = journal_of(maker, namespace, 20)
    store.apply(frames[1:])
    assert store.frames_after(0, 1 << 30) == frames
    for number in (0, 7, 20):
        seq = frames[number].first_seq - 1
        size = sum(len(frame.data) for frame in frames[number : number + 3])
        assert store.frames_after(seq, size) == frames[number : number + 3]
        assert store.frames_after(seq, size - 1) == frames[number : number + 2][: max(1, 20 - number)]
        assert store.frames_after(seq, 0) == [frames[number]]
    assert store.frames_after(store.position.seq, 1 << 30) == []
    assert store.frames_after(store.position.seq + 5, 1 << 30) == []
    with pytest.raises(BeyondHorizon):
        store.frames_after(1, 1 << 30)  # in the middle of the first frame


def test_a_store_proves_its_own_history_and_no_other(store, maker, namespace):
    frames = journal_of(maker, namespace, 5)
    store.apply(frames[1:])
    for position in (GENESIS, *(frame.position for frame in frames)):
        assert store.holds(position)
        assert not store.holds(position._replace(chain=b"x" * 16))
        assert not store.holds(position._replace(epoch=position.epoch + 1))
    assert not store.holds(Position(1, 1, frames[0].chain_after))
    assert not store.holds(Position(1, 1000, frames[-1].chain_after))


def test_the_journal_forgets_its_oldest_frames_and_knows_where_it_starts(folder, maker):
    bytes_max = 20_000
    store = open_store(folder, journal_bytes_max=bytes_max)
    namespace = maker.create_namespace("a")
    for frame in journal_of(maker, namespace, 100):
        store.apply([frame])
        assert store.stats()["journal_bytes"] <= bytes_max * 9 / 8
    assert store.horizon_seq > 0
    for _ in range(2):
        tail = [frame for frame in maker.frames if frame.first_seq > store.horizon_seq]
        assert store.frames_after(store.horizon_seq, 1 << 30) == tail
        stats = store.stats()
        assert (stats["journal_frames"], stats["horizon_seq"]) == (len(tail), store.horizon_seq)
        assert stats["journal_bytes"] == sum(len(frame.data) for frame in tail) > bytes_max / 2
        with pytest.raises(BeyondHorizon):
            store.frames_after(store.horizon_seq - 1, 1 << 30)
        for frame in maker.frames:
            assert store.holds(frame.position) == (frame.last_seq >= store.horizon_seq)
        assert not store.holds(GENESIS)
        store.close()
        store = open_store(folder, journal_bytes_max=bytes_max)
    assert_is_fold(store, maker)
    store.close()


def test_the_last_frame_stays_however_large(folder, maker):
    store = open_store(folder, journal_bytes_max=1000)
    namespace = maker.create_namespace("a")
    store.apply([maker.cut()])
    maker.put(namespace, b"key", b"v" * 100_000)
    frame = maker.cut()
    store.apply([frame])
    assert store.frames_after(store.horizon_seq, 0) == [frame]
    store.close()
