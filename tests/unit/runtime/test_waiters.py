from __future__ import annotations

import asyncio

import pytest

from kvnet.core.versions import Position, Version
from kvnet.runtime import waiters as waiters_module
from kvnet.runtime.waiters import Waiters
from tests.support.peers import DEADLINE_S


def at(seq: int, epoch: int = 1) -> Position:
    return Position(epoch, seq, bytes(16))


def start(waiters: Waiters, version: Version, timeout_ms: float = DEADLINE_S * 1000):
    return asyncio.ensure_future(waiters.wait(version, at(5), timeout_ms))


async def test_what_is_there_already_is_not_waited_for():
    assert await Waiters().wait(Version(1, 5), at(5), 0.0)


async def test_waiting_ends_when_the_replica_gets_there_and_not_before():
    waiters = Waiters()
    tasks = [start(waiters, Version(1, seq)) for seq in (8, 6, 7)]
    await asyncio.sleep(0)
    waiters.release(at(7))
    assert [await tasks[1], await tasks[2]] == [True, True]
    assert not tasks[0].done()
    waiters.release(at(9))
    assert await tasks[0]


async def test_a_version_of_a_later_epoch_is_not_had_in_an_earlier_one():
    waiters = Waiters()
    task = start(waiters, Version(2, 6))
    await asyncio.sleep(0)
    waiters.release(at(9))
    await asyncio.sleep(0)
    assert not task.done()
    waiters.release(at(10, epoch=2))
    assert await task


async def test_waiting_ends_with_its_time():
    assert not await Waiters().wait(Version(1, 6), at(5), 1.0)


@pytest.mark.parametrize("how", ["timeout", "cancelled"])
async def test_those_who_gave_up_leave_nothing_behind(how):
    waiters = Waiters()
    tasks = [start(waiters, Version(1, 100 + i), timeout_ms=1.0 if how == "timeout" else 1e6) for i in range(500)]
    await asyncio.sleep(0)
    if how == "cancelled":
        for task in tasks:
            task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(waiters._heap) <= 64
    assert waiters._live == 0


async def test_the_number_of_waiting_is_bounded(monkeypatch):
    monkeypatch.setattr(waiters_module, "WAITERS_MAX", 3)
    waiters = Waiters()
    tasks = [start(waiters, Version(1, 6)) for _ in range(3)]
    await asyncio.sleep(0)
    assert not await waiters.wait(Version(1, 6), at(5), 1e6)
    waiters.release(at(6))
    assert await asyncio.gather(*tasks) == [True] * 3
