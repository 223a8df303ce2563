"""Chunks of large values: stored once, counted by the records that name them, forgotten an hour after the last."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kvnet.core.manifest import Manifest
from kvnet.errors import ChunksMissing, ProtocolError, StorageDamaged
from kvnet.storage import chunks
from kvnet.storage.chunks import UNREFERENCED_S
from kvnet.storage.store import Store
from tests.support.frames import FrameMaker
from tests.support.large import large_value, named
from tests.support.stores import open_store

VALUE = large_value(3, last=100_000)
PACKED = VALUE.manifest.pack()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(tmp_path / "store")
    yield store
    store.close()


@pytest.fixture
def maker(store: Store) -> FrameMaker:
    maker = FrameMaker()
    maker.open_epoch()
    store.apply([maker.cut()])
    return maker


@pytest.fixture
def namespace(store: Store, maker: FrameMaker) -> bytes:
    namespace = maker.create_namespace("n")
    store.apply([maker.cut()])
    return namespace


def collect_all(store: Store, *, in_s: float) -> None:
    """Collect as it is done so many seconds from now."""
    environment = store.environment
    with environment.write() as txn:
        while chunks.collect(txn, environment.chunk_databases, now_s=lambda: chunks.time() + in_s):
            pass


def held(store: Store) -> int:
    return len(VALUE.chunks) - len(store.lacking_chunks(VALUE.manifest.chunks))


def test_a_chunk_comes_back_as_it_was_put(store: Store) -> None:
    store.put_chunks(named(VALUE))
    assert list(map(store.chunk, VALUE.manifest.chunks)) == VALUE.chunks
    assert store.chunk(bytes(32)) is None


def test_a_chunk_that_is_not_what_its_hash_says_is_refused_with_all_that_came_with_it(store: Store) -> None:
    altered = [*named(VALUE)[:2], (VALUE.manifest.chunks[2], b"something else")]
    with pytest.raises(ProtocolError, match="isn't"):
        store.put_chunks(altered)
    assert held(store) == 0


def test_lacking_chunks_are_told_once_each_and_in_order(store: Store) -> None:
    first, second, third = VALUE.manifest.chunks
    store.put_chunks(named(VALUE)[1:2])
    assert store.lacking_chunks([third, first, second, third]) == [third, first]


def test_an_entry_whose_chunks_are_not_here_changes_nothing_and_tells_what_is_missing_and_what_could_be_applied(
    store: Store, maker: FrameMaker, namespace: bytes
) -> None:
    maker.put(namespace, b"small", b"v")
    before = maker.cut()
    maker.put_large(namespace, b"large", PACKED)
    frame = maker.cut()
    store.put_chunks(named(VALUE)[:1])
    with pytest.raises(ChunksMissing) as raised:
        store.apply([before, frame])
    assert raised.value.hashes == VALUE.manifest.chunks[1:]
    assert raised.value.applicable == 1
    assert store.get(namespace, b"small") is None
    store.put_chunks(named(VALUE)[1:])
    assert store.apply([before, frame]) == frame.position
    stored = store.get(namespace, b"large")
    assert stored is not None
    assert stored.large
    assert Manifest.unpack(stored.value) == VALUE.manifest


def test_a_namespaces_size_counts_the_value_and_not_its_manifest(
    store: Store, maker: FrameMaker, namespace: bytes
) -> None:
    store.put_chunks(named(VALUE))
    maker.put_large(namespace, b"large", PACKED)
    store.apply([maker.cut()])
    assert store.stats()["bytes"][namespace.hex()] == VALUE.manifest.size + len(b"large")


@pytest.mark.parametrize("ending", ["replaced", "deleted", "with its namespace"])
def test_chunks_are_forgotten_an_hour_after_the_last_record_that_named_them(
    store: Store, maker: FrameMaker, namespace: bytes, ending: str
) -> None:
    store.put_chunks(named(VALUE))
    for key in (b"one", b"two"):
        maker.put_large(namespace, key, PACKED)
    store.apply([maker.cut()])
    maker.delete(namespace, b"one")
    store.apply([maker.cut()])
    collect_all(store, in_s=10 * UNREFERENCED_S)
    assert held(store) == 3, "the other record names them"
    match ending:
        case "replaced":
            maker.put(namespace, b"two", b"small")
        case "deleted":
            maker.delete(namespace, b"two")
        case _:
            maker.delete_namespace(namespace)
    store.apply([maker.cut()])
    while store.erase_some():
        pass
    collect_all(store, in_s=UNREFERENCED_S - 10)
    assert held(store) == 3, "somebody may still be reading it"
    collect_all(store, in_s=UNREFERENCED_S + 10)
    assert held(store) == 0


def test_a_chunk_that_a_value_has_twice_is_stored_once_and_counted_twice(
    store: Store, maker: FrameMaker, namespace: bytes
) -> None:
    first = VALUE.manifest.chunks[0]
    twice = Manifest(2 * len(VALUE.chunks[0]), (first, first)).pack()
    store.put_chunks(named(VALUE)[:1])
    maker.put_large(namespace, b"twice", twice)
    maker.put_large(namespace, b"twice", twice, metadata=b"1")
    store.apply([maker.cut()])
    maker.delete(namespace, b"twice")
    store.apply([maker.cut()])
    collect_all(store, in_s=UNREFERENCED_S + 10)
    assert store.chunk(first) is None


def test_chunks_whose_entry_never_comes_are_forgotten_unless_they_come_again(store: Store) -> None:
    environment, now = store.environment, chunks.time()
    with environment.write() as txn:
        chunks.put(txn, environment.chunk_databases, named(VALUE), now_s=lambda: now - UNREFERENCED_S + 10)
    store.put_chunks(named(VALUE)[:1])  # another write of an equal chunk: its hour begins anew
    collect_all(store, in_s=20)
    assert held(store) == 1


def test_forgetting_comes_in_bounded_bites(store: Store) -> None:
    environment, long_ago = store.environment, chunks.time() - 2 * UNREFERENCED_S
    with environment.write() as txn:
        chunks.put(txn, environment.chunk_databases, named(VALUE), now_s=lambda: long_ago)
        assert chunks.collect(txn, environment.chunk_databases, 2)
        assert not chunks.collect(txn, environment.chunk_databases, 2)


def test_the_store_forgets_them_along_with_what_deleted_namespaces_left(store: Store) -> None:
    environment, long_ago = store.environment, chunks.time() - 2 * UNREFERENCED_S
    with environment.write() as txn:
        chunks.put(txn, environment.chunk_databases, named(VALUE), now_s=lambda: long_ago)
    assert not store.erase_some()
    assert held(store) == 0


def test_a_chunk_that_was_altered_on_the_disk_is_never_served(store: Store) -> None:
    store.put_chunks(named(VALUE))
    name = VALUE.manifest.chunks[1]
    with store.environment.write() as txn:
        txn.put(name, VALUE.chunks[0], db=store.environment.chunk_databases.data)
    with pytest.raises(StorageDamaged, match="made anew"):
        store.chunk(name)


def test_an_emptied_store_has_no_chunks(store: Store, maker: FrameMaker, namespace: bytes) -> None:
    store.put_chunks(named(VALUE))
    maker.put_large(namespace, b"large", PACKED)
    store.apply([maker.cut()])
    store.reset()
    assert held(store) == 0
