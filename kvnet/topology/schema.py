"""What a topology file says, as frozen values; the types hold the ranges, `checks` what must fit together.

A `Topology` that came from `load` or from its own `with_…` methods is known to work.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cached_property
from hashlib import blake2b
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta, Struct
from msgspec.structs import asdict, replace

from kvnet import limits as limits_profiles
from kvnet.errors import ConfigError
from kvnet.limits import Limits
from kvnet.topology.fields import (
    COORDINATOR,
    MONITOR,
    City,
    Code,
    Country,
    EdgeDurability,
    Fraction,
    Gibibytes,
    Host,
    Latitude,
    Limit,
    Longitude,
    Mebibytes,
    Megabits,
    Name,
    Port,
    Region,
    RoundTrip,
    Sigma,
    Url,
    WanProfile,
)
from kvnet.topology.geography import Place
from kvnet.topology.selection import best_spread
from kvnet.topology.timers import Timers

PORT_MAX = 32_767
"""The last port before those that the kernel hands to outgoing connections."""
FIRST_POP_OFFSET = 10
"""PoP i listens on the base port + 10 + i; the coordinator on the base, the monitor one above."""


class Pop(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One point of presence: a place with an edge node."""

    code: Code
    """Lower-case name of the PoP, the airport's code as a rule; unique."""
    city: City
    """The city as people call it; several PoPs may share one."""
    country: Country
    """ISO 3166 alpha-2."""
    lat: Latitude
    """Degrees north."""
    lon: Longitude
    """Degrees east."""
    region: Region
    """Part of the world: where partitions run, and what the coordinator spreads its links over."""
    url: Url | None = None
    """Where this node answers, if not at the port counted from listen.port_base."""
    assumed: bool = False
    """True when no source places a PoP here at the time the file speaks of."""

    @property
    def place(self) -> Place:
        """Degrees north and degrees east."""
        return self.lat, self.lon


class Coordinator(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The one node that takes writes."""

    place: Code
    """Code of the PoP in whose city the coordinator stands, and the monitor with it."""
    url: Url | None = None
    """Where it answers, if not at listen.port_base."""


class Monitor(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The node that watches; it stands at the coordinator's place."""

    url: Url | None = None
    """Where it answers, if not at listen.port_base + 1."""


class Listen(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where nodes without a url of their own answer."""

    host: Host = "127.0.0.1"
    """Address that every node binds. 127.0.0.1 keeps the network on this host."""
    port_base: Port = 21_000
    """The coordinator's port; the monitor has the next one, PoP i has port_base + 10 + i."""


class WanConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What distance does to the messages between nodes."""

    profile: WanProfile = "internet"
    """How distance becomes delay: `internet`, `backbone`, `none`, or `matrix` for measured round trips."""
    loss: Fraction = 0.0
    """Fraction of packets lost on links between replicas; each costs its connection a retransmission time."""
    jitter_sigma: Sigma = 0.05
    """Spread of the lognormal jitter, as a fraction of the delay; 0 makes every delay exact."""
    bandwidth_mbps: Megabits | None = None
    """Megabits per second of each connection and direction; null for no limit."""
    matrix: dict[Code, dict[Code, RoundTrip]] | None = None
    """Round trips in milliseconds, `from: {to: rtt}`, each direction for itself, half of it one way. The profile
    `matrix` needs every pair; with the others it replaces the pairs it names."""


class LimitsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A limits profile, and single limits that differ from it."""

    profile: str = "workers-kv-2018"
    """`workers-kv-2018` or `workers-kv`."""
    key_bytes_max: Limit | None = None
    """UTF-8 bytes of a key, at most 2,048."""
    value_bytes_max: Limit | None = None
    """Bytes of a value. More: larger frames, and more memory per write on its way."""
    metadata_bytes_max: Limit | None = None
    """Bytes of a pair's metadata as JSON."""
    ttl_seconds_min: Limit | None = None
    """Shortest time to live, in seconds."""
    write_interval_ms: Limit | None = None
    """Least time between two writes of one key; 0 allows any rate."""

    def overrides(self) -> dict[str, int]:
        """Return the single limits that are set."""
        return {name: value for name, value in asdict(self).items() if name != "profile" and value is not None}

    def resolve(self) -> Limits:
        """Return the limits in force.

        Raises:
            ConfigError: no such profile, or a limit out of its range.
        """
        return limits_profiles.with_overrides(limits_profiles.profile(self.profile), self.overrides())


class StorageConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What nodes do with their disks."""

    edge_durability: EdgeDurability = "none"
    """`commit` syncs every commit of an edge; `none` leaves it to the kernel, and an edge whose machine
    crashed starts empty and is refilled by its neighbours."""
    map_size_gib: Gibibytes = 8
    """The most an LMDB environment can hold; address space, not disk."""
    edge_journal_mib: Mebibytes = 64
    """Tail of the journal an edge keeps to serve repair. More: neighbours away for longer need no snapshot."""


class Topology(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """A whole network. `dict=True` only gives the lookups below a place to be remembered in."""

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
        return self.pop(self.coordinator.place if node in {COORDINATOR, MONITOR} else node)

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

    def digest(self) -> str:
        """Return a hash of what a folder of data depends on: the name, the coordinator's place, the PoPs.

        Addresses, the WAN, limits and timers may change from run to run over the same data.
        """
        identity = "\n".join([self.name, self.coordinator.place, *sorted(self._index)])
        return blake2b(identity.encode(), digest_size=16).hexdigest()

    def with_port_base(self, port_base: int) -> Topology:
        """Return the same network on another block of ports.

        Raises:
            ConfigError: the block doesn't fit below 32,768.
        """
        last = port_base + FIRST_POP_OFFSET + len(self.pops) - 1
        if not 1024 <= port_base <= last <= PORT_MAX:
            highest = PORT_MAX - FIRST_POP_OFFSET - len(self.pops) + 1
            raise ConfigError(f"{len(self.pops)} PoPs don't fit from port {port_base}: choose 1024 to {highest}")
        return replace(self, listen=replace(self.listen, port_base=port_base))

    def with_pops(self, count: int) -> Topology:
        """Return the network of the `count` best-spread PoPs, the coordinator's place always among them.

        Raises:
            ConfigError: the file hasn't so many.
        """
        kept = {pop.code for pop in best_spread(self.pops, count, self.coordinator.place)}
        matrix = self.wan.matrix and {
            sender: {receiver: rtt for receiver, rtt in row.items() if receiver in kept}
            for sender, row in self.wan.matrix.items()
            if sender in kept
        }
        pops = tuple(pop for pop in self.pops if pop.code in kept)
        return replace(self, pops=pops, wan=replace(self.wan, matrix=matrix))

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
        config = self.limits if profile is None else LimitsConfig(profile=profile)
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


def unknown(kind: str, name: str, known: list[str]) -> str:
    """Say that nothing is called `name`, and what the reader may have meant."""
    close = get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    shown = [*known[:8], "…"] if len(known) > 8 else known
    cure = f"did you mean {', '.join(close)}?" if close else f"choose one of {', '.join(shown)}"
    return f"no {kind} is called {name!r}: {cure}"
