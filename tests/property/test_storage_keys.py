"""The trie of B+trees is a sorted map over keys of every length."""

from __future__ import annotations

import tempfile
from bisect import bisect_left
from pathlib import Path

import lmdb
from hypothesis import given, settings
from hypothesis import strategies as st

from kvnet.limits import KEY_BYTES_CEILING
from kvnet.storage.keys import SLICE_BYTES, find_place, layer_prefix, make_place, remove, root_prefix, walk

STEMS = [
    b"\0" * KEY_BYTES_CEILING,
    b"\xff" * KEY_BYTES_CEILING,
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
                    model[key] = b"%d" % number
                    txn.put(make_place(txn, root, key, self.new_layer), model[key])
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
                    place = find_place(txn, root, key)
                    assert (None if place is None else txn.get(place)) == model.get(key)
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
