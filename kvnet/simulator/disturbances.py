"""The ground truth of what is broken: which nodes and ways, and since when they are whole again.

Whoever breaks something says so here, so that checkers can tell who was connected: by a path of links from the
coordinator, each standing since then, each with at most 20 % of its packets lost, all its nodes up and at work.
"""

from __future__ import annotations

from collections import Counter
from heapq import heappop, heappush
from math import inf
from typing import Final

from kvnet.simulator.network import Link
from kvnet.simulator.node import SimulatedNode
from kvnet.simulator.world import ROOT, World

LOSS_CONNECTED_MAX: Final = 0.2

Target = str | tuple[str, str]
"""A node's name, or the way from one to another."""


class Disturbances:
    """Who is broken by how many faults at once, and when the last one ended."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.excuses: list[str] = []
        """What has happened that may cost acknowledged writes or split the history: the operators' own doing."""
        self.clock_error_ms = 0.0
        """The most that any wall clock was wrong so far."""
        self._broken: Counter[Target] = Counter()
        self._whole_since: dict[Target, float] = {}
        self._everything = 0
        self._everything_since = -inf

    def begin(self, *targets: Target) -> None:
        """These are broken by one fault more; none means everything."""
        if not targets:
            self._everything += 1
        self._broken.update(targets)

    def end(self, *targets: Target) -> None:
        """These are broken by one fault less."""
        if not targets:
            self._everything -= 1
            self._everything_since = self.world.now
        for target in targets:
            self._broken[target] -= 1
            self._whole_since[target] = self.world.now

    def whole_since(self, target: Target) -> float:
        """Return since when nothing is wrong with this; inf while something is."""
        return inf if self._broken[target] > 0 else self._whole_since.get(target, -inf)

    def _node_since(self, node: SimulatedNode) -> float:
        if node.core is None or node.id != node.name:
            return inf
        return max(node.started_at, self.whole_since(node.name))

    def link_since(self, link: Link) -> float:
        """Return since when this link carries what it must; inf while it doesn't."""
        a, b = link.forth.sender, link.back.sender
        wan = self.world.wan
        if not link.alive or link.is_half_open or self._everything:
            return inf
        if wan.is_cut(a.name, b.name) or wan.is_cut(b.name, a.name):
            return inf
        if max(wan.loss(a.name, b.name), wan.loss(b.name, a.name)) > LOSS_CONNECTED_MAX:
            return inf
        return max(
            link.since,
            self._everything_since,
            self._node_since(a),
            self._node_since(b),
            self.whole_since((a.name, b.name)),
            self.whole_since((b.name, a.name)),
        )

    def connected_since(self) -> dict[str, float]:
        """Return, by node, since when one path of links has connected it with the coordinator.

        Of all paths the one that has stood longest counts; a node that has none is missing.
        """
        nodes = self.world.nodes
        root_since = self._node_since(nodes[ROOT])
        if root_since == inf or not self.world.is_open:
            return {}
        root_since = max(root_since, self.world.desk.opened_at)
        since: dict[str, float] = {}
        heap = [(root_since, ROOT)]
        while heap:
            at, name = heappop(heap)
            if name in since:
                continue
            since[name] = at
            node = nodes[name]
            for peer, link in node.links.items():
                if peer not in since and (stands := self.link_since(link)) < inf:
                    heappush(heap, (max(at, stands), peer))
        return since

    def reachable_since(self, name: str) -> float:
        """Return since when nothing is broken between a node and the coordinator; inf while something is.

        Of links it says nothing: those are the nodes' own affair, and no excuse.
        """
        if self._between(name):
            return inf
        ways = (ROOT, name), (name, ROOT)
        nodes = self.world.nodes
        return max(
            self._everything_since,
            self.world.desk.opened_at,
            self._node_since(nodes[ROOT]),
            self._node_since(nodes[name]),
            *(self.whole_since(way) for way in ways),
        )

    def _between(self, name: str) -> str:
        """Return in a few words what is broken now between a node and the coordinator; "" if nothing is."""
        world = self.world
        node = world.nodes[name]
        if node.core is None:
            return "down"
        if self.whole_since(name) == inf:
            if node.disk.is_full:
                return "its disk is full"
            return "stands still" if node.stalled_until > world.now else "disturbed"
        if world.root.core is None or self.whole_since(ROOT) == inf:
            return "no coordinator"
        if not world.is_open:
            return "the coordinator doesn't write"
        if self._everything:
            return "the whole network is disturbed"
        ways = (ROOT, name), (name, ROOT)
        if any(world.wan.is_cut(*way) for way in ways):
            return "cut off"
        if any(self.whole_since(way) == inf or world.wan.loss(*way) > LOSS_CONNECTED_MAX for way in ways):
            return "its way is disturbed"
        return ""

    def why_cut_off(self, name: str, *, within_ms: float = 0.0) -> str:
        """Return in a few words why a node isn't connected; "" if nothing is broken, nor was within that time."""
        broken = self._between(name)
        if broken:
            return broken
        return "whole again" if self.world.now - self.reachable_since(name) < within_ms else ""
