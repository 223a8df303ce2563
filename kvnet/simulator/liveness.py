"""Liveness: what must happen in time, for whoever is connected. One class for each property."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from kvnet.core.frames import Frame
from kvnet.core.messages import Ack
from kvnet.core.replica import Replica
from kvnet.core.root import Phase
from kvnet.simulator.checking import Checker
from kvnet.simulator.disturbances import Disturbances
from kvnet.simulator.node import SimulatedNode
from kvnet.simulator.world import ROOT, World

LOOK_EVERY_MS: Final = 100.0
LOOK_AGAIN_MS: Final = 1000.0
LOOP_LASTING_MS_MAX: Final = 2000.0
LINKING_MS_MAX: Final = 5000.0
"""In what time a node finds links to the network once nothing is in its way."""


@dataclass(slots=True)
class Ledger:
    """What became of every delivery: a frame, at an edge, looked for when the bound has passed since its fsync."""

    in_time: int = 0
    excused: Counter[str] = field(default_factory=Counter)
    """Missing at ten seconds, by what explains it."""
    abandoned: int = 0
    """Those of a history that the network left; nobody has to have them."""

    @property
    def due(self) -> int:
        return self.in_time + self.excused.total()


class Deliveries(Checker):
    """Every connected node has every write within the bound; each that is missing has an explanation.

    A node's time begins when the write is durable, or when the node was last connected, if that is later. Who is
    connected is ground truth (disturbances.py), never a node's own opinion. Whoever isn't, or not for long, must
    have something broken between it and the coordinator, or have had it lately: to have no links explains nothing.
    """

    name = "delivered in time"

    def __init__(self, world: World, disturbances: Disturbances, *, bound_ms: float | None = None) -> None:
        super().__init__(world)
        self._disturbances = disturbances
        self._bound_ms = world.timers.bound_ms if bound_ms is None else bound_ms
        self.ledger = Ledger()
        self.last_due_ms = -inf
        """When the last delivery is judged."""
        self._missing: list[tuple[Frame, float, list[str]]] = []
        """What is overdue and explained: the frame, when it was durable, and who lacks it."""

    def on_durable(self, node: SimulatedNode, frames: Sequence[Frame]) -> None:
        del node  # whoever wrote it, every edge must have it
        world = self.world
        self.last_due_ms = world.now + self._bound_ms
        for frame in frames:
            missing = [n.name for n in world.nodes.values() if n.id == n.name != ROOT]
            world.at(world.now + self._bound_ms, self._judge, (frame, world.now, missing))

    def _judge(self, delivery: tuple[Frame, float, list[str]]) -> None:
        """Look who still lacks the frame; whoever was connected all the time should not."""
        frame, durable_at, names = delivery
        if not self._is_current(frame):
            self.ledger.abandoned += len(names)
            return
        lacking = [name for name in names if not self._has(name, frame)]
        self.ledger.in_time += len(names) - len(lacking)
        if not lacking:
            return
        connected = self._disturbances.connected_since()
        for name in lacking:
            self._demand(name, frame, durable_at, connected)
            self.ledger.excused[self._why(name, connected)] += 1
        if not self._missing:
            self.world.at(self.world.now + LOOK_AGAIN_MS, self._look_again, None)
        self._missing.append((frame, durable_at, lacking))

    def _demand(self, name: str, frame: Frame, durable_at: float, connected: dict[str, float]) -> None:
        """Fail if the node was connected for long enough, or could have been."""
        now = self.world.now
        began = max(durable_at, connected.get(name, inf))
        if now - began >= self._bound_ms:
            self.fail(
                f"{name} lacks {frame.position} after {now - durable_at:.0f} ms, and was connected "
                f"for {now - began:.0f} ms of them",
                node=name,
                seq=frame.last_seq,
            )
        if not self._disturbances.why_cut_off(name, within_ms=self._bound_ms + LINKING_MS_MAX):
            self.fail(f"nothing explains that {name} lacks {frame.position}", node=name, seq=frame.last_seq)

    def _why(self, name: str, connected: dict[str, float]) -> str:
        if name in connected:
            return "connected for less than the bound"
        return self._disturbances.why_cut_off(name, within_ms=self._bound_ms + LINKING_MS_MAX)

    def _look_again(self, _: object) -> None:
        """Demand what was missing before from whoever has been connected for long enough by now."""
        connected = self._disturbances.connected_since()
        missing, self._missing = self._missing, []
        for frame, durable_at, names in missing:
            lacking = [name for name in names if not self._has(name, frame)]
            if not lacking or not self._is_current(frame):
                continue
            for name in lacking:
                self._demand(name, frame, durable_at, connected)
            self._missing.append((frame, durable_at, lacking))
        if self._missing:
            self.world.at(self.world.now + LOOK_AGAIN_MS, self._look_again, None)

    def _has(self, name: str, frame: Frame) -> bool:
        disk = self.world.nodes[name].disk
        if disk.position.seq < frame.last_seq:
            return False
        return not self.world.history.branches or disk.horizon_seq > frame.last_seq or disk.holds(frame.position)

    def _is_current(self, frame: Frame) -> bool:
        """Whether the frame is part of the history that the coordinator now writes on."""
        if not self.world.history.branches:
            return True
        root, leads = self.world.root.disk, self.world.history.leads
        if root.position.seq < frame.last_seq:
            return leads(root.position.chain, frame.chain_after)
        if root.horizon_seq > frame.last_seq:
            return leads(frame.chain_after, root.position.chain)
        return root.holds(frame.position)


class AckedInTime(Checker):
    """Where a write is waited for, the coordinator hears of every connected node that it has it.

    Looked for when the bound has passed twice since its fsync, once for either way. Of two nodes that run under
    one name it hears what the later one tells, until the name's own is started again.
    """

    name = "acked in time"

    def __init__(self, world: World, disturbances: Disturbances) -> None:
        super().__init__(world)
        self._disturbances = disturbances
        self.patience_ms = 2 * world.timers.bound_ms
        self.in_time = 0
        self.heard: dict[str, dict[str, Ack]] = {}
        """By coordinator: what it has heard of each member since it was started."""
        self._doubled: set[str] = set()
        """Names that another node has run under since the name's own was started."""

    def on_started(self, node: SimulatedNode) -> None:
        self.heard.pop(node.id, None)
        if node.id == node.name:
            self._doubled.discard(node.name)
        else:
            self._doubled.add(node.name)

    def on_acks(self, node: SimulatedNode, acks: Sequence[Ack]) -> None:
        self.heard.setdefault(node.id, {}).update({ack.member: ack for ack in acks})

    def on_durable(self, node: SimulatedNode, frames: Sequence[Frame]) -> None:
        core = node.core
        if node.id != ROOT or core is None or not frames:
            return
        if core.root.receipts_until >= node.clock_ms() + self.patience_ms:
            self.world.at(self.world.now + self.patience_ms, self._judge, (core, frames[-1], self.world.now))

    def _judge(self, waited: tuple[Replica, Frame, float]) -> None:
        core, frame, durable_at = waited
        root = self.world.root
        if root.core is not core or core.root.phase is not Phase.OPEN or self._disturbances.excuses:
            return
        heard = self.heard.get(root.id, {})
        for name, since in self._disturbances.connected_since().items():
            if name == ROOT or since > durable_at or name in self._doubled:
                continue
            ack = heard.get(name)
            if ack is None or ack.version < frame.position.version:
                told = "nothing" if ack is None else str(ack.version)
                self.fail(
                    f"of {name}, connected all the time, the coordinator has heard {told} "
                    f"{self.patience_ms:.0f} ms after {frame.position} was durable",
                    node=name,
                    seq=frame.last_seq,
                )
            self.in_time += 1


