from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import inf

import pytest

from kvnet.core.events import BulkSend, DeadlineReached, Event, LinkWritable, PeerUp, SetDeadline
from kvnet.core.messages import ChunkMissing, Message
from kvnet.core.versions import GENESIS
from kvnet.simulator.node import SimulatedNode
from kvnet.simulator.watching import Watcher
from kvnet.simulator.world import ROOT, World
from tests.support.worlds import make_world, settle, start, write_for

NAME = "iad"


class Clockwork:
    """A core that does nothing but keep one timer, by its own clock, and note when it was told what."""

    def __init__(self, world: World, every_ms: float | None = None) -> None:
        self.world = world
        self.every_ms = every_ms
        self.heard: list[tuple[float, float, Event]] = []
        """World time, own time, event."""
        self.due = 0.0
        self.early = 0
        """Times that it was woken before it was due by its own clock."""

    def handle(self, event: Event, now_ms: float) -> list:
        self.heard.append((self.world.now, now_ms, event))
        if self.every_ms is None or type(event) is PeerUp:
            return []
        self.early += type(event) is DeadlineReached and now_ms < self.due
        self.due = now_ms + self.every_ms
        return [SetDeadline(self.due)]

    def check_invariants(self) -> None:
        pass

    def times(self) -> list[float]:
        return [at for at, _, event in self.heard if type(event) is DeadlineReached]


def clockwork(every_ms: float | None = None) -> tuple[World, SimulatedNode, Clockwork]:
    world = make_world(6, 1)
    node = world.nodes[NAME]
    node.core = core = Clockwork(world, every_ms)
    node.disk.mark_verified()  # else it would be asked how far it is
    return world, node, core


A_THING = LinkWritable("x")


def test_a_timer_fires_when_it_is_due_and_only_then() -> None:
    world, node, core = clockwork(100)
    node.feed(A_THING)
    world.run_until(1000)
    assert core.times() == [100.0 * n for n in range(1, 11)]


def test_a_timer_that_is_set_for_later_does_not_fire_early() -> None:
    world, node, core = clockwork(100)
    for ms in (0, 50, 90, 180):
        world.run_until(ms)
        node.feed(A_THING)
    world.run_until(279)
    assert core.times() == []
    world.run_until(281)
    assert core.times() == [280.0]


def test_a_timer_that_is_set_for_sooner_fires_sooner() -> None:
    world, node, core = clockwork(1000)
    node.feed(A_THING)
    core.every_ms = 100
    world.run_until(50)
    node.feed(A_THING)
    world.run_until(200)
    assert core.times() == [150.0]


@pytest.mark.parametrize("drift_ppm", [1000.0, -1000.0, 0.0])
def test_a_clock_that_drifts_keeps_its_timers_by_its_own_time(drift_ppm: float) -> None:
    world, node, core = clockwork(1000)
    node.set_clock(drift_ppm=drift_ppm)
    node.feed(A_THING)
    world.run_until(100_000)
    every = 1000 / (1 + drift_ppm / 1e6)
    assert core.times() == pytest.approx([n * every for n in range(1, int(100_000 / every + 1e-6) + 1)])
    own = [now for _, now, _ in core.heard]
    assert own == sorted(own)
    assert own[1:] == pytest.approx([1000.0 * n for n in range(1, len(own))])


def test_a_timer_that_runs_as_the_clock_changes_its_rate_is_due_by_the_new_one() -> None:
    world, node, core = clockwork(1000)
    node.feed(A_THING)
    world.run_until(500)
    before = node.clock_ms()
    node.set_clock(drift_ppm=1000)
    assert node.clock_ms() == pytest.approx(before)
    core.every_ms = None
    world.run_until(5000)
    assert core.times() == pytest.approx([500 + 500 / 1.001])
    node.set_clock(drift_ppm=-1000)
    assert node.clock_rate == pytest.approx(1)


