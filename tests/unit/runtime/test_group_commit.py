"""Group commit over a real store: nobody hears of a write before it is durable, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import threading

import pytest

from kvnet.core.operations import CreateNamespace, PutValue
from kvnet.core.writer import Writer
from kvnet.errors import RequestError, StorageFull
from kvnet.limits import Limits
from kvnet.runtime.group_commit import GroupCommit
from tests.support.stores import open_store

NAMESPACE = b"n" * 16


def put(key):
    return [PutValue(NAMESPACE, key, b"v", b"", 0, 0)]


class Desk:
    """A store with an open epoch and one namespace, and all that group commit told."""

    def __init__(self, folder):
        self.store = open_store(folder)
        self.writer = Writer(self.store, Limits())
        self.writer.open_epoch(1, bytes(16))
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
        )

    @property
    def position(self):
        return self.store.position

    def apply(self, frames, requests=()):
        self.applying.set()
        if self.hold is not None:
            self.hold.wait(5)
        if self.problems:
            raise self.problems.pop()
        return self.store.apply(frames, requests)

    def erase_some(self, budget=1000):
        return self.store.erase_some(budget)


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
