"""The wide-area network between the PoPs: how long a message takes, and which don't arrive.

Pure: times are floats in milliseconds that the caller supplies, randomness is the caller's. The transport and the
simulator ask the same model. `LinkModel` (link.py) is one direction of one connection over it, `SackLinkModel`
(sack.py) another model of the same.

    internet   round trip = 12.6 ms + 1.73 × km / 100      fitted to 62,104 pairs of 246 cities, measured in 2020
    backbone   round trip =  3.2 ms + 1.58 × km / 100      fitted to a cloud provider's own lines
    none       0
    matrix     as written, each direction for itself

One way is half of it. Two nodes in one city are still 12.6 ms apart on `internet`; a node is 0 ms from itself.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Final, Literal

from msgspec.structs import replace

from kvnet.errors import ConfigError
from kvnet.topology.fields import COORDINATOR
from kvnet.topology.geography import arc_km, unit_point
from kvnet.topology.link import HELD, LinkModel
from kvnet.topology.sack import SackLinkModel
from kvnet.topology.schema import Topology
from kvnet.topology.suggest import unknown
from kvnet.topology.wan_state import PairFault, WanState

__all__ = ["HELD", "PROFILES", "LinkModel", "PairFault", "SackLinkModel", "Tcp", "Wan", "WanState"]

PROFILES: Final = {"internet": (12.6, 1.73), "backbone": (3.2, 1.58), "none": (0.0, 0.0)}
"""Milliseconds at no distance, and per 100 km, of a round trip."""

Tcp = Literal["flight", "sack"]
"""What a lost packet costs: `LinkModel`'s answer, or `SackLinkModel`'s."""

Group = str | Iterable[str]
"""A node, a region (with the coordinator and the monitor, where they stand in it), or several of either."""


class Wan:
    """The network of one topology, with what disturbs it now.

    Nodes are named by their PoP's code, or `coordinator` and `monitor`. After a change, whoever drives links calls
    `LinkModel.on_change` on each of them, before its next `send`.
    """

    def __init__(self, topology: Topology, state: WanState | None = None, *, tcp: Tcp = "flight") -> None:
        self._topology = topology
        self._places = {node: topology.pop_of(node) for node in topology.node_names()}
        self._points = {node: unit_point(pop.place) for node, pop in self._places.items()}
        self._line = PROFILES.get(topology.wan.profile)
        self._matrix = topology.wan.matrix or {}
        self._link_model = SackLinkModel if tcp == "sack" else LinkModel
        self.state = state or WanState.undisturbed(topology.wan)
        """What disturbs the network; give another one to `apply`."""

    def link(self, sender: str, receiver: str, rng: random.Random, *, lossy: bool = True) -> LinkModel:
        """Return one direction of a new connection; `lossy` is False for HTTP, which feels delay and cuts alone.

        Raises:
            ConfigError: no such node.
        """
        return self._link_model(self, self._known(sender), self._known(receiver), rng, lossy=lossy)

    def one_way_ms(self, sender: str, receiver: str) -> float:
        """Return the delay from `sender` to `receiver` as configured now, without jitter.

        Raises:
            ConfigError: no such node.
        """
        distance_ms = self._distance_ms(sender, receiver)
        fault = self.state.fault(sender, receiver)
        return distance_ms + (fault.extra_ms if fault else 0.0)

    def rtt_ms(self, a: str, b: str) -> float:
        """Return both ways together.

        Raises:
            ConfigError: no such node.
        """
        return self.one_way_ms(a, b) + self.one_way_ms(b, a)

    def floor_ms(self) -> float:
        """Return what no protocol can beat: the largest one-way delay from the coordinator, undisturbed."""
        return max(self._distance_ms(COORDINATOR, pop.code) for pop in self._topology.pops)

    def loss(self, sender: str, receiver: str) -> float:
        """Return the fraction of packets lost in this direction."""
        fault = self.state.fault(sender, receiver)
        return self.state.loss if fault is None or fault.loss is None else fault.loss

    def is_cut(self, sender: str, receiver: str) -> bool:
        """Whether nothing gets from `sender` to `receiver`."""
        return self.state.is_cut(sender, receiver)

    def apply(self, state: WanState) -> None:
        """Put another state in force, as a whole.

        Raises:
            ConfigError: it names a node that doesn't exist; nothing has changed.
        """
        for cut in state.cuts:
            for node in (*cut.senders, *cut.receivers):
                self._known(node)
        for pair in state.pairs:
            self._known(pair.sender)
            self._known(pair.receiver)
        self.state = state

    def set_loss(self, loss: float) -> None:
        """Lose this fraction of the packets on every link.

        Raises:
            ConfigError: not a fraction below 1.
        """
        self.apply(replace(self.state, loss=_fraction(loss)))

    def set_pair(self, sender: str, receiver: str, *, extra_ms: float = 0.0, loss: float | None = None) -> None:
        """Replace the faults of one direction; the defaults remove them.

        Raises:
            ConfigError: no such node, a negative delay, or not a fraction below 1.
        """
        if not 0 <= extra_ms < float("inf"):
            raise ConfigError(
                f"extra delay of {extra_ms:g} ms: write at least 0; to stop everything, cut the link"
            )
        lost = None if loss is None else _fraction(loss)
        self.apply(self.state.with_pair(PairFault(sender, receiver, float(extra_ms), lost)))

    def cut(self, senders: Group, receivers: Group) -> None:
        """Let nothing through from `senders` to `receivers`; the way back stays open.

        Raises:
            ConfigError: no such node or region.
        """
        self.state = self.state.with_cut(self.members(senders), self.members(receivers))

    def heal(self, senders: Group, receivers: Group) -> None:
        """Open exactly these directions again, whatever cut them.

        Raises:
            ConfigError: no such node or region.
        """
        self.state = self.state.without_cut(self.members(senders), self.members(receivers))

    def isolate(self, group: Group) -> None:
        """Cut `group` off from all other nodes, both ways; `rejoin` undoes it.

        Raises:
            ConfigError: no such node or region.
        """
        inside, outside = self._split(group)
        self.cut(inside, outside)
        self.cut(outside, inside)

    def rejoin(self, group: Group) -> None:
        """Open everything between `group` and all other nodes, both ways.

        Raises:
            ConfigError: no such node or region.
        """
        inside, outside = self._split(group)
        self.heal(inside, outside)
        self.heal(outside, inside)

    def heal_all(self) -> None:
        """Open every direction; loss and the faults of pairs stay."""
        self.state = replace(self.state, cuts=())

    def members(self, group: Group) -> tuple[str, ...]:
        """Return the nodes that a group names, each once, in the order of the topology.

        Raises:
            ConfigError: no such node or region.
        """
        names = {group} if isinstance(group, str) else set(group)
        regions = {pop.region: None for pop in self._places.values()}
        for name in sorted(names):
            if name not in regions and name not in self._places:
                raise ConfigError(unknown("node or region", name, [*regions, *self._places]))
        return tuple(node for node, pop in self._places.items() if node in names or pop.region in names)

    def _split(self, group: Group) -> tuple[tuple[str, ...], tuple[str, ...]]:
        inside = dict.fromkeys(self.members(group))
        return tuple(inside), tuple(node for node in self._places if node not in inside)

    def _distance_ms(self, sender: str, receiver: str) -> float:
        """Return the delay of an undisturbed network."""
        a, b = self._points.get(sender), self._points.get(receiver)
        if a is None or b is None:
            raise self._unknown(sender if a is None else receiver)
        if sender == receiver:
            return 0.0
        if self._matrix:
            row = self._matrix.get(self._places[sender].code, {})
            measured = row.get(self._places[receiver].code)
            if measured is not None:
                return measured / 2
        base, per_100_km = self._line or (0.0, 0.0)  # a matrix is complete but for a PoP and itself
        return (base + per_100_km * arc_km(a, b) / 100) / 2

    def _known(self, node: str) -> str:
        if node not in self._places:
            raise self._unknown(node)
        return node

    def _unknown(self, node: str) -> ConfigError:
        return ConfigError(unknown("node", node, list(self._places)))


def _fraction(loss: float) -> float:
    if not 0 <= loss < 1:
        raise ConfigError(f"loss {loss:g} is not at least 0 and below 1; to stop everything, cut the link")
    return float(loss)
