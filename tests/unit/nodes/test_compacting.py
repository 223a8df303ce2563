from __future__ import annotations

import asyncio
import json

import pytest

from kvnet.errors import RequestError, StorageFull
from nodes.compacting import Compacting
from tests.support.frames import FrameMaker
from tests.support.stores import assert_is_fold, open_store


@pytest.fixture
def maker():
    maker = FrameMaker()
    maker.open_epoch()
    namespace = maker.create_namespace("settings")
    for number in range(2000):
        maker.put(namespace, b"key-%04d" % number, b"value" * 100)
    maker.cut()
    for number in range(1900):
        maker.delete(namespace, b"key-%04d" % number)
    maker.cut()
    return maker


@pytest.fixture
def store(tmp_path, maker):
    store = open_store(tmp_path / "store", journal_bytes_max=1)
    for frame in maker.frames:
        store.apply([frame])
    yield store
    store.close()


async def in_place(task):
    task()


async def test_what_is_free_goes_back_and_nothing_else(store, maker):
    told = json.loads((await Compacting(store, write=in_place).answer()).text)
    assert told["after"] < told["before"] / 2
    assert store.stats()["map_bytes"] == told["after"]
    assert not store.is_compacting
    assert_is_fold(store, maker)


async def test_a_second_one_at_once_is_refused(store):
    turn = asyncio.Event()

    async def slowly(task):
        await turn.wait()
        task()

    compacting = Compacting(store, write=slowly)
    first = asyncio.create_task(compacting.answer())
    await asyncio.sleep(0)
    with pytest.raises(RequestError) as refused:
        await compacting.answer()
    assert refused.value.status == 429
    turn.set()
    assert (await first).status == 200


async def test_a_replica_that_is_being_made_anew_is_not_compacted(store):
    store.begin_successor(store.position)
    with pytest.raises(RequestError) as refused:
        await Compacting(store, write=in_place).answer()
    assert refused.value.status == 409


async def test_a_disk_without_room_for_the_copy_is_told_before(store, monkeypatch):
    class Full:
        free = 1000

    monkeypatch.setattr("shutil.disk_usage", lambda path: Full)
    with pytest.raises(RequestError, match="free some") as refused:
        await Compacting(store, write=in_place).answer()
    assert refused.value.status == 507


async def test_a_disk_that_fills_up_meanwhile_leaves_everything_as_it_was(store, maker, monkeypatch):
    def full():
        raise StorageFull("the disk is full")

    monkeypatch.setattr(store, "finish_compaction", full)
    with pytest.raises(RequestError) as refused:
        await Compacting(store, write=in_place).answer()
    assert refused.value.status == 507
    assert not store.is_compacting
    assert_is_fold(store, maker)


async def test_a_replica_that_is_replaced_meanwhile_ends_it(store):
    def replaced():
        store.abandon_successor()

    compacting = Compacting(store, write=in_place)
    store.finish_compaction = replaced
    with pytest.raises(RequestError, match="replaced meanwhile"):
        await compacting.answer()
