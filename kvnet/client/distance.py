"""Distance: how far a client would be from each edge if it stood somewhere else."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from kvnet.client.directory import Edge
from kvnet.errors import ConfigError
from kvnet.topology.geography import Place, nearest
from kvnet.topology.load import FILE_NAME, load
from kvnet.topology.schema import Topology
from kvnet.topology.wan import Wan

CLIENT: Final = "client"
"""The client's name among the nodes; no PoP's code is that long."""


class Distance:
    """The way between one place and the edges, by the topology's model of the WAN: delay and jitter, no loss."""

    def __init__(self, topology: Topology, place: Place, *, seed: int | None = None) -> None:
        """Stand at `place`. With a matrix of measured round trips that is where the nearest PoP stands.

        The same `seed` gives the same jitter, request by request; None another one each time.
        """
        pop = nearest(place, topology.pops)[0]
        self._name = pop.code if topology.wan.matrix else CLIENT
        if self._name == CLIENT:
            lat, lon = place
            client = replace(pop, code=CLIENT, lat=lat, lon=lon, url=None)
            topology = replace(topology, pops=(*topology.pops, client))
        self._wan = Wan(topology)
        self._rng = random.Random(seed)

    def expected_ms(self, edge: Edge) -> float:
        """Return the round trip to an edge, without jitter."""
        return self._wan.rtt_ms(self._name, edge.code)

    def check(self, edges: Iterable[Edge]) -> None:
        """Return if the way to each of these is known.

        Raises:
            ConfigError: the topology is another network's.
        """
        for edge in edges:
            self.expected_ms(edge)

    def there_ms(self, edge: Edge) -> float:
        """Return how long a request takes that leaves now."""
        return self._drawn_ms(self._name, edge.code, 0)

    def back_ms(self, edge: Edge, size_bytes: int) -> float:
        """Return how long an answer of that size takes."""
        return self._drawn_ms(edge.code, self._name, size_bytes)

    def _drawn_ms(self, sender: str, receiver: str, size_bytes: int) -> float:
        return self._wan.link(sender, receiver, self._rng, lossy=False).send(0.0, size_bytes)


def read_topology(folder: Path | None) -> Topology:
    """Return the topology of the network in a run folder.

    Raises:
        ConfigError: there is none, or it can't be read.
    """
    if folder is None or not (folder / FILE_NAME).is_file():
        raise ConfigError(
            f"from_= needs the network's {FILE_NAME}, which tells how far away things are: "
            "give data= with the folder that `kvnet up` made"
        )
    return load(folder / FILE_NAME)
