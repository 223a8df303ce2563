"""All nodes of a network under one launcher, and whether they form it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from kvnet.errors import ConfigError
from kvnet.topology.fields import COORDINATOR, MONITOR
from kvnet.topology.schema import Topology
from kvnet.topology.suggest import unknown
from nodes.life import NodeLife, Phase


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a network is."""

    up: int
    """PoPs that listen."""
    formed: int
    """PoPs that have a parent and hold the coordinator's head."""
    pops: int


class Roster:
    """Every node's life, by name: the coordinator, the monitor, the PoPs in file order."""

    def __init__(self, topology: Topology) -> None:
        self.edges = tuple(pop.code for pop in topology.pops)
        self.lives = {name: NodeLife(name) for name in topology.node_names()}

    def __getitem__(self, name: str) -> NodeLife:
        """Return a node's life.

        Raises:
            ConfigError: there is no such node; names the closest.
        """
        try:
            return self.lives[name]
        except KeyError:
            raise ConfigError(unknown("node", name, list(self.lives))) from None

    def pids(self) -> dict[str, int | None]:
        return {name: life.pid for name, life in self.lives.items()}

    def up_since_ms(self) -> dict[str, float | None]:
        """Return since when the coordinator and each PoP listen, in unix milliseconds."""
        return {name: self.lives[name].up_since_ms for name in (COORDINATOR, *self.edges)}

    def listening(self) -> list[str]:
        """Return the nodes that can be spoken to."""
        return [name for name, life in self.lives.items() if life.phase is Phase.READY]

    def progress(self) -> Progress:
        up = sum(self.lives[code].phase is Phase.READY for code in self.edges)
        return Progress(up, sum(map(self._takes_part, self.edges)), len(self.edges))

    def is_formed(self) -> bool:
        """Whether every PoP is up, has a parent and has applied the head the coordinator opened with."""
        return self.lives[MONITOR].phase is Phase.READY and all(map(self._takes_part, self.edges))

    def missing(self) -> str:
        """Say who keeps the network from being formed, and where to look."""
        for name in (COORDINATOR, MONITOR):
            if self.lives[name].phase is not Phase.READY:
                return f"{name} isn't ready; see `kvnet logs {name}`"
        if self.lives[COORDINATOR].formed is None:
            return f"the coordinator takes no writes; see `kvnet logs {COORDINATOR}`"
        codes = [code for code in self.edges if not self._takes_part(code)]
        shown = ", ".join(codes[:5]) + (", …" if len(codes) > 5 else "")
        return f"{len(codes)} PoPs take no part yet ({shown}); see `kvnet logs {codes[0]}`"

    def _takes_part(self, code: str) -> bool:
        head, life = self.lives[COORDINATOR].formed, self.lives[code]
        if head is None or life.formed is None:
            return False
        return life.phase is Phase.READY and life.formed.seq >= head.seq
