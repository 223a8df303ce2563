"""What led to a failure: the run once more, the last that its node did, and what that node knew then.

A run is the same each time, so nothing has to be kept while thousands of them go well.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from math import inf
from pathlib import Path
from traceback import extract_tb
from typing import Final, Protocol

from msgspec import Struct

from kvnet.core.messages import NO_WAY_MS
from kvnet.core.replica import Replica
from kvnet.errors import ConfigError
from kvnet.simulator.disturbances import Disturbances
from kvnet.simulator.node import SimulatedNode
from kvnet.simulator.swarm import Draw
from kvnet.simulator.trace import Trace
from kvnet.simulator.watched import Outcome
from kvnet.simulator.world import ROOT, World

LINES_TOLD: Final = 25
NAMES_TOLD: Final = 6
REPORTS_TOLD: Final = 3


class AnyRun(Protocol):
    """What a story can be told of."""

    world: World
    disturbances: Disturbances
    drawn: Draw

    def run(self) -> Outcome:
        """Run to the end or to the first property that doesn't hold."""


class Line(Struct, frozen=True):
    """One thing that happened."""

    at_ms: float
    node: str
    """"" for what was done to the world itself."""
    text: str


class Story(Struct, frozen=True, kw_only=True):
    """The end of a run that failed, from where its node stands."""

    node: str
    lines: tuple[Line, ...]
    knew: tuple[tuple[str, str], ...]
    """What the node knew, and what was true, by what it's about."""
    same: bool
    """Whether the run failed again as it had before; if not, it isn't deterministic."""


class Memory(Trace):
    """Keeps the last lines of every node, and all that was done to the world."""

    def __init__(self) -> None:
        super().__init__(_nobody)
        self._number = 0
        self._of_nodes: dict[str, deque[tuple[int, Line]]] = {}
        self._faults: list[tuple[int, Line]] = []

    def on_fault(self, now_ms: float, text: str) -> None:
        self._number += 1
        self._faults.append((self._number, Line(now_ms, "", f"** {text}")))

    def _say(self, node: SimulatedNode, text: str) -> None:
        self._number += 1
        lines = self._of_nodes.get(node.id)
        if lines is None:
            lines = self._of_nodes[node.id] = deque(maxlen=LINES_TOLD)
        lines.append((self._number, Line(node.world.now, node.id, text)))

    def last_lines(
        self, node: str, parents: Iterable[str], named: Iterable[str], world: World
    ) -> tuple[Line, ...]:
        """Return the last lines of a node, in between what its parents said to it and what was done to it.

        `named` is what faults may call it: its name, its region.
        """
        own = list(self._of_nodes.get(node, ()))
        of_parents = [
            line
            for parent in parents
            for line in self._of_nodes.get(parent, ())
            if line[1].text.startswith((f"-> {node} ", f"lost {node}", f"hangs up on {node}"))
        ]
        known = {*world.nodes, *(pop.region for pop in world.topology.pops)}
        faults = [
            (number, Line(line.at_ms, "", shortened(line.text, named)))
            for number, line in self._faults
            if touches(line.text, named, known)
        ]
        return tuple(
            line for _, line in sorted([*own, *of_parents, *faults], key=lambda each: each[0])[-LINES_TOLD:]
        )


def outcome_of(run: AnyRun) -> Outcome:
    """Run it; what it raises beside broken properties and invariants is a failure as well.

    Raises:
        ConfigError: it can't be run.
    """
    try:
        return run.run()
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 - a bug of the core or the simulator, to be told with its seed
        frame = extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        world, drawn = run.world, run.drawn
        return Outcome(
            seed=drawn.seed,
            mode=drawn.mode,
            pops=drawn.pops,
            kinds=drawn.kinds,
            faults={},
            events=world.events,
            virtual_ms=round(world.now, 3),
            acknowledged=0,
            failed=f"raised: {type(error).__name__} at {place}: {error}",
            node=world.at_work,
            at_ms=round(world.now, 3),
        )


def tell(run: AnyRun, memory: Memory, failed: Outcome) -> Story:
    """Run it again, as it was when it failed, and return how it came to that; `memory` is its trace."""
    again = outcome_of(run)
    world = run.world
    name = failed.node or ROOT
    node = world.nodes.get(name)
    core = node.core if node is not None else None
    named = [name]
    if node is not None:
        named += [node.name, world.topology.pop_of(node.name).region]
    return Story(
        node=name,
        lines=memory.last_lines(name, core.state.parents if core is not None else (), named, world),
        knew=tuple(_write(world, failed.seq) + _truth(run, node) + ([] if node is None else _knew(node))),
        same=again.failed == failed.failed and again.at_ms == failed.at_ms,
    )


def touches(fault: str, named: Iterable[str], known: Iterable[str]) -> bool:
    """Whether a fault's line is about one of these names, or about nobody that is `known` in particular."""
    words = set(re.split(r"[ =,]", fault))
    return not words.isdisjoint(named) or words.isdisjoint(known)