@pytest.mark.parametrize("drift_ppm", [200.0, -200.0, 37.31, -0.7])
def test_a_timer_never_fires_before_its_time_however_it_is_rounded(drift_ppm: float) -> None:
    world, node, core = clockwork(333.333)
    world.run_until(12_345.678)
    node.set_clock(drift_ppm=drift_ppm)
    node.feed(A_THING)
    world.run_until(400_000)
    own = [now for _, now, _ in core.heard]
    assert len(own) > 1000
    assert core.early == 0
    assert all(sooner < later for sooner, later in pairwise(own))


@pytest.mark.parametrize("step_ms", [3_600_000.0, -3_600_000.0])
def test_a_wall_clock_that_is_set_moves_no_timer(step_ms: float) -> None:
    world, node, core = clockwork(1000)
    node.feed(A_THING)
    world.run_until(500)
    node.set_clock(step_ms=step_ms)
    assert node.wall_ms() == 500 + step_ms
    assert node.clock_ms() == 500
    world.run_until(1500)
    assert core.times() == [1000.0]


def test_a_node_that_stands_still_hears_everything_in_order_when_it_goes_on() -> None:
    world, node, core = clockwork()
    node.stalled_until = 1000
    for number in range(3):
        world.run_until(100 * number)
        node.feed(PeerUp(f"{number}", 1.0))
    world.run_until(999)
    assert core.heard == []
    world.run_until(1000)
    assert [(at, event.peer) for at, _, event in core.heard] == [(1000.0, f"{n}") for n in range(3)]


def test_a_node_that_is_woken_early_goes_on_at_once_and_hears_nothing_twice() -> None:
    world, node, core = clockwork(300)
    node.feed(A_THING)
    node.stalled_until = 10_000
    world.run_until(100)
    node.feed(PeerUp("x", 1.0))
    world.run_until(400)
    assert core.times() == []
    node.resume()
    world.run_until(401)
    assert [type(event) for _, _, event in core.heard] == [LinkWritable, PeerUp, DeadlineReached]
    assert core.times() == [400.0], "it was due at 300"
    world.run_until(10_000)
    assert [event for _, _, event in core.heard].count(PeerUp("x", 1.0)) == 1
    assert core.times()[:3] == [400.0, 700.0, 1000.0]


def test_a_stall_that_is_made_longer_holds_until_its_new_end() -> None:
    world, node, core = clockwork()
    node.stalled_until = 100
    node.feed(A_THING)
    node.stalled_until = 500
    world.run_until(499)
    assert core.heard == []
    world.run_until(500)
    assert [at for at, _, _ in core.heard] == [500.0]


def test_what_happened_to_a_node_before_it_died_is_not_told_to_the_next() -> None:
    world, node, core = clockwork(100)
    node.feed(A_THING)
    node.stalled_until = 200
    node.feed(A_THING)
    node.stop()
    node.core = next_core = Clockwork(world)
    node.stalled_until = 0
    world.run_until(1000)
    assert next_core.heard == []
    assert len(core.heard) == 1


def test_a_slow_node_takes_its_time_over_every_event() -> None:
    world, node, core = clockwork()
    node.cpu_ms = 10
    for _ in range(3):
        node.feed(A_THING)
    world.run_until(100)
    assert [at for at, _, _ in core.heard] == [0.0, 10.0, 10.0], "what waited is one turn"
    node.feed(A_THING)
    assert core.heard[-1][0] == 100
    assert node.stalled_until == 110


def test_what_arrives_at_a_node_that_stands_still_waits_in_its_sockets() -> None:
    world = make_world(6, 1)
    start(world)
    world.run_until(world.now + 500)
    node = world.nodes[NAME]
    node.stalled_until = world.now + 3000
    before = node.disk.position
    write_for(world, 2000)
    assert node.disk.position == before
    assert len(node.links) > 0
    links = dict(node.links)
    world.run_until(node.stalled_until)
    settle(world)
    assert node.links == links, "a pause is no loss"


