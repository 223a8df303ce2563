"""An emptied store, and what outlives a restart."""

from __future__ import annotations

from kvnet.core.versions import Version
from tests.support.frames import FrameMaker
from tests.support.stores import assert_is_fold, open_store


def test_reset_leaves_an_empty_store_that_can_take_another_history(folder, maker):
    store = open_store(folder, journal_bytes_max=1000)
    namespace = maker.create_namespace("a")
    maker.put(namespace, b"k" * 2000, b"v" * 5000)
    store.apply([maker.cut()], [(b"id", Version(1, 1), 0)])
    maker.delete_namespace(maker.create_namespace("b"))
    store.apply([maker.cut()])
    generation = store.catalogue_generation
    store.reset()
    other = FrameMaker(epoch=7)
    for _ in range(2):
        assert_is_fold(store, FrameMaker())
        assert (store.stamp, store.horizon_seq, store.request_outcome(b"id")) == (0, 0, None)
        assert store.get(namespace, b"k" * 2000) is None
        assert not store.titles
        assert store.stats()["journal_bytes"] == 0
        with store.environment.view() as txn:
            assert txn.stat(store.environment.database("erasing"))["entries"] == 0
        store.close()
        store = open_store(folder)
    assert generation > 0
    other.open_epoch()
    other.put(other.create_namespace("a"), b"k" * 2000, b"other")
    store.apply([other.cut()])
    assert_is_fold(store, other)
    store.close()


def test_verified_outlives_a_restart_and_not_a_reset(folder, maker):
    """A wiped or emptied replica once served what it had halfway through its refill."""
    maker.create_namespace("a")
    store = open_store(folder)
    store.apply([maker.cut()])
    assert not store.verified
    store.mark_verified()
    store.close()
    store = open_store(folder)
    assert store.verified
    store.reset()
    assert not store.verified
    store.close()
    store = open_store(folder)
    assert not store.verified
    store.close()


def test_reset_changes_the_catalogues_generation(store, maker, namespace):
    generation = store.catalogue_generation
    store.reset()
    assert store.catalogue_generation > generation