def shortened(fault: str, named: Iterable[str]) -> str:
    """Return a fault's line with its long lists cut, these names kept."""
    kept = set(named)
    words = []
    for word in fault.split(" "):
        field, equals, value = word.partition("=")
        names = value.split(",")
        if len(names) > NAMES_TOLD:
            first = [name for name in names if name in kept]
            first += [name for name in names if name not in kept][: NAMES_TOLD - len(first)]
            value = f"{','.join(first)},…{len(names) - len(first)} more"
        words.append(f"{field}{equals}{value}")
    return " ".join(words)


def _write(world: World, seq: int) -> list[tuple[str, str]]:
    """The write that the failure is about."""
    if not seq:
        return []
    ends = sorted(end for end in world.durable_at if end >= seq)
    if not ends:
        return [("write", f"{seq}, never durable")]
    at_ms = world.durable_at[ends[0]]
    return [("write", f"{seq}, durable at {at_ms:.3f}, {world.now - at_ms:.0f} ms before the end")]


def _truth(run: AnyRun, node: SimulatedNode | None) -> list[tuple[str, str]]:
    """Whether the node was connected, as somebody sees it who sees everything."""
    world = run.world
    if node is None:
        return [("in truth", "gone")]
    if node.name == ROOT:
        writes = "writes" if world.is_open else f"doesn't write: {node.refused_writes or 'not yet'}"
        return [("in truth", "down" if node.core is None else writes)]
    since = run.disturbances.connected_since().get(node.name, inf)
    if since < inf:
        return [("in truth", f"connected with the coordinator for {world.now - since:.0f} ms")]
    return [("in truth", f"not connected: {run.disturbances.why_cut_off(node.name) or 'nothing explains it'}")]


def _knew(node: SimulatedNode) -> list[tuple[str, str]]:
    """What the node itself had in its memory."""
    journal = node.disk.journal
    reports = [
        ("reported", f"{node.world.now - at_ms:.0f} ms ago: {what}: {detail}")
        for at_ms, what, detail in node.reports[-REPORTS_TOLD:]
    ]
    if node.core is None:
        stopped = f"stopped {node.world.now - node.stopped_at:.0f} ms ago"
        return [("position", f"{node.disk.position} on its disk; {stopped}"), *reports]
    state, now = node.core.state, node.clock_ms()
    age = f"{now - state.beacon_at:.0f} ms old" if state.beacon_at > -inf else "never heard"
    parents = [
        f"{parent.name} for {now - parent.since:.0f} ms, beacon {parent.beacon.epoch}:{parent.beacon.number}"
        for parent in state.parents.values()
    ]
    barred = [f"{peer} for {until - now:.0f} ms" for peer, until in state.barred.items() if until > now]
    told = [
        ("position", f"{state.applied}, received to {state.tip}, journal from {journal.horizon_seq}"),
        ("head", f"{state.head_seq}, beacon {state.beacon.epoch}:{state.beacon.number}, {age}"),
        ("path", f"{' > '.join(state.path)}, {state.latency_ms:.1f} ms" if state.path else "none"),
        ("parents", "; ".join(parents) or "none"),
        ("children", ", ".join(f"{child.name} at {child.seq}" for child in state.children.values()) or "none"),
        ("late", "no" if state.late_since is None else f"for {now - state.late_since:.0f} ms"),
        ("barred", ", ".join(barred) or "none"),
        *_in_the_making(node.core),
    ]
    neighbours = [("neighbour", _neighbour(node, name)) for name in sorted(state.neighbours)]
    return [*told, *neighbours, *reports]


def _in_the_making(core: Replica) -> list[tuple[str, str]]:
    """What a node waits for beside frames: pages, and chunks."""
    told: list[tuple[str, str]] = []
    made = core.bootstrap_status()
    if made is not None:
        pages = "all" if made["all_pages"] else str(made["pages"])
        proof = ", being proven" * made["proving"]
        told.append(
            ("pages", f"{pages} of {made['donor'] or 'nobody'}, as of {made['start']} to {made['highest']}{proof}")
        )
    if core.fetching.needed_count:
        told.append(("chunks", f"{core.fetching.needed_count} needed now, {len(core.fetching.wanted)} wanted"))
    return told


def _neighbour(node: SimulatedNode, name: str) -> str:
    assert node.core is not None
    neighbour = node.core.state.neighbours[name]
    link = node.links.get(name)
    away = f"{neighbour.rtt_ms / 2:.1f} ms away{', half-open' * (link is not None and link.is_half_open)}"
    advert = neighbour.advert
    if advert is None:
        return f"{name}: nothing advertised; {away}"
    latency = "no way" if advert.latency_ms >= NO_WAY_MS else f"{advert.latency_ms:.1f} ms"
    beacon = f"{advert.beacon.epoch}:{advert.beacon.number}"
    where = f"at {advert.position.version}, beacon {beacon}, {latency} from the root"
    return f"{name}: {where}; {away}, told {node.clock_ms() - neighbour.advert_at:.0f} ms ago"


def _nobody(line: str) -> None:
    """Hear a line that is kept elsewhere."""
    del line