class ParentLoops(Checker):
    """Nodes that only serve each other don't do so for long.

    A node stands on ground if it is the coordinator, or has no parent that runs, or one of its parents stands on
    ground. With two parents a loop can form; it gets no new beacon, so it ends at the late limit. Only the time
    counts in which the nodes were connected: nobody can leave a loop for what nobody has.
    """

    name = "no lasting parent loop"

    def __init__(
        self,
        world: World,
        disturbances: Disturbances | None = None,
        *,
        lasting_ms_max: float = LOOP_LASTING_MS_MAX,
    ) -> None:
        super().__init__(world)
        self._disturbances = disturbances or Disturbances(world)
        self.lasting_ms_max = lasting_ms_max
        self.longest_ms = 0.0
        self._since: dict[str, float] = {}
        self._look(None)

    def _look(self, _: object) -> None:
        now = self.world.now
        self._since = {id_: self._since.get(id_, now) for id_ in nodes_without_ground(self.world)}
        connected = self._disturbances.connected_since() if self._since else {}
        for id_, since in self._since.items():
            lasted = now - max(since, connected.get(id_, now))
            self.longest_ms = max(self.longest_ms, lasted)
            if lasted > self.lasting_ms_max:
                looped = _looped(self.world, self.world.nodes[id_].name)
                self.fail(f"{looped} is in a loop of parents since {since:.0f} ms", node=looped)
        self.world.at(now + LOOK_EVERY_MS, self._look, None)


