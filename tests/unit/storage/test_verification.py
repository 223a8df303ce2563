"""What is computed again from the stored bytes, and how two replicas find where they differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvnet.core.entries import DIGEST_MODULUS, SYSTEM_NAMESPACE
from kvnet.core.manifest import CHUNK_BYTES, Manifest, hash_chunk
from kvnet.core.versions import Version
from kvnet.storage.keys import SLICE_BYTES, find, place, remove
from kvnet.storage.records import pack_record, read_record
from kvnet.storage.state import tally_key
from kvnet.storage.store import Store
from kvnet.storage.verification import SPLITS_MAX, RangeDigest, pinned, range_digest
from tests.support.frames import FrameMaker
from tests.support.stores import open_store


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    stores = open_store(tmp_path / "one"), open_store(tmp_path / "two", node="ams")
    yield stores
    for store in stores:
        store.close()


def fill(stores: tuple[Store, ...], maker: FrameMaker, count: int) -> bytes:
    namespace = maker.create_namespace("a")
    for number in range(count):
        maker.put(namespace, b"%05d" % number + b"k" * (number % 700), b"value")
    frame = maker.cut()
    for store in stores:
        store.apply([frame])
    return namespace


def alter(store: Store, namespace: bytes, key: bytes, change: Callable[[bytes], bytes | None]) -> None:
    """Change a record's bytes behind the store's back; to None removes it."""
    with store.environment.write() as txn:
        prefix = store.tallies[namespace].prefix
        stored = change(find(txn.get, prefix, key))
        if stored is None:
            remove(txn, prefix, key)
        elif len(key) <= SLICE_BYTES:
            txn.put(prefix + key, stored)
        else:
            place(txn, prefix, key, stored, lambda: pytest.fail("it is stored"))


def flip(stored: bytes) -> bytes:
    return stored[:-6] + bytes([stored[-6] ^ 1]) + stored[-5:]


def differing_keys(one: Store, two: Store, namespace: bytes, limit: int) -> tuple[set[bytes], int]:
    """Return the keys in which two replicas differ, and how many ranges were asked for to find them."""
    asked = 0
    found: set[bytes] = set()
    with pinned(one.environment) as left, pinned(two.environment) as right:
        assert left.position == right.position
        ranges = [(b"", b"")]
        while ranges:
            after, until = ranges.pop()
            asked += 1
            ours = left.range_digest(namespace, after, until, limit)
            theirs = right.range_digest(namespace, after, until, limit)
            if (ours.count, ours.digest) == (theirs.count, theirs.digest):
                continue
            if ours.records is not None and theirs.records is not None:
                found |= {key for key, _, _ in set(ours.records) ^ set(theirs.records)}
            else:
                ends = [*(ours.splits or theirs.splits), until]
                ranges += zip([after, *ends], ends, strict=False)
    return found, asked


def test_two_replicas_are_led_to_the_keys_in_which_they_differ(
    pair: tuple[Store, Store], maker: FrameMaker
) -> None:
    one, two = pair
    namespace = fill(pair, maker, 2000)
    assert differing_keys(one, two, namespace, 10) == (set(), 1)
    keys = sorted(maker.records[namespace])
    alter(one, namespace, keys[0], flip)
    alter(one, namespace, keys[1234], lambda stored: None)
    alter(two, namespace, keys[1999], flip)
    found, asked = differing_keys(one, two, namespace, 10)
    assert found == {keys[0], keys[1234], keys[1999]}
    assert asked < 4 * SPLITS_MAX


def test_a_range_ends_with_its_last_key_and_begins_behind_the_one_before(store: Store, maker: FrameMaker) -> None:
    namespace = fill((store,), maker, 20)
    keys = sorted(maker.records[namespace])
    found = range_digest(store.environment, namespace, keys[4], keys[9], 5)
    assert found.records is not None
    assert [key for key, _, _ in found.records] == keys[5:10]
    assert [seq for _, seq, _ in found.records] == [maker.records[namespace][key][1].seq for key in keys[5:10]]
    assert [each for _, _, each in found.records] == [maker.records[namespace][key][0].hash for key in keys[5:10]]
    assert found.digest == sum(int.from_bytes(each, "big") for _, _, each in found.records) % DIGEST_MODULUS
    assert (found.position, found.count, found.splits) == (store.position, 5, [])


@pytest.mark.parametrize("count", [1, 2, SPLITS_MAX, SPLITS_MAX + 1, 500])
def test_the_splits_of_a_range_cut_it_into_parts_that_add_up(store: Store, maker: FrameMaker, count: int) -> None:
    namespace = fill((store,), maker, count)
    whole = range_digest(store.environment, namespace, b"", b"", 0)
    assert whole.records is None
    assert 0 < len(whole.splits) <= SPLITS_MAX
    ends = [*whole.splits, b""]
    parts = [
        range_digest(store.environment, namespace, after, until, count)
        for after, until in zip([b"", *ends], ends, strict=False)
    ]
    assert sum(part.count for part in parts) == whole.count == count
    assert sum(part.digest for part in parts) % DIGEST_MODULUS == whole.digest
    assert max(part.count for part in parts) <= -(-count // SPLITS_MAX) * 2


def test_a_range_of_an_unknown_namespace_is_empty(store: Store) -> None:
    found = range_digest(store.environment, b"?" * 16, b"", b"", 10)
    assert found == RangeDigest(store.position, 0, 0, [], [])


def test_a_pinned_replica_stays_where_it_is_while_the_store_moves_on(store: Store, maker: FrameMaker) -> None:
    namespace = fill((store,), maker, 50)
    position, digest = store.position, store.digest
    with pinned(store.environment) as replica:
        before = replica.range_digest(namespace, b"", b"", 100)
        maker.put(namespace, b"new", b"value")
        maker.delete_namespace(namespace)
        other = maker.create_namespace("b")
        store.apply([maker.cut()])
        assert store.position != position
        assert replica.position == position
        assert replica.digest == digest
        assert replica.namespaces == [SYSTEM_NAMESPACE, namespace]
        assert replica.range_digest(namespace, b"", b"", 100) == before
        assert replica.range_digest(other, b"", b"", 100).count == 0
        assert replica.verify() == (position, digest, digest, [], [])
    assert store.recompute().good


def test_a_tally_with_wrong_bytes_is_found(store: Store, maker: FrameMaker) -> None:
    namespace = fill((store,), maker, 3)
    tally = store.tallies[namespace].copied()
    tally.size_bytes += 1
    with store.environment.write() as txn:
        txn.put(tally_key(namespace), tally.pack(), db=store.environment.database("meta"))
    found = store.recompute()
    assert (found.differing, found.namespaces_differing) == ([], [namespace])
    assert not found.good


def test_a_record_that_was_rewritten_with_a_right_checksum_shows_by_its_hash(
    store: Store, maker: FrameMaker
) -> None:
    """As a forged page could bring it: a checksum proves what was written, a hash what was sequenced."""
    namespace = fill((store,), maker, 1)
    [key] = maker.records[namespace]

    def forge(stored: bytes) -> bytes:
        record = read_record(key, stored)
        return pack_record(key, b"other", b"", 0, record.epoch, record.seq, record.hash)

    alter(store, namespace, key, forge)
    assert store.recompute().differing == [(namespace, key)]


@pytest.mark.parametrize("left", range(0, 40, 3))
def test_a_record_that_was_cut_is_named_whatever_is_left_of_it(store: Store, maker: FrameMaker, left: int) -> None:
    namespace = fill((store,), maker, 2)
    key = min(maker.records[namespace])
    alter(store, namespace, key, lambda stored: stored[: min(left, len(stored) - 1)])
    found = store.recompute()
    assert found.differing == [(namespace, key)]
    assert found.namespaces_differing == [namespace]


def test_bytes_of_a_namespace_follow_its_puts_deletes_and_large_values(store: Store, maker: FrameMaker) -> None:
    def size() -> int:
        assert store.recompute().good
        return int(store.stats()["bytes"][namespace.hex()])

    namespace = fill((store,), maker, 0)
    assert size() == 0
    maker.put(namespace, b"key", b"value", metadata=b"{}", expires_at=1 << 40)
    maker.put(namespace, b"k" * 2048, b"")
    store.apply([maker.cut()])
    assert size() == 3 + 5 + 2 + 2048
    maker.put(namespace, b"key", b"longer value")
    store.apply([maker.cut()])
    assert size() == 3 + 12 + 2048
    chunks = [b"a" * CHUNK_BYTES, b"b" * 10]
    store.put_chunks([(hash_chunk(chunk), chunk) for chunk in chunks])
    manifest = Manifest(CHUNK_BYTES + 10, tuple(hash_chunk(chunk) for chunk in chunks))
    version = maker.put_large(namespace, b"key", manifest.pack(), metadata=b"[]")
    store.apply([maker.cut()])
    assert size() == 3 + CHUNK_BYTES + 10 + 2 + 2048
    record = store.get(namespace, b"key")
    assert record is not None
    assert record.large
    assert record.version == version == Version(1, version.seq)
    assert Manifest.unpack(record.value) == manifest
    maker.put(namespace, b"key", b"small")
    maker.delete(namespace, b"k" * 2048)
    store.apply([maker.cut()])
    assert size() == 3 + 5
    maker.delete_namespace(namespace)
    store.apply([maker.cut()])
    assert namespace.hex() not in store.stats()["bytes"]
    assert store.recompute().good
