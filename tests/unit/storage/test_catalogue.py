"""The catalogue follows its records, and namespaces come and go with them."""

from __future__ import annotations

from kvnet.core.catalog import Cluster, Member, Namespace, Scope, Token
from tests.support.stores import assert_is_fold, open_store


def test_the_catalogue_follows_its_records(folder, maker):
    store = open_store(folder)
    namespace = maker.create_namespace("a")
    cluster = Cluster("f" * 32, b"c" * 16, 1)
    token = Token("t1", "deploy", Scope.WRITE, b"h" * 32)
    member = Member("fra", 5)
    for item in (cluster, token, member):
        maker.put_item(item)
    store.apply([maker.cut()])
    generation = store.catalogue_generation
    for _ in range(2):
        assert store.cluster == cluster
        assert store.tokens == {b"h" * 32: token}
        assert store.members == {"fra": member}
        assert store.titles["a"].id == namespace
        assert list(store.namespaces) == [namespace]
        store.close()
        store = open_store(folder)
    maker.put_item(Namespace(namespace, "renamed", 1))
    maker.put_item(Token("t1", "deploy", Scope.WRITE, b"i" * 32))
    maker.delete_item(member)
    maker.put(namespace, b"key", b"value")
    before = store.catalogue
    store.apply([maker.cut()])
    assert store.catalogue_generation > before.generation
    assert list(store.titles) == ["renamed"]
    assert list(store.tokens) == [b"i" * 32]
    assert not store.members
    assert list(before.titles) == ["a"], "a reader's catalogue never changes under it"
    generation = store.catalogue_generation
    maker.put(namespace, b"key", b"other")
    store.apply([maker.cut()])
    assert store.catalogue_generation == generation
    assert_is_fold(store, maker)
    store.close()


def test_a_namespace_created_and_deleted_in_one_batch_leaves_nothing(store, maker, namespace):
    short_lived = maker.create_namespace("b")
    maker.put(short_lived, b"k" * 2000, b"v")
    maker.cut()
    maker.delete_namespace(short_lived)
    maker.cut()
    store.apply(maker.frames[1:])
    assert_is_fold(store, maker)
    while store.erase_some(1):
        pass
    with store.environment.view() as txn:
        assert txn.stat(store.environment.database("records"))["entries"] == 2


def test_a_deleted_namespace_is_gone_at_once_and_erased_later_even_after_a_restart(folder, maker):
    store = open_store(folder)
    gone, kept = maker.create_namespace("gone"), maker.create_namespace("kept")
    for number in range(20):
        for namespace in (gone, kept):
            # Every other key is long and has a neighbour in its first slice, so that both have a layer.
            maker.put(namespace, b"%d" % number * (1 if number % 2 else 600), b"v")
            if number % 2 == 0:
                maker.put(namespace, b"%d" % number * 600 + b"+", b"v")
    store.apply([maker.cut()])
    assert not store.erase_some()
    maker.delete_namespace(gone)
    store.apply([maker.cut()])
    assert store.get(gone, b"1") is None
    assert store.list_keys(gone, b"", None, 10, 0) == ([], False)
    assert_is_fold(store, maker)
    rounds = 0
    while store.erase_some(7):
        rounds += 1
        assert_is_fold(store, maker)
        store.close()
        store = open_store(folder)
    assert rounds > 3
    with store.environment.view() as txn:
        pointers = sum(1 if number < 10 else 2 for number in range(0, 20, 2))
        # One record in the system namespace; of keys of 1,200 bytes the second slice is shared as well.
        assert txn.stat(store.environment.database("records"))["entries"] == 1 + 30 + pointers
    assert_is_fold(store, maker)
    store.close()
