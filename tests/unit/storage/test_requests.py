"""What became of requests is remembered for as long as a retry may come."""

from __future__ import annotations

from kvnet.core.versions import Version
from tests.support.stores import open_store


def test_requests_are_remembered_for_ten_minutes_and_then_forgotten_bit_by_bit(folder, maker):
    store = open_store(folder)
    maker.create_namespace("a")
    old = [(b"old %d" % number, Version(1, number), 1000 + number) for number in range(100)]
    store.apply([maker.cut()], old)
    store.close()
    store = open_store(folder)
    assert all(store.request_outcome(name) == version for name, version, _ in old)
    assert store.request_outcome(b"unknown") is None
    store.apply([], [(b"in time", Version(1, 500), 600_000)])
    assert store.request_outcome(b"old 0") == Version(1, 0)
    store.apply([], [(b"late" * 500, Version(1, 501), 601_050)])
    left = [name for name, *_ in old if store.request_outcome(name)]
    assert left == [name for name, *_ in old[16:]]
    for number in range(10):
        store.apply([], [(b"new %d" % number, Version(2, number), 601_050)])
    left = [name for name, *_ in old if store.request_outcome(name)]
    assert left == [name for name, *_ in old[50:]]
    assert store.request_outcome(b"late" * 500) == Version(1, 501)
    store.close()


def test_a_request_remembered_again_is_forgotten_by_its_last_time(store, maker, namespace):
    store.apply([], [(b"id", Version(1, 1), 0)])
    store.apply([], [(b"id", Version(1, 2), 500_000)])
    store.apply([], [(b"other", Version(1, 3), 700_000)])
    assert store.request_outcome(b"id") == Version(1, 2)
    store.apply([], [(b"another", Version(1, 4), 1_200_000)])
    assert store.request_outcome(b"id") is None
