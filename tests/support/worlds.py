"""Simulated networks for tests: formed, written to, and compared with their coordinator."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvnet.simulator.arrivals import Arrivals
from kvnet.simulator.checking import Checker, CheckFailed
from kvnet.simulator.trace import Trace
from kvnet.simulator.world import ROOT, World
from kvnet.topology.load import load

BOUND_MS = 10_000


def make_world(
    pops: int,
    seed: int,
    *,
    loss: float = 0.0,
    edge_journal_bytes: int | None = None,
    trace: Callable[[str], None] | None = None,
) -> World:
    world = World(
        load("world-2018").with_pops(pops),
        seed=seed,
        edge_journal_bytes=edge_journal_bytes,
        trace=trace and Trace(trace),
    )
    world.arrivals = Arrivals(world)
    world.wan.set_loss(loss)
    return world


def start(world: World) -> None:
    """All nodes run, and every edge has a parent and all there is."""
    world.start_all()
    assert world.run_while(lambda: not is_formed(world), BOUND_MS), "not formed"


def is_formed(world: World) -> bool:
    head = world.nodes[ROOT].journal.position
    return world.is_open and all(
        node.journal.position == head and (node.name == ROOT or node.core.state.parents) for node in world.live()
    )


def write_for(world: World, duration_ms: float, *, every_ms: float = 50.0) -> list[int]:
    """Write at this pace; return the seqs."""
    end = world.now + duration_ms
    seqs = []
    while world.now < end:
        seqs.append(world.write())
        world.run_until(world.now + every_ms)
    return seqs


def settle(world: World, limit_ms: float = BOUND_MS) -> None:
    """Run until every living node is where the coordinator is, within the bound."""
    assert world.run_while(lambda: not is_formed(world), limit_ms), {
        node.name: str(node.journal.position)
        for node in world.live()
        if node.journal.position != world.nodes[ROOT].journal.position
    }
    history = world.nodes[ROOT].journal.frames
    for node in world.live():
        held = node.journal.frames
        assert [frame.data for frame in held] == [frame.data for frame in history[len(history) - len(held) :]]


def lag_ms(world: World, seq: int, name: str) -> float:
    """How long after its fsync a node had this write; infinite if it hasn't."""
    return world.arrivals.lag_ms(seq, name)


def assert_bound_held(world: World, seqs: list[int], names: list[str]) -> None:
    late = {(seq, name): lag_ms(world, seq, name) for seq in seqs for name in names}
    broken = {each: lag for each, lag in late.items() if lag > BOUND_MS}
    assert not broken


def edges_of(world: World) -> list[str]:
    return [node.name for node in world.live() if node.name != ROOT]


def reports(world: World, what: str, since_ms: float = 0.0) -> list[str]:
    """What all nodes had to say about this."""
    return [
        detail
        for node in world.nodes.values()
        for at, word, detail in node.reports
        if word == what and at >= since_ms
    ]


def caught(happen: Callable[[], object], checker: type[Checker]) -> CheckFailed:
    """The failure of this very property that comes of what happens."""
    with pytest.raises(CheckFailed) as failed:
        happen()
    assert failed.value.property == checker.name, failed.value
    assert str(failed.value).startswith(f"{checker.name}: ")
    return failed.value
