from __future__ import annotations

import asyncio

import pytest

from kvnet.core.events import ReceiptsWanted
from kvnet.core.messages import Ack, BeaconId
from kvnet.core.spread import Share
from kvnet.core.versions import Version
from kvnet.runtime import receipts
from kvnet.runtime.receipts import HEARD_MAX, WANTED_MS, ReceiptDesk
from tests.support.peers import until

MEMBERS = ("ams", "fra", "nrt", "per")
FIRST = BeaconId(1, 1)
ALL = Share.parse("all")
HALF = Share.parse("50%")


class Desk(ReceiptDesk):
    """A desk with a clock that stands still, and what it told the core."""

    def __init__(self):
        self.now = 1000.0
        self.fed = []
        super().__init__(MEMBERS, self.fed.append, lambda: self.now)

    def hear(self, seq, *members, epoch=1, life=FIRST):
        self.on_acks([Ack(member, life, Version(epoch, seq)) for member in members])

    def begin(self, version, share, timeout_ms=60_000):
        return asyncio.ensure_future(self.wait(version, share, timeout_ms))


@pytest.fixture
def desk():
    return Desk()


async def waiting(desk, count):
    await until(lambda: desk.waiting == count)


async def test_a_wait_ends_when_so_many_members_have_told(desk):
    desk.expect()
    desk.on_durable(Version(1, 7))
    half, everybody = desk.begin(Version(1, 7), HALF), desk.begin(Version(1, 7), ALL)
    await waiting(desk, 2)
    desk.now += 20
    desk.hear(7, "fra")
    desk.hear(6, "ams", "nrt", "per")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not half.done()
    desk.now += 30
    desk.hear(9, "per")
    spread = await half
    assert (spread.complete, spread.applied, spread.of) == (True, 2, 4)
    assert spread.missing == ("ams", "nrt")
    assert spread.took_ms == {"fra": 20, "per": 50}
    assert not everybody.done()
    desk.now += 1
    desk.hear(7, "ams", "nrt")
    spread = await everybody
    assert (spread.complete, spread.applied, spread.missing) == (True, 4, ())
    assert spread.took_ms == {"ams": 51, "fra": 20, "nrt": 51, "per": 50}
    assert desk.waiting == 0
    assert not desk._waiters


async def test_at_the_time_out_the_missing_are_named(desk):
    desk.hear(7, "fra")
    spread = await desk.wait(Version(1, 7), ALL, 1)
    assert (spread.complete, spread.applied, spread.of) == (False, 1, 4)
    assert spread.missing == ("ams", "nrt", "per")
    assert desk.waiting == 0
    assert not desk._waiters


async def test_what_is_known_already_is_answered_at_once_and_without_a_word_to_the_core(desk):
    desk.hear(7, *MEMBERS)
    assert (await desk.wait(Version(1, 5), ALL, 60_000)).complete
    assert desk.fed == []


async def test_receipts_are_wanted_from_before_the_write_until_after_the_wait(desk):
    desk.expect()
    assert desk.fed == [ReceiptsWanted(1000 + WANTED_MS)]
    await desk.wait(Version(1, 7), ALL, 5)
    assert desk.fed[1:] == [ReceiptsWanted(1000 + 5 + WANTED_MS)]


async def test_a_write_of_a_later_epoch_is_not_had_by_reaching_its_seq_in_an_earlier_one(desk):
    desk.hear(9, "ams", "fra", "nrt", "per", epoch=1)
    assert (await desk.wait(Version(2, 8), HALF, 1)).applied == 0
    waits = desk.begin(Version(2, 8), HALF)
    await waiting(desk, 1)
    desk.hear(8, "ams", "fra", epoch=2)
    assert (await waits).missing == ("nrt", "per")


async def test_a_member_that_began_again_has_what_its_new_life_tells(desk):
    desk.hear(9, *MEMBERS)
    desk.hear(3, "per", life=BeaconId(1, 50))
    spread = await desk.wait(Version(1, 9), ALL, 1)
    assert (spread.complete, spread.missing) == (False, ("per",))
    desk.hear(9, "per", life=BeaconId(1, 50))
    assert (await desk.wait(Version(1, 9), ALL, 1)).complete


async def test_whoever_is_no_member_does_not_count(desk):
    desk.hear(9, "stranger", "fra")
    assert (await desk.wait(Version(1, 9), HALF, 1)).applied == 1


async def test_of_a_write_that_nobody_announced_no_times_are_told(desk):
    """So it is after a restart: when it became durable isn't known."""
    desk.hear(9, "fra")
    spread = await desk.wait(Version(1, 9), ALL, 1)
    assert (spread.applied, spread.took_ms) == (1, {})


async def test_what_is_remembered_of_a_member_is_bounded_and_still_tells_when(desk):
    desk.on_durable(Version(1, 5 * HEARD_MAX))
    for seq in range(1, 5 * HEARD_MAX + 1):
        desk.now += 1
        desk.hear(seq, "fra")
    assert len(desk._members["fra"].seqs) <= HEARD_MAX
    desk.on_durable(Version(1, 6 * HEARD_MAX))
    desk.now += 7
    desk.hear(6 * HEARD_MAX, "fra")
    assert (await desk.wait(Version(1, 6 * HEARD_MAX), ALL, 1)).took_ms == {"fra": 7}


async def test_of_durable_writes_the_oldest_are_forgotten(desk, monkeypatch):
    monkeypatch.setattr(receipts, "DURABLE_MAX", 3)
    for seq in range(10):
        desk.on_durable(Version(1, seq))
    assert list(desk._durable) == [Version(1, 7), Version(1, 8), Version(1, 9)]


async def test_one_waiter_too_many_is_told_at_once_how_things_stand(desk, monkeypatch):
    monkeypatch.setattr(receipts, "WAITING_MAX", 1)
    first = desk.begin(Version(1, 7), ALL)
    await waiting(desk, 1)
    assert not (await desk.wait(Version(1, 7), ALL, 60_000)).complete
    desk.hear(7, *MEMBERS)
    assert (await first).complete


async def test_waiters_whose_time_is_over_leave_nothing_behind(desk):
    stays = desk.begin(Version(1, 1), ALL)
    await waiting(desk, 1)
    for seq in range(2, 300):
        await desk.wait(Version(1, seq), ALL, 0.001)
    assert sum(map(len, desk._waiters.values())) <= 2 * 1 + 64 + 1
    desk.hear(1, *MEMBERS)
    assert (await stays).complete
