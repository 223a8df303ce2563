"""The trie of B+trees is a sorted map over keys of every length, and a store shows it as one."""

from __future__ import annotations

import tempfile
from bisect import bisect_left
from pathlib import Path

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvnet.limits import KEY_BYTES_CEILING
from kvnet.storage.keys import SLICE_BYTES, find, layer_prefix, place, remove, root_prefix, walk
from kvnet.storage.store import Store
from tests.support.frames import FrameMaker
from tests.support.stores import assert_is_fold, open_store

STEMS = [
    b"\0" * KEY_BYTES_CEILING,
    b"\xff" * KEY_BYTES_CEILING,
    b"\x01" * KEY_BYTES_CEILING,  # slices that end as a pointer does
    (b"\x01" + b"a" * (SLICE_BYTES - 1)) * 5,
    bytes(range(256)) * 8,
]
BORDERS = [0, 1, *(n * SLICE_BYTES + d for n in (1, 2, 3, 4) for d in (-1, 0, 1)), KEY_BYTES_CEILING]


@st.composite
def keys(draw: st.DrawFn) -> bytes:
    """Keys that share long prefixes, end at every border of a slice and differ in the bytes that sort oddly."""
    stem = draw(st.sampled_from(STEMS))
    length = draw(st.sampled_from(BORDERS) | st.integers(0, KEY_BYTES_CEILING))
    tail = draw(st.lists(st.sampled_from([0, 1, 2, 0x61, 0xFE, 0xFF]), max_size=3))
    return (stem[:length] + bytes(tail))[:KEY_BYTES_CEILING]


ORDERS = st.lists(st.tuples(st.sampled_from(["put", "put", "remove"]), keys()), max_size=40)


class Layers:
    """Two tries side by side in one database, so that a key that leaks from one shows in the other."""

    def __init__(self, folder: str) -> None:
        self.environment = lmdb.open(str(Path(folder) / "trie"), sync=False, map_size=1 << 26)
        self.roots = [root_prefix(0), root_prefix(1)]
        self.layers = 0

    def new_layer(self) -> bytes:
        self.layers += 1
        return layer_prefix(self.layers)

    def follow(self, root: bytes, orders: list[tuple[str, bytes]], model: dict[bytes, bytes]) -> None:
        with self.environment.begin(write=True) as txn:
            for number, (order, key) in enumerate(orders):
                if order == "put":
                    record = b"%d" % number
                    if len(key) > SLICE_BYTES:
                        assert place(txn, root, key, record, self.new_layer) == model.get(key)
                    else:
                        txn.put(root + key, record)
                    model[key] = record
                else:
                    assert remove(txn, root, key) == model.pop(key, None)

    def read(self, root: bytes, start: bytes = b"") -> list[tuple[bytes, bytes]]:
        with self.environment.begin(buffers=True) as txn, txn.cursor() as cursor:
            return [(key, bytes(stored)) for key, stored in walk(cursor, root, start)]


@settings(max_examples=150, deadline=None)
@given(ORDERS, ORDERS, st.lists(keys(), max_size=8))
def test_layers_are_a_sorted_map(first, second, probes):
    with tempfile.TemporaryDirectory() as folder:
        layers = Layers(folder)
        models: list[dict[bytes, bytes]] = [{}, {}]
        for root, orders, model in zip(layers.roots, (first, second), models, strict=True):
            layers.follow(root, orders, model)
        for root, model in zip(layers.roots, models, strict=True):
            items = sorted(model.items())
            assert layers.read(root) == items
            in_order = [key for key, _ in items]
            for probe in [*probes, *(key + b"\0" for key in in_order[:4])]:
                assert layers.read(root, probe) == items[bisect_left(in_order, probe) :]
            with layers.environment.begin() as txn:
                for key in [*model, *probes]:
                    assert find(txn.get, root, key) == model.get(key)
        layers.environment.close()


