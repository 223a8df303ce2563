"""Group commit over a real store: nobody hears of a write before it is durable, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import threading

import pytest

from kvnet.core.operations import CreateNamespace, DeleteNamespace, PutValue
from kvnet.core.writer import Writer
from kvnet.errors import RequestError, StorageFull
from kvnet.limits import Limits
from kvnet.runtime.group_commit import GroupCommit
from tests.support.peers import until
from tests.support.stores import open_store

NAMESPACE = b"n" * 16


def put(key):
    return [PutValue(NAMESPACE, key, b"v", b"", 0, 0)]


class Desk:
    """A store with an open epoch and one namespace, and all that group commit told."""

    def __init__(self, folder, removals_per_second=0, epoch=1):
        self.store = open_store(folder, tracks_expiries=True)
        self.writer = Writer(self.store, Limits())
        self.time_s = 1000
        self.writer.open_epoch(epoch, bytes(16))
        self.told = []
        self.problems = []
        self.broken = []
        self.hold = None
        """A commit waits for it."""
        self.applying = threading.Event()
        self.commit = GroupCommit(
            self.writer,
            self,
            interval_ms=5,
            feed=lambda event: self.told.append(("frames", event.frames[-1].last_seq, self.position.seq)),
            on_durable=lambda frames, _: self.told.append(("durable", frames[-1].last_seq, self.position.seq)),
            broken=self.broken.append,
            time_ms=lambda: self.time_s * 1000,
            removals_per_second=removals_per_second,
        )

    @property
    def position(self):
        return self.store.position

    def apply(self, frames, requests=(), stale=()):
        self.applying.set()
        if self.hold is not None:
            self.hold.wait(5)
        if self.problems:
            raise self.problems.pop()
        return self.store.apply(frames, requests, stale)

    def erase_some(self, budget=1000):
        return self.store.erase_some(budget)

    def index_some(self, budget=1000):
        return self.store.index_some(budget)

    def due(self, now_s, limit):
        return self.store.due(now_s, limit)


@pytest.fixture
async def desk(tmp_path):
    desk = Desk(tmp_path)
    await desk.commit.write([CreateNamespace(NAMESPACE, "n")], None)
    desk.told.clear()
    desk.applying.clear()
    yield desk
    await desk.commit.close()
    desk.store.close()


async def test_a_write_is_durable_before_anybody_hears_of_it(desk):
    version = await desk.commit.write(put(b"k"), None)
    assert desk.position.version == version
    assert desk.told == [("durable", version.seq, version.seq), ("frames", version.seq, version.seq)]


async def test_writes_of_one_moment_share_a_commit(desk):
    versions = await asyncio.gather(*(desk.commit.write(put(b"%d" % i), None) for i in range(20)))
    assert len({version.seq for version in versions}) == 20
    assert [kind for kind, *_ in desk.told] == ["durable", "frames"]


async def test_a_full_disk_undoes_what_waits_and_takes_what_comes_later(desk):
    before = desk.position
    desk.problems.append(StorageFull("no room"))
    with pytest.raises(RequestError, match="disk is full") as refused:
        await desk.commit.write(put(b"k"), None)
    assert (refused.value.status, refused.value.definite) == (507, True)
    assert desk.position == before
    assert not desk.told
    assert (await desk.commit.write(put(b"k"), None)).seq == before.seq + 1


async def test_a_failed_disk_tells_that_the_write_may_have_been_made_and_ends_the_node(desk):
    desk.problems.append(OSError("gone"))
    with pytest.raises(RequestError) as refused:
        await desk.commit.write(put(b"k"), None)
    assert not refused.value.definite
    assert [str(error) for error in desk.broken] == ["gone"]


async def test_a_commit_that_breaks_beside_the_disk_leaves_nobody_waiting(desk, monkeypatch):
    """Its error was kept by a task that nobody asked: all writes from then on waited for ever."""

    def cut(_wall_ms):
        raise AssertionError("broken")

    monkeypatch.setattr(desk.writer, "cut", cut)
    with pytest.raises(RequestError) as refused:
        await desk.commit.write(put(b"k"), None)
    assert not refused.value.definite
    assert [str(error) for error in desk.broken] == ["broken"]
    with pytest.raises(RequestError, match="stopping"):
        await desk.commit.write(put(b"k"), None)


async def test_who_refuses_makes_no_write_durable_that_it_told_was_refused(desk):
    """The commit that was due ran all the same: a write was answered with 503 and was there afterwards."""
    before = desk.position
    write = asyncio.ensure_future(desk.commit.write(put(b"k"), None))
    await asyncio.sleep(0)
    desk.commit.refuse("another one writes")
    with pytest.raises(RequestError, match="another one writes") as refused:
        await write
    assert refused.value.status == 503
    await desk.commit.close()
    assert desk.position == before
    assert not desk.told


async def test_who_refuses_answers_what_is_on_its_way_to_the_disk(desk):
    desk.hold = threading.Event()
    under_way = asyncio.ensure_future(desk.commit.write(put(b"a"), None))
    await asyncio.to_thread(desk.applying.wait, 5)
    waiting = asyncio.ensure_future(desk.commit.write(put(b"b"), None))
    await asyncio.sleep(0)
    desk.commit.refuse("another one writes")
    desk.hold.set()
    version = await under_way
    assert desk.position.version == version
    with pytest.raises(RequestError, match="another one writes"):
        await waiting
    with pytest.raises(RequestError):
        await desk.commit.write(put(b"c"), None)
    assert desk.commit.refuses


# -- what has expired is removed


def put_until(key, expires_at):
    return [PutValue(NAMESPACE, key, b"v", b"", expires_at, 0)]


def here(desk):
    return [key.key for key in desk.store.list_keys(NAMESPACE, b"", None, 1000, now_s=0)[0]]


@pytest.fixture
async def removing(tmp_path, monkeypatch):
    monkeypatch.setattr("kvnet.runtime.group_commit.REMOVAL_INTERVAL_S", 0.02)
    desk = Desk(tmp_path, removals_per_second=100)
    await desk.commit.write([CreateNamespace(NAMESPACE, "n")], None)
    yield desk
    await desk.commit.close()
    desk.store.close()


async def test_expired_records_are_removed_though_nobody_writes(removing):
    for expires_at in (1001, 1002, 0):
        await removing.commit.write(put_until(b"%d" % expires_at, expires_at), None)
    await asyncio.sleep(0.1)
    assert here(removing) == [b"0", b"1001", b"1002"], "nothing has expired yet"
    removing.time_s = 1001
    await until(lambda: here(removing) == [b"0", b"1002"])
    removing.time_s = 1002
    await until(lambda: here(removing) == [b"0"])
    assert removing.store.recompute().good


async def test_so_many_are_removed_at_a_time_as_the_rate_allows(removing):
    await removing.commit.write([op for n in range(10) for op in put_until(b"%d" % n, 1000 + n)], None)
    seq = removing.position.seq
    removing.told.clear()
    removing.time_s = 2000
    await until(lambda: not here(removing))
    cuts = [told[1] for told in removing.told if told[0] == "frames"]
    assert cuts == [seq + 2, seq + 4, seq + 6, seq + 8, seq + 10]


async def test_rows_of_a_deleted_namespace_stall_nothing(removing):
    other = b"o" * 16
    await removing.commit.write([CreateNamespace(other, "o")], None)
    await removing.commit.write([PutValue(other, b"%d" % n, b"v", b"", 1000, 0) for n in range(10)], None)
    await removing.commit.write(put_until(b"k", 1001), None)
    removing.time_s = 999
    await removing.commit.write([DeleteNamespace(other)], None)
    assert len(removing.store.due(2000, 100)) >= 1
    removing.time_s = 2000
    await until(lambda: not removing.store.due(2000, 100))
    assert here(removing) == []


async def test_removals_share_the_commit_of_a_clients_write(removing):
    await removing.commit.write(put_until(b"k", 1001), None)
    removing.hold = threading.Event()
    removing.applying.clear()
    first = asyncio.ensure_future(removing.commit.write(put(b"a"), None))
    await asyncio.to_thread(removing.applying.wait, 5)
    removing.time_s = 1001
    await until(lambda: removing.writer.has_pending)
    second = asyncio.ensure_future(removing.commit.write(put(b"b"), None))
    await asyncio.sleep(0)
    removing.told.clear()
    removing.hold.set()
    await asyncio.gather(first, second)
    assert here(removing) == [b"a", b"b"]
    assert len([told for told in removing.told if told[0] == "frames"]) == 2


async def test_a_full_disk_is_left_alone_and_removals_come_again(removing, monkeypatch):
    monkeypatch.setattr("kvnet.runtime.group_commit.FULL_REST_S", 0.1)
    await removing.commit.write(put_until(b"k", 1001), None)
    removing.problems += [StorageFull("no room"), StorageFull("no room")]
    removing.time_s = 1001
    await until(lambda: not removing.problems)
    assert here(removing) == [b"k"]
    await until(lambda: not here(removing))


async def test_a_client_that_was_refused_with_the_removals_of_its_commit_may_write_again(removing):
    await removing.commit.write(put_until(b"k", 1001), None)
    removing.time_s = 1001
    removing.problems.append(StorageFull("no room"))
    with pytest.raises(RequestError, match="disk is full"):
        await removing.commit.write(put(b"a"), None)
    await removing.commit.write(put(b"a"), None)
    await until(lambda: here(removing) == [b"a"])


@pytest.mark.parametrize("how", ["refuse", "close"])
async def test_nothing_is_removed_once_writing_has_ended(removing, how):
    await removing.commit.write(put_until(b"k", 1001), None)
    if how == "refuse":
        removing.commit.refuse("another one writes")
    else:
        await removing.commit.close()
    position = removing.position
    removing.time_s = 1001
    await asyncio.sleep(0.1)
    assert removing.position == position
    assert removing.commit._removing is None or removing.commit._removing.cancelled()


async def test_what_was_written_before_there_was_an_index_is_removed_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr("kvnet.runtime.group_commit.REMOVAL_INTERVAL_S", 0.02)
    before = Desk(tmp_path)
    await before.commit.write([CreateNamespace(NAMESPACE, "n")], None)
    await before.commit.write([op for n in range(5) for op in put_until(b"%d" % n, 900)], None)
    await before.commit.close()
    before.store.close()
    open_store(tmp_path).close()  # the index isn't kept for a while
    desk = Desk(tmp_path, removals_per_second=100, epoch=2)
    desk.commit.commit_soon()
    await until(lambda: not here(desk))
    await desk.commit.close()
    desk.store.close()


async def test_a_time_to_live_counts_from_the_time_by_which_reads_go(removing):
    """The wall was set back: what is to live for a minute would have been born expired."""
    removing.time_s = 4_000_000_000
    await removing.commit.write([PutValue(NAMESPACE, b"k", b"v", b"", 0, 60)], None)
    assert removing.store.get(NAMESPACE, b"k").expires_at == removing.time_s + 60
