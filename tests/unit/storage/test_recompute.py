"""A replica proven from its own bytes, while it moves on."""

from __future__ import annotations

import pytest

from kvnet.storage import verification


def test_verification_finds_a_flipped_bit_and_a_missing_record(store, maker, namespace):
    maker.put(namespace, b"long" * 500, b"value")
    maker.put(namespace, b"zero", b"\0" * 10)
    store.apply([maker.cut()])
    assert store.recompute() == (store.position, store.digest, store.digest, [], [])
    with store.environment.write() as txn:
        place = store.tallies[namespace].prefix + b"zero"
        stored = txn.get(place)
        txn.put(place, stored[:-1] + b"\1")
    found = store.recompute()
    assert not found.good
    assert found.differing == [(namespace, b"zero")]
    assert found.digest_recomputed != found.digest_stored == store.digest
    with store.environment.write() as txn:
        txn.delete(place)
    found = store.recompute()
    assert not found.good
    assert (found.differing, found.namespaces_differing) == ([], [namespace])


@pytest.mark.parametrize("moves", [1, 100])
def test_verification_is_of_one_position_while_the_replica_moves_on(store, maker, namespace, monkeypatch, moves):
    for number in range(20):
        maker.put(namespace, b"%d" % number, b"v")
    store.apply([maker.cut()])
    views = []
    view = store.environment.view

    def view_and_move():
        views.append(None)
        if len(views) > 1 and len(views) <= moves + 1:
            maker.put(namespace, b"%d" % (len(views) % 20), b"%d" % len(views))
            store.apply([maker.cut()])
        return view()

    monkeypatch.setattr(verification, "SLICE_RECORDS", 5)
    monkeypatch.setattr(store.environment, "view", view_and_move)
    found = store.recompute()
    assert len(views) > 2
    assert found.good
    assert found.position == store.position
