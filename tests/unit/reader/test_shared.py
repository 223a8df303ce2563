"""A replica as the store of another process: as new as its page says, and of one moment until somebody waits."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from kvnet.core.versions import GENESIS
from kvnet.reader.shared import SharedStore
from tests.support.large import large_value
from tests.support.store_process import StoreProcess


@pytest.fixture
def shared(node: StoreProcess, folder) -> SharedStore:
    node.put("a", ("k", "1"))
    return SharedStore(folder)


def namespace_of(shared: SharedStore, title: str = "a") -> bytes:
    return shared.titles[title].id


def value_of(shared: SharedStore, key: bytes = b"k") -> bytes:
    found = shared.get(namespace_of(shared), key)
    assert found is not None
    return found.value


def position_of(node: StoreProcess) -> tuple[int, int]:
    return tuple(node.do("tuple(store.position.version)"))


def test_what_the_node_commits_is_there_with_its_position(node, shared):
    node.put("a", ("k", "2"), ("l", "3"))
    namespace = namespace_of(shared)
    assert value_of(shared) == b"2"
    assert tuple(shared.position.version) == position_of(node)
    assert [key.key for key in shared.list_keys(namespace, b"", None, 10, 0)[0]] == [b"k", b"l"]
    found = shared.get_many(namespace, [b"k", b"absent", b"l"])
    assert [record and record.value for record in found] == [b"2", None, b"3"]


def test_between_commits_a_look_is_the_same_and_during_one_each_is_another(node, shared):
    first = shared.look()
    assert shared.look() is first
    node.do("store.changes.__setitem__(0, store.changes[0] + 1)")
    assert shared.look() is not first
    assert shared.look() is not shared.look()


def test_a_commit_is_seen_before_the_node_says_that_it_is_done(node, shared, tmp_path):
    """In that moment another reader may have answered from it."""
    reached, go_on = tmp_path / "reached", tmp_path / "go on"
    before = shared.position
    waits = f"time.sleep(0.001) for _ in iter(lambda: Path({str(go_on)!r}).exists(), True)"
    step = f"lambda name: name == 'apply: committed' and (Path({str(reached)!r}).touch(), [{waits}])"
    node.do(f"setattr(store, '_step', {step})")
    writing = threading.Thread(target=node.put, args=("a", ("k", "2")))
    writing.start()
    try:
        give_up = time.monotonic() + 30
        while not reached.exists():
            assert time.monotonic() < give_up
        assert shared.changes[0] & 1
        assert value_of(shared) == b"2"
        assert shared.position.seq == before.seq + 1
    finally:
        go_on.touch()
        writing.join()


def test_the_catalogue_is_read_again_only_when_it_is_another(node, shared):
    catalogue = shared.view.catalogue
    node.put("a", ("k", "2"))
    assert shared.view.catalogue is catalogue
    node.put("b", ("k", "2"))
    assert set(shared.titles) == {"a", "b"}
    node.do("drop('a')")
    assert set(shared.titles) == {"b"}


async def test_a_task_sees_one_moment_until_it_waits(node, shared):
    before = shared.position
    node.put("a", ("k", "2"))
    # A read may be newer than the position that is told with it, and never older.
    assert shared.position == before
    assert value_of(shared) == b"2"
    await asyncio.sleep(0)
    assert tuple(shared.position.version) == position_of(node) > tuple(before.version)


async def test_what_a_task_tells_of_its_age_is_as_old_as_what_it_reads(node, shared):
    """A beacon that comes after the read says nothing of what was read."""
    tell = "page.tell_view(BeaconView(1, 1, 0, 1, 1, BeaconSeen({}, {}, 0.0, 0.0)))"
    monotonic_ms, wall_ms = time.monotonic() * 1000, time.time() * 1000
    node.do(tell.format(monotonic_ms - 60_000, wall_ms - 60_000))
    assert shared.staleness_ms() >= 60_000
    node.do(tell.format(time.monotonic() * 1000, time.time() * 1000))
    assert shared.staleness_ms() >= 60_000
    await asyncio.sleep(0)
    assert shared.staleness_ms() < 60_000


async def test_a_callback_sees_what_is_newest(node, shared):
    """Its request may have come after what a task looks at."""
    loop = asyncio.get_running_loop()
    told = loop.create_future()
    before = shared.position
    node.put("a", ("k", "2"))
    loop.call_soon(lambda: told.set_result(shared.position))
    assert shared.position == before
    assert tuple((await told).version) == position_of(node)


def test_it_serves_until_the_node_refuses_its_replica_and_again_with_another(node, shared):
    assert shared.serves
    changes = shared.changes[0]
    node.do("page.refuse()")
    assert not shared.serves
    assert shared.changes[0] != changes, "whoever remembers answers has to ask again"
    node.do("store.reset()")
    assert not shared.serves
    assert (shared.cluster, shared.position) == (None, GENESIS)
    node.do("store.apply(maker.frames) and None")
    node.do("store.mark_verified()")
    assert shared.serves
    assert value_of(shared) == b"1"


@pytest.mark.parametrize("swap", ["swap()", "(store.begin_compaction(), store.copy_compacted())"])
def test_a_replica_that_takes_the_place_of_another_is_read_at_once(node, shared, swap):
    environment = shared.view.environment
    node.do(swap)
    while node.do("store.is_compacting"):
        node.do("store.finish_compaction() and None")
    node.put("a", ("k", "2"))
    assert shared.view.environment is not environment
    assert shared.serves
    assert value_of(shared) == b"2"


def test_a_killed_nodes_replica_is_read_on_and_the_next_ones_as_well(node, shared, folder):
    node.do("store._change()")
    node.do("store.changes.__setitem__(0, store.changes[0] + 1)")
    node.kill()
    assert shared.serves
    assert value_of(shared) == b"1"
    with StoreProcess(folder) as again:
        again.do("store.verified")
        assert shared.serves
        assert value_of(shared) == b"1"
        assert not shared.changes[0] & 1
        assert shared.look() is shared.look()


def test_what_a_large_value_is_made_of_is_given(node, shared):
    value = large_value(2)
    node.do("store.put_chunks(named(large_value(2)))")
    assert [shared.chunk(name) for name in value.manifest.chunks] == list(value.chunks)
    absent = bytes(len(value.manifest.chunks[0]))
    assert shared.lacking_chunks([*value.manifest.chunks, absent]) == [absent]


def test_without_a_page_there_is_nothing_to_go_by(tmp_path):
    with pytest.raises(FileNotFoundError):
        SharedStore(tmp_path)


def test_another_page_in_its_place_is_noticed(shared, folder):
    assert not shared.is_replaced
    (folder / "serving").rename(folder / "elsewhere")
    assert shared.is_replaced