def nodes_without_ground(world: World) -> list[str]:
    """Return the nodes from which every chain of parents goes round in circles."""
    children: dict[str, list[str]] = {}
    standing: list[str] = []
    live = [node for node in world.live() if node.stalled_until <= world.now]
    at_work = {node.name for node in live}
    for node in live:
        assert node.core is not None
        parents = [name for name in node.core.state.parents if name in at_work]
        for parent in parents:
            children.setdefault(parent, []).append(node.name)
        if not parents:
            standing.append(node.name)
    grounded = dict.fromkeys(standing)
    while standing:
        for child in children.get(standing.pop(), ()):
            if child not in grounded:
                grounded[child] = None
                standing.append(child)
    return [node.id for node in live if node.name not in grounded]


def _looped(world: World, name: str) -> str:
    """Return a node of the loop to which this one's parents lead, all of which are without ground."""
    seen: dict[str, None] = {}
    while name not in seen:
        seen[name] = None
        core = world.nodes[name].core
        assert core is not None
        name = next(parent for parent in core.state.parents if world.nodes[parent].core is not None)
    return name


class NoStorm(Checker):
    """Nodes don't drown each other in control messages, whatever breaks: in their mean, and each one."""

    name = "no storm"

    def __init__(self, world: World, *, messages_per_s_max: float, of_one_node_max: float = inf) -> None:
        super().__init__(world)
        self.messages_per_s_max = messages_per_s_max
        self.of_one_node_max = of_one_node_max
        self.most_per_s = 0.0
        """The mean over the nodes, in the worst second."""
        self.most_of_one = 0
        """The most that one node sent in any second."""
        self._before: dict[str, int] = {}
        self._look(None)

    def _look(self, _: object) -> None:
        nodes = self.world.nodes
        sent = {id_: node.control_messages_sent - self._before.get(id_, 0) for id_, node in nodes.items()}
        if self._before:
            self._judge(sent)
        self._before = {id_: node.control_messages_sent for id_, node in nodes.items()}
        self.world.at(self.world.now + LOOK_AGAIN_MS, self._look, None)

    def _judge(self, sent: dict[str, int]) -> None:
        per_node = sum(sent.values()) / len(sent)
        self.most_per_s = max(self.most_per_s, per_node)
        if per_node > self.messages_per_s_max:
            self.fail(f"{per_node:.0f} control messages a node in one second")
        busiest = max(sent, key=lambda id_: (sent[id_], id_))
        self.most_of_one = max(self.most_of_one, sent[busiest])
        if sent[busiest] > self.of_one_node_max:
            self.fail(f"{sent[busiest]} control messages of {busiest} in one second", node=busiest)
