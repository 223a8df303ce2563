"""What an edge tells who reads beside it: the time it goes by, and how old its view is."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from kvnet.core.events import DeadlineReached
from kvnet.core.freshness import BeaconSeen, ReplicaClock
from kvnet.core.messages import BeaconId
from kvnet.core.state import NEVER
from kvnet.core.versions import Position
from kvnet.storage.serving import NO_OFFSET, SeenPage, ServingPage
from nodes import edge as edges
from nodes import serving
from nodes.edge import Edge
from nodes.serving import Announcer

STAMP_MS = 1_522_540_800_000.0


class Core:
    """A core that hears a beacon with its next event, if there is one."""

    name = "fra"

    def __init__(self) -> None:
        self.heard: tuple[float, float] | None = None
        self.applied = True
        self.state = SimpleNamespace(
            beacon_at=NEVER, beacon_time_ms=0.0, beacon=BeaconId(0, 0), beacon_seen=self._seen
        )

    def _seen(self, seq):
        if not self.applied or self.state.beacon_at == NEVER:
            return None
        return BeaconSeen(self.state.beacon_at, self.state.beacon_time_ms, 0.0, 10.0)

    def handle(self, event, now_ms):
        if self.heard is not None:
            self.state.beacon_time_ms, self.state.beacon_at = self.heard
            self.state.beacon = BeaconId(1, self.state.beacon.number + 1)
            self.heard = None
        return [event, now_ms]


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Starts a node's announcer; as often as it is called, one after the other."""
    monkeypatch.setattr(serving, "monotonic_ms", lambda: 500.0)

    def start(boot="boot 1"):
        page = ServingPage.open(tmp_path / "serving", boot)
        core = Core()
        clock = ReplicaClock(int(STAMP_MS) << 16)
        store = SimpleNamespace(position=Position(1, 7, bytes(16)), stamp=int(STAMP_MS) << 16)
        return Announcer(core, store, clock, page, b"start id"), core, clock, store

    return start


@pytest.fixture
def seen(started, tmp_path):
    started()
    return SeenPage(tmp_path / "serving")


def test_it_is_the_core_towards_the_driver(started):
    announcer, _, _, _ = started()
    event = DeadlineReached()
    assert announcer.name == "fra"
    assert announcer.handle(event, 3.0) == [event, 3.0]


def test_before_the_first_beacon_time_stands_at_the_last_stamp(started, seen):
    assert (seen.offset_ms, seen.now_ms(1e6), seen.view()) == (NO_OFFSET, STAMP_MS, None)
    assert seen.start_id.startswith(b"start id")


def test_a_beacon_is_told_with_the_event_that_brought_it(started, seen):
    announcer, core, _, _ = started()
    core.heard = STAMP_MS + 60_000, 400.0
    announcer.handle(DeadlineReached(), 500.0)
    assert seen.now_ms(400.0) == STAMP_MS + 60_100, "what the node acted upon when it heard it, at 500"
    assert seen.now_ms(1400.0) == STAMP_MS + 61_000
    view = seen.view()
    assert (view.seq, view.beacon_number, view.beacon.at_ms) == (7, 1, 400.0)


def test_a_beacon_that_wasnt_applied_tells_the_time_and_not_the_age(started, seen):
    announcer, core, _, store = started()
    core.heard, core.applied = (STAMP_MS + 60_000, 400.0), False
    announcer.handle(DeadlineReached(), 500.0)
    assert seen.now_ms(400.0) >= STAMP_MS + 60_000
    assert seen.view().beacon is None
    core.applied = True
    store.position = Position(1, 8, bytes(16))
    announcer.tell()
    assert (seen.view().seq, seen.applied_seq, seen.view().beacon.at_ms) == (8, 8, 400.0)


def test_a_restarted_node_goes_on_with_the_time_its_readers_have_acted_upon(started):
    announcer, core, _, _ = started()
    core.heard = STAMP_MS + 60_000, 400.0
    announcer.handle(DeadlineReached(), 500.0)
    _, _, clock, _ = started()
    assert clock.now_ms(2400.0) == STAMP_MS + 62_000


def test_a_restarted_machine_has_another_monotonic_clock(started):
    announcer, core, _, _ = started()
    core.heard = STAMP_MS + 60_000, 400.0
    announcer.handle(DeadlineReached(), 500.0)
    _, _, clock, _ = started("boot 2")
    assert clock.now_ms(2400.0) == STAMP_MS


async def test_an_edge_goes_on_clearing_what_dead_readers_left_until_it_ends(monkeypatch):
    monkeypatch.setattr(edges, "TIDY_INTERVAL_S", 0.0)
    cleared, thrice = [], asyncio.Event()

    def tidy() -> None:
        cleared.append(1)
        if len(cleared) == 3:
            thrice.set()

    edge = Edge.__new__(Edge)
    edge.store = SimpleNamespace(tidy=tidy)
    edge._tidy()
    async with asyncio.timeout(30):
        await thrice.wait()
    await edge.end()
    before = len(cleared)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(cleared) == before