def test_a_full_disk_is_tried_again_until_it_has_room() -> None:
    world = make_world(6, 1)
    start(world)
    node = world.nodes[NAME]
    node.disk.is_full = True
    before = node.disk.position
    write_for(world, 3000)
    assert node.disk.position == before
    assert node.pending_bytes > 0
    tries = [at for at, what, _ in node.reports if what == "storage_full"]
    assert 2 < len(tries) < 8
    node.disk.is_full = False
    settle(world)
    assert node.pending_bytes == 0


def test_a_node_that_starts_again_has_its_disk_and_nothing_else() -> None:
    world = make_world(6, 1)
    start(world)
    write_for(world, 500)
    settle(world)
    node = world.nodes[NAME]
    position, core = node.disk.position, node.core
    world.crash(NAME)
    assert not node.is_up
    assert not node.links
    assert node.stopped_at == world.now
    world.run_until(world.now + 100)
    world.start(NAME)
    assert node.core is not core
    assert node.disk.position == position != GENESIS
    assert node.core.state.tip == position
    assert node.started_at == world.now
    with pytest.raises(AssertionError, match="runs already"):
        world.start(NAME)
    settle(world)
    assert world.nodes[ROOT].disk.position == node.disk.position


def test_what_was_put_off_happens_when_the_process_goes_on_and_not_when_it_should_have() -> None:
    """A commit under way as its process was frozen ended when the fault was to end, though it had ended before."""
    world, node, _ = clockwork()
    happened: list[float] = []
    node.stalled_until = 10_000.0
    assert node.put_off(lambda _: happened.append(world.now), None)
    world.run_until(500)
    node.resume()
    assert happened == [500.0]
    world.run_until(20_000)
    assert happened == [500.0], "once"
    assert not node.put_off(lambda _: happened.append(world.now), None), "it doesn't stand still"


def test_nobody_waits_for_a_frozen_process_that_was_killed() -> None:
    world = make_world(6, 1)
    start(world)
    node = world.nodes[NAME]
    node.stalled_until = inf
    happened: list[float] = []
    assert node.put_off(lambda _: happened.append(world.now), None)
    world.crash(NAME)
    assert happened == [world.now]


@pytest.mark.parametrize(("back", "most_ms"), [(True, 1000.0), (False, inf)])
def test_a_machine_that_is_back_says_at_once_that_it_knows_of_no_connection(back: bool, most_ms: float) -> None:
    """Chunks were asked for over a bulk link that its other end had forgotten: for five seconds, nothing came."""
    world = make_world(6, 1)
    start(world)
    node, other = world.root, world.nodes[next(iter(world.root.links))]
    world.dial(node, other.name, bulk=True)
    world.run_until(world.now + 1000)
    link = node.bulk.links[other.name]
    world.crash(other.name, silent=True)
    if back:
        world.start(other.name)
    world.send(node, other.name, [ChunkMissing(bytes(32))], bulk=True)
    began = world.now
    assert world.run_while(lambda: link.alive, 6000)
    assert world.now - began <= most_ms
    assert back or world.now - began == 5000


def test_what_waits_for_a_bulk_link_leaves_over_the_one_that_the_other_end_has_made() -> None:
    """It waited for a link of its own, which was never made since there was one."""
    world = make_world(6, 1)
    start(world)
    node, other = world.root, world.nodes[next(iter(world.root.links))]
    heard: list[tuple[str, type]] = []

    class Heard(Watcher):
        def on_sent(self, node: SimulatedNode, peer: str, messages: Sequence[Message]) -> None:
            heard.extend((node.name, type(message)) for message in messages if type(message) is ChunkMissing)

    world.watch(Heard())
    for each, peer in ((node, other), (other, node)):
        each.bulk.carry_out(BulkSend(peer.name, ChunkMissing(bytes(32))))
        each.bulk.send()
    world.run_until(world.now + 3000)
    assert sorted(name for name, _ in heard) == sorted([node.name, other.name])
