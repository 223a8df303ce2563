from __future__ import annotations

from kvnet.storage.keys import LMDB_KEY_BYTES_MAX, SLICE_BYTES, layer_prefix, root_prefix
from tests.support.stores import open_store


def entries(store) -> int:
    with store.environment.view() as txn:
        return txn.stat(store.environment.database("records"))["entries"]


def test_a_key_is_one_entry_until_another_shares_its_slice(store, maker):
    namespace = maker.create_namespace("a")
    store.apply([maker.cut()])
    for letter in (b"a", b"b"):
        for length in (1, SLICE_BYTES, SLICE_BYTES + 1, 2048):
            before = entries(store)
            maker.put(namespace, letter + b"%d" % length + b"k" * (length - 5), b"value")
            store.apply([maker.cut()])
            assert entries(store) - before == 1
    before = entries(store)
    maker.put(namespace, b"a2048" + b"k" * 1700, b"value")
    store.apply([maker.cut()])
    # Both go on for three more slices alike; then each has the fourth for itself: three pointers more, and a key.
    assert entries(store) - before == 4


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
    names = [letter * 600 + end for letter in (b"a", b"b") for end in (b"1", b"2")]
    for name in names:
        maker.put(namespace, name, name[-2:])
        store.apply([maker.cut()])
        store.close()
        store = open_store(folder)
    assert [store.get(namespace, name).value for name in names] == [name[-2:] for name in names]
    assert entries(store) == 7
    store.close()


def test_prefixes_never_meet_and_every_key_fits():
    assert root_prefix((1 << 31) - 1) < layer_prefix(0)
    assert len(layer_prefix(0)) + SLICE_BYTES + 1 == LMDB_KEY_BYTES_MAX
