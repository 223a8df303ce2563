"""A replica takes another's place under its readers: by a bootstrap, a reset, a compaction; also without room."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from kvnet.core.manifest import hash_chunk
from kvnet.core.versions import GENESIS
from kvnet.errors import BeyondHorizon
from kvnet.storage.store import Durability
from tests.support.stores import assert_is_fold, bootstrap, open_store, pages_of


@pytest.fixture
def donor(tmp_path):
    donor = open_store(tmp_path / "donor")
    yield donor
    donor.close()


@pytest.fixture
def namespace(donor, maker):
    namespace = maker.create_namespace("a")
    maker.put(namespace, b"short", b"value")
    maker.put(namespace, b"long" * 400, b"value")
    donor.apply([maker.cut()])
    return namespace


def open_files(folder: Path) -> list[str]:
    """What this process has open there, deleted or not."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            target = str(each.readlink())
        except FileNotFoundError:
            continue
        if target.startswith(str(folder)) and "data.mdb" in target:
            found.append(target)
    return sorted(found)


@pytest.mark.parametrize("durability", Durability)
def test_readers_on_other_threads_never_see_an_unserved_moment(folder, donor, maker, namespace, durability):
    """Ten swaps under four readers: each read finds what all the replicas hold."""
    store = open_store(folder, durability=durability)
    store.apply(maker.frames)
    stop, failures, reads = threading.Event(), [], [0] * 4

    def read(number: int) -> None:
        try:
            while not stop.is_set():
                for key in (b"short", b"long" * 400):
                    record = store.get(namespace, key)
                    assert record is not None
                    assert record.value == b"value"
                assert len(store.list_keys(namespace, b"", None, 10, 0)[0]) == 2
                assert store.holds(store.position)
                assert store.journal.lacking_chunks([b"c" * 32]) == [b"c" * 32]
                assert store.chunk(b"c" * 32) is None
                assert store.journal.frames_after(store.journal.position.seq, 1) == []
                assert store.read_page(b"").position == maker.position
                reads[number] += 1
        except BaseException as error:  # noqa: BLE001 - the test's own thread raises it
            failures.append(error)

    readers = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(10):
            bootstrap(store, pages_of(donor, 100), [])
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert not failures
    assert all(reads)
    assert_is_fold(store, maker)
    store.close()


def test_a_replaced_environment_is_closed_when_its_last_reader_is_done(folder, donor, maker, namespace):
    store = open_store(folder)
    store.apply(maker.frames)
    with store.environment.view() as txn:
        bootstrap(store, pages_of(donor), [])
        prefix = store.tallies[namespace].prefix
        assert txn.get(prefix + b"short") is not None
        assert any("(deleted)" in name for name in open_files(folder))
    del txn
    assert not any("(deleted)" in name for name in open_files(folder))
    assert {path.name for path in folder.glob("replica*")} == {"replica-2"}
    store.close()
    assert not open_files(folder)


def test_the_catalogue_changes_its_generation_with_the_swap(store, donor, maker, namespace):
    before = store.catalogue_generation
    bootstrap(store, pages_of(donor), [])
    assert store.catalogue_generation > before
    assert set(store.titles) == {"a"}


# -- compaction ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", Durability)
def test_compaction_gives_back_what_was_freed_and_keeps_what_came_meanwhile(folder, maker, durability):
    store = open_store(folder, durability=durability, journal_bytes_max=100_000)
    namespace = maker.create_namespace("a")
    for number in range(2000):
        maker.put(namespace, b"%d" % number, bytes(1000))
    for number in range(1900):
        maker.delete(namespace, b"%d" % number)
    store.apply([maker.cut()])
    maker.put(namespace, b"makes the large frame go", b"")
    store.apply([maker.cut()])
    store.mark_verified()
    store.begin_compaction()
    copier = threading.Thread(target=store.copy_compacted)
    copier.start()
    copier.join()
    answered = maker.put(namespace, b"meanwhile", b"value")
    store.apply([maker.cut()], [(b"request", answered, 1000)])
    chunk = b"chunk"
    name = hash_chunk(chunk)
    store.put_chunks([(name, chunk)])
    for number in range(20):
        maker.put(namespace, b"later-%d" % number, b"value")
        store.apply([maker.cut()])
    while (done := store.finish_compaction(bytes_max=300)) is None:
        assert store.is_compacting
    assert done.after < done.before / 3
    assert not store.is_compacting
    assert_is_fold(store, maker)
    assert store.request_outcome(b"request") == answered
    assert store.chunk(name) == chunk
    assert store.verified
    maker.put(namespace, b"after", b"value")
    store.apply([maker.cut()])
    store.close()
    store = open_store(folder, durability=durability, journal_bytes_max=100_000)
    assert_is_fold(store, maker)
    store.close()


def test_a_copy_that_the_journal_left_behind_is_thrown_away(folder, maker):
    store = open_store(folder, journal_bytes_max=1000)
    namespace = maker.create_namespace("a")
    store.apply([maker.cut()])
    store.begin_compaction()
    store.copy_compacted()
    for number in range(100):
        maker.put(namespace, b"%d" % number, bytes(100))
        store.apply([maker.cut()])
    with pytest.raises(BeyondHorizon):
        store.finish_compaction()
    assert not store.is_compacting
    assert store.finish_compaction() is None
    assert_is_fold(store, maker)
    store.close()
    store = open_store(folder, journal_bytes_max=1000)
    assert len(list(folder.glob("replica*"))) == 1
    store.close()


@pytest.mark.parametrize("end", ["reset", "begin_successor"])
def test_a_compaction_ends_with_what_it_would_replace(store, donor, maker, namespace, end):
    store.apply(maker.frames)
    store.begin_compaction()
    store.copy_compacted()
    if end == "reset":
        store.reset()
    else:
        store.begin_successor(maker.position)
    assert store.finish_compaction() is None
    if end == "reset":
        assert store.position == GENESIS
    bootstrap(store, pages_of(donor), [])
    assert_is_fold(store, maker)
