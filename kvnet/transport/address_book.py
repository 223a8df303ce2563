"""Who a node is and whom it could know, from the topology: what the protocol core takes as its configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from kvnet.core.state import NodeConfig
from kvnet.topology.geography import NearestIndex
from kvnet.topology.schema import COORDINATOR, Topology
from kvnet.topology.selection import best_spread

NEAREST_KNOWN: Final = 32


class AddressBook:
    """The part of every node's configuration that is the same for all, made once."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        pops = topology.pops
        self._index = NearestIndex(pops)
        links = min(topology.timers.coordinator_links, len(pops))
        spread = best_spread(pops, links, topology.pop_of(COORDINATOR).code)
        self._shared = NodeConfig(
            name="",
            root=COORDINATOR,
            members=tuple(pop.code for pop in pops),
            nearest=(),
            root_links=tuple(pop.code for pop in spread),
        )

    def config(
        self, name: str, *, accept_loss: bool = False, recover: bool = False, fresh: bool = True
    ) -> NodeConfig:
        """Return one node's configuration; the flags matter at the coordinator only."""
        near = self._index.nearest(self._topology.pop_of(name).place, NEAREST_KNOWN + 1)  # itself among them
        others = [pop.code for pop in near if pop.code != name]
        return replace(
            self._shared,
            name=name,
            nearest=tuple(others[:NEAREST_KNOWN]),
            accept_loss=accept_loss,
            recover=recover,
            fresh=fresh,
        )
