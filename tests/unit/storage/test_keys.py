from __future__ import annotations

from kvnet.storage.keys import LMDB_KEY_BYTES_MAX, SLICE_BYTES, layer_prefix, root_prefix
from tests.support.stores import open_store


def entries(store) -> int:
    with store.environment.view() as txn:
        return txn.stat(store.environment.database("records"))["entries"]


def test_a_short_key_is_one_entry_and_a_long_one_has_one_more_per_layer(store, maker):
    namespace = maker.create_namespace("a")
    store.apply([maker.cut()])
    for length, added in ((1, 1), (SLICE_BYTES, 1), (SLICE_BYTES + 1, 2), (2048, 5)):
        before = entries(store)
        maker.put(namespace, b"%d" % length + b"k" * (length - len(b"%d" % length)), b"value")
        store.apply([maker.cut()])
        assert entries(store) - before == added


def test_a_layer_goes_with_its_last_key(store, maker):
    namespace = maker.create_namespace("a")
    maker.put(namespace, b"k" * 2048, b"1")
    maker.put(namespace, b"k" * (SLICE_BYTES + 1), b"2")
    store.apply([maker.cut()])
    maker.delete(namespace, b"k" * 2048)
    store.apply([maker.cut()])
    assert entries(store) == 3  # the namespace's own record, a pointer, and the key that is left
    maker.delete(namespace, b"k" * (SLICE_BYTES + 1))
    store.apply([maker.cut()])
    assert entries(store) == 1


def test_layers_get_numbers_of_their_own_after_a_restart(folder, maker):
    store = open_store(folder)
    namespace = maker.create_namespace("a")
    for letter in (b"a", b"b"):
        maker.put(namespace, letter * 600, letter)
        store.apply([maker.cut()])
        store.close()
        store = open_store(folder)
    assert [store.get(namespace, letter * 600).value for letter in (b"a", b"b")] == [b"a", b"b"]
    assert entries(store) == 5
    store.close()


def test_prefixes_never_meet_and_every_key_fits():
    assert root_prefix((1 << 31) - 1) < layer_prefix(0)
    assert len(layer_prefix(0)) + SLICE_BYTES + 1 == LMDB_KEY_BYTES_MAX
