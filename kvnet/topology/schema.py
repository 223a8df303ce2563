"""A whole network as its file describes it; the sections are in `sections`, what must fit together in `checks`.

A `Topology` that came from `load` or from its own `with_…` methods is known to work.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from hashlib import blake2b
from typing import Annotated, cast
from urllib.parse import urlsplit

from msgspec import Meta, Struct
from msgspec.structs import replace

from kvnet import limits as limits_profiles
from kvnet.errors import ConfigError
from kvnet.timers import Timers
from kvnet.topology import checks
from kvnet.topology.fields import COORDINATOR, FIRST_POP_OFFSET, MONITOR, READERS_MAX, LimitsProfile, Name, Readers
from kvnet.topology.sections import (
    Coordinator,
    LimitsConfig,
    Listen,
    Monitor,
    Pop,
    StorageConfig,
    WanConfig,
)
from kvnet.topology.selection import best_spread
from kvnet.topology.suggest import unknown

__all__ = [
    "COORDINATOR",
    "MONITOR",
    "Coordinator",
    "LimitsConfig",
    "Listen",
    "Monitor",
    "Pop",
    "StorageConfig",
    "Timers",
    "Topology",
    "WanConfig",
]


class Topology(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """A whole network: where its nodes stand and answer, what they promise, how they keep it."""

    # dict=True gives `_index` a place to be remembered in; copies and comparisons don't see it.

    name: Name
    """What this network is called."""
    coordinator: Coordinator
    """Where writes go."""
    monitor: Monitor = Monitor()
    """Who proves that they arrived."""
    listen: Listen = Listen()
    """Addresses of the nodes."""
    wan: WanConfig = WanConfig()
    """The network between the PoPs."""
    limits: LimitsConfig = LimitsConfig()
    """How large keys and values may be, and how often a key may be written."""
    timers: Timers = Timers()
    """How often nodes speak and how long they wait."""
    storage: StorageConfig = StorageConfig()
    """What nodes do with their disks."""
    readers: Readers = 0
    """Processes that answer reads beside each edge, on its port. More: more reads a second, as long as there are
    processors for them; some 10 MiB of memory each."""
    pops: Annotated[tuple[Pop, ...], Meta(min_length=1)]
    """The PoPs, each with an edge; their order gives the ports."""

    @cached_property
    def _index(self) -> dict[str, int]:
        return {pop.code: i for i, pop in enumerate(self.pops)}

    def pop(self, code: str) -> Pop:
        """Return the PoP with this code, in either case.

        Raises:
            ConfigError: there is none; names the closest.
        """
        try:
            return self.pops[self._index[code.lower()]]
        except KeyError:
            raise ConfigError(unknown("PoP", code, list(self._index))) from None

    def node_names(self) -> tuple[str, ...]:
        """Return the names of all nodes: coordinator, monitor, and the PoPs in file order."""
        return (COORDINATOR, MONITOR, *self._index)

    def pop_of(self, node: str) -> Pop:
        """Return the PoP in whose city `node` stands: its own, or the coordinator's place.

        Raises:
            ConfigError: no node has this name.
        """
        if node in {COORDINATOR, MONITOR}:
            return self.pop(self.coordinator.place)
        if node.lower() not in self._index:
            raise ConfigError(unknown("node", node, self.node_names()))
        return self.pop(node)

    def url_of(self, node: str) -> str:
        """Return where `node` answers, without a trailing slash.

        Raises:
            ConfigError: no node has this name.
        """
        return self._own_url(node) or f"http://{self.listen.host}:{self._counted_port(node)}"

    def port_of(self, node: str) -> int:
        """Return the port that `node` binds: that of its http url, else the one counted from the base.

        An https url belongs to a proxy in front of the node, so it says nothing about the node's own port.

        Raises:
            ConfigError: no node has this name.
        """
        parts = urlsplit(self._own_url(node) or "")
        return (parts.port or 80) if parts.scheme == "http" else self._counted_port(node)

    def readers_of(self, node: str) -> int:
        """Return how many processes answer reads beside `node`; none do beside coordinator and monitor."""
        if node in {COORDINATOR, MONITOR}:
            return 0
        own = self.pop(node).readers
        return self.readers if own is None else own

    def digest(self) -> str:
        """Return a hash of what a folder of data depends on: the name, the coordinator's place, the PoPs.

        Addresses, the WAN, limits and timers may change from run to run over the same data.
        """
        identity = "\n".join([self.name, self.coordinator.place, *sorted(self._index)])
        return blake2b(identity.encode(), digest_size=16).hexdigest()

    def with_port_base(self, port_base: int) -> Topology:
        """Return the same network on another block of ports.

        Raises:
            ConfigError: the block doesn't fit between 1,024 and 32,767, or holds the port of another node's url.
        """
        return _checked(replace(self, listen=replace(self.listen, port_base=port_base)))

    def with_pops(self, count: int) -> Topology:
        """Return the network of the `count` best-spread PoPs, the coordinator's place always among them.

        Raises:
            ConfigError: the file hasn't so many, or the block of ports, now shorter, holds the port of a url.
        """
        if count > len(self.pops):
            raise ConfigError(
                f"{count} PoPs of {len(self.pops)} can't be chosen: ask for 1 to {len(self.pops)}, "
                "or make a larger network with `kvnet topology gen`"
            )
        if count == len(self.pops):
            return _checked(self)
        kept = {pop.code for pop in best_spread(self.pops, count, self.coordinator.place)}
        matrix = self.wan.matrix and {
            sender: {receiver: rtt for receiver, rtt in row.items() if receiver in kept}
            for sender, row in self.wan.matrix.items()
            if sender in kept
        }
        pops = tuple(pop for pop in self.pops if pop.code in kept)
        return _checked(replace(self, pops=pops, wan=replace(self.wan, matrix=matrix)))

    def with_further_pops(self, pops: tuple[Pop, ...]) -> Topology:
        """Return the network with these PoPs behind its own, whose ports stay.

        Raises:
            ConfigError: a code is taken, the ports don't suffice or meet a url, or round trips are missing.
        """
        return _checked(replace(self, pops=(*self.pops, *pops)))

    def with_readers(self, node: str, count: int) -> Topology:
        """Return the same network with so many readers beside one edge.

        Raises:
            ConfigError: no edge has this name, or they are too many.
        """
        if node in {COORDINATOR, MONITOR}:
            raise ConfigError(f"{node} has no readers: only a PoP's edge shares its replica")
        if not 0 <= count <= READERS_MAX:
            raise ConfigError(f"{count} readers of {node} won't do: choose 0 to {READERS_MAX}")
        code = self.pop(node).code
        pops = tuple(replace(pop, readers=count) if pop.code == code else pop for pop in self.pops)
        return replace(self, pops=pops)

    def with_loss(self, loss: float) -> Topology:
        """Return the same network with another fraction of packets lost.

        Raises:
            ConfigError: not a fraction below 1.
        """
        if not 0 <= loss < 1:
            raise ConfigError(f"loss {loss:g} is not at least 0 and below 1: 0.2 loses every fifth packet")
        return replace(self, wan=replace(self.wan, loss=float(loss)))

    def with_limits(self, profile: str | None, overrides: Mapping[str, int]) -> Topology:
        """Return the same network with another limits profile and single limits; None keeps the profile.

        Raises:
            ConfigError: an unknown profile or limit, or one out of its range.
        """
        config = self.limits
        if profile is not None:
            limits_profiles.profile(profile)
            config = LimitsConfig(profile=cast("LimitsProfile", profile))
        limits_profiles.with_overrides(config.resolve(), dict(overrides))
        return replace(self, limits=replace(config, **overrides))

    def _own_url(self, node: str) -> str | None:
        if node == COORDINATOR:
            return self.coordinator.url
        return self.monitor.url if node == MONITOR else self.pop(node).url

    def _counted_port(self, node: str) -> int:
        if node == COORDINATOR:
            return self.listen.port_base
        if node == MONITOR:
            return self.listen.port_base + 1
        return self.listen.port_base + FIRST_POP_OFFSET + self._index[self.pop(node).code]


def _checked(topology: Topology) -> Topology:
    for path, problem in checks.problems(topology):
        raise ConfigError(f"{path}: {problem}")
    return topology
