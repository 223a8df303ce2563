"""The index by which a coordinator finds what has expired: nothing missing, and nothing in its way."""

from __future__ import annotations

import pytest

from kvnet.storage.expiries import Expiring
from tests.support.stores import bootstrap, open_store, pages_of

LONG = b"longer than a slice" * 30


@pytest.fixture
def tracking(tmp_path):
    store = open_store(tmp_path / "tracking", tracks_expiries=True)
    yield store
    store.close()


def due(store, now_s=1000, limit=100):
    return [(row.expires_at, row.key) for row in store.due(now_s, limit)]


def write(maker, namespace, **expiries):
    for key, expires_at in expiries.items():
        maker.put(namespace, key.encode(), b"v", expires_at=expires_at)
    return maker.cut()


def test_what_is_due_comes_oldest_first_and_from_its_very_second_on(tracking, maker):
    namespace = maker.create_namespace("a")
    tracking.apply([write(maker, namespace, late=30, early=10, never=0, middle=20)])
    assert due(tracking, 9) == []
    assert due(tracking, 10) == [(10, b"early")]
    assert due(tracking, 30) == [(10, b"early"), (20, b"middle"), (30, b"late")]
    assert due(tracking, 30, limit=2) == [(10, b"early"), (20, b"middle")]


def test_a_record_that_is_replaced_or_removed_takes_its_row_along(tracking, maker):
    namespace = maker.create_namespace("a")
    tracking.apply([write(maker, namespace, longer=10, for_ever=10, gone=10, same=10)])
    maker.delete(namespace, b"gone")
    tracking.apply([write(maker, namespace, longer=20, for_ever=0, same=10)])
    assert due(tracking) == [(10, b"same"), (20, b"longer")]


def test_stale_rows_go_before_the_frames_of_their_commit_which_may_bring_them_back(tracking, maker):
    namespace = maker.create_namespace("a")
    tracking.apply([write(maker, namespace, k=10, gone=10)])
    rows = [Expiring(10, namespace, b"k"), Expiring(10, namespace, b"gone")]
    tracking.apply([write(maker, namespace, k=10)], stale=rows)
    assert due(tracking) == [(10, b"k")]
    tracking.apply([], stale=[Expiring(10, namespace, b"k")])
    assert due(tracking) == []


def fill(maker, count=25):
    spaces = [maker.create_namespace(title) for title in "abc"]
    for number in range(count):
        maker.put(spaces[number % 3], b"%d" % number, b"v", expires_at=number % 2 and 100 + number)
    maker.put(spaces[0], LONG, b"v", metadata=b"{}", expires_at=500)
    return maker.cut()


def all_expiring(maker):
    return sorted(
        (put.expires_at, namespace, key)
        for namespace, records in maker.records.items()
        for key, (put, _) in records.items()
        if put.expires_at
    )


@pytest.mark.parametrize("budget", [1, 3, 1000])
def test_rows_that_were_never_written_are_made_in_bites_that_go_on_after_a_restart(folder, maker, budget):
    store = open_store(folder)
    store.apply([fill(maker)])
    assert not store.index_some(budget), "no index is kept here"
    assert not store.due(1000, 100)
    store.close()
    store = open_store(folder, tracks_expiries=True)
    bites = 0
    while store.index_some(budget):
        bites += 1
        store.close()
        store = open_store(folder, tracks_expiries=True)
    assert bites == 26 // budget - (26 % budget == 0) or budget == 1
    assert sorted(store.due(1000, 100)) == all_expiring(maker)
    store.close()


def test_what_changes_while_rows_are_made_is_in_the_index_too(folder, maker):
    store = open_store(folder)
    store.apply([fill(maker)])
    store.close()
    store = open_store(folder, tracks_expiries=True)
    assert store.index_some(5)
    first, second, third = sorted(namespace for namespace in maker.records if namespace != bytes(16))
    maker.put(first, b"behind the walk", b"v", expires_at=7)
    maker.put(third, b"ahead of it", b"v", expires_at=8)
    namespace = maker.create_namespace("new")
    maker.put(namespace, b"k", b"v", expires_at=9)
    for key in list(maker.records[second]):
        maker.delete(second, key)
    store.apply([maker.cut()])
    while store.index_some(5):
        pass
    assert sorted(store.due(1000, 100)) == all_expiring(maker)
    store.close()


def test_an_index_that_was_not_kept_for_a_while_is_made_again(folder, maker):
    store = open_store(folder, tracks_expiries=True)
    namespace = maker.create_namespace("a")
    store.apply([write(maker, namespace, before=10)])
    assert not store.index_some()
    store.close()
    store = open_store(folder)
    store.apply([write(maker, namespace, meanwhile=20)])
    store.close()
    store = open_store(folder, tracks_expiries=True)
    store.index_some()
    assert due(store) == [(10, b"before"), (20, b"meanwhile")]
    store.close()


def test_what_pages_brought_is_in_the_index_and_needs_no_walk(tracking, folder, maker):
    donor = open_store(folder)
    donor.apply([fill(maker)])
    bootstrap(tracking, list(pages_of(donor, 300)), maker.frames)
    assert sorted(tracking.due(1000, 100)) == all_expiring(maker)
    assert not tracking.index_some(1)
    donor.close()


def test_compaction_takes_a_half_made_index_along(folder, maker):
    store = open_store(folder)
    store.apply([fill(maker)])
    store.close()
    store = open_store(folder, tracks_expiries=True)
    assert store.index_some(5)
    store.begin_compaction()
    store.copy_compacted()
    assert store.index_some(5), "in the replica that is left"
    while store.finish_compaction() is None:
        assert store.is_compacting
    while store.index_some(5):
        pass
    assert sorted(store.due(1000, 100)) == all_expiring(maker)
    store.close()