@settings(max_examples=50, deadline=None)
@given(ORDERS)
def test_no_layer_outlives_its_keys(orders):
    with tempfile.TemporaryDirectory() as folder:
        layers = Layers(folder)
        model: dict[bytes, bytes] = {}
        layers.follow(layers.roots[0], orders, model)
        layers.follow(layers.roots[0], [("remove", key) for key in list(model)], model)
        assert layers.environment.stat()["entries"] == 0
        layers.environment.close()


def filled(folder: str, keys_: list[bytes]) -> tuple[Store, FrameMaker, bytes]:
    """Return a store with these keys in a namespace, and another namespace with the same."""
    store, maker = open_store(Path(folder) / "node"), FrameMaker()
    maker.open_epoch()
    namespace, other = maker.create_namespace("a"), maker.create_namespace("b")
    for key in keys_:
        maker.put(namespace, key, b"%d" % len(key))
        maker.put(other, key, b"other")
    store.apply([maker.cut()])
    return store, maker, namespace


@settings(max_examples=60, deadline=None)
@given(st.lists(keys().filter(len), max_size=25, unique=True), keys(), st.integers(1, 4), st.data())
def test_a_listing_goes_on_wherever_it_was_left(names, unrelated, limit, data):
    prefixes = [b"", unrelated] + [name[: data.draw(st.integers(0, len(name)))] for name in names[:4]]
    with tempfile.TemporaryDirectory() as folder:
        store, _, namespace = filled(folder, names)
        for prefix in prefixes:
            expected = sorted(name for name in names if name.startswith(prefix))
            listed: list[bytes] = []
            more = True
            while more:
                after = listed[-1] if listed else None
                some, more = store.list_keys(namespace, prefix, after, limit, now_s=0)
                assert len(some) == limit or not more
                listed += [each.key for each in some]
            assert listed == expected
            for after in [*names, unrelated]:
                some, more = store.list_keys(namespace, prefix, after, len(names) + 1, now_s=0)
                assert [each.key for each in some] == [name for name in expected if name > after]
                assert not more
        store.close()


@pytest.mark.parametrize("stem", STEMS, ids=["zeros", "ffs", "ones", "pointers", "counting"])
def test_keys_of_every_length_are_found_listed_and_removed(stem):
    """Each is the beginning of the next, so all share their layers; beside each lies one that ends otherwise.

    A key one longer than a slice that ended as pointers do once was read as the pointer, and as damaged.
    """
    names = {stem[:length] for length in range(1, KEY_BYTES_CEILING + 1)}
    names |= {stem[: length - 1] + bytes([stem[length - 1] ^ 1]) for length in range(1, KEY_BYTES_CEILING + 1)}
    in_order = sorted(names)
    with tempfile.TemporaryDirectory() as folder:
        store, maker, namespace = filled(folder, in_order)
        for name in in_order:
            record = store.get(namespace, name)
            assert record is not None
            assert record.value == b"%d" % len(name)
        listed, _ = store.list_keys(namespace, b"", None, len(in_order) + 1, now_s=0)
        assert [each.key for each in listed] == in_order
        for at, name in enumerate(in_order):
            listed, more = store.list_keys(namespace, b"", name, 1, now_s=0)
            assert [each.key for each in listed] == in_order[at + 1 : at + 2]
            assert more == (at + 2 < len(in_order))
        for length in range(1, KEY_BYTES_CEILING + 1):
            maker.delete(namespace, stem[:length])
        store.apply([maker.cut()])
        for name in in_order:
            assert (store.get(namespace, name) is None) == stem.startswith(name)
        for name in maker.records[namespace].copy():
            maker.delete(namespace, name)
        store.apply([maker.cut()])
        assert_is_fold(store, maker)
        layers = 1 + (KEY_BYTES_CEILING - 1) // SLICE_BYTES  # no more than the other namespace still has
        with store.environment.view() as txn:
            entries = txn.stat(store.environment.database("records"))["entries"]
        assert entries <= 2 + len(in_order) + 2 * layers
        store.close()
