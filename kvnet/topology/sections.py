"""The sections of a topology file, as frozen values; the types hold the ranges."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import asdict

from kvnet import limits as limits_profiles
from kvnet.limits import Limits
from kvnet.topology.fields import (
    City,
    Code,
    Country,
    EdgeDurability,
    Fraction,
    Gibibytes,
    Host,
    Hours,
    Latitude,
    Limit,
    LimitsProfile,
    Longitude,
    Mebibytes,
    Megabits,
    Port,
    Readers,
    Region,
    Removals,
    RoundTrip,
    Sigma,
    Url,
    WanProfile,
)
from kvnet.topology.geography import Place


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
    readers: Readers | None = None
    """Processes that answer reads beside this edge; null for as many as the network's `readers`."""
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

    profile: LimitsProfile = "workers-kv-2018"
    """`workers-kv-2018`, as announced, or `workers-kv`, as it is today."""
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
            ConfigError: a limit is out of its range.
        """
        return limits_profiles.with_overrides(limits_profiles.profile(self.profile), self.overrides())


class StorageConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What nodes do with their disks."""

    edge_durability: EdgeDurability = "none"
    """`commit` syncs every commit of an edge; `none` leaves it to the kernel, and an edge whose machine
    crashed starts empty and is refilled by its neighbours."""
    map_size_gib: Gibibytes = 256
    """The most an LMDB environment can hold; address space, not disk."""
    edge_journal_mib: Mebibytes = 64
    """Tail of the journal an edge keeps to serve repair. More: neighbours that were away for longer
    are served by neighbours, not by the coordinator."""
    coordinator_journal_hours: Hours = 24
    """How far back the coordinator's journal reaches. More: nodes that were away for longer take frames, not all
    records anew."""
    coordinator_journal_mib: Mebibytes = 4096
    """The most that the coordinator's journal takes of its disk; beyond it, it reaches back for less."""
    expiry_removals_per_second: Removals = 200
    """Expired records that the coordinator removes at most; nobody sees them anyhow. More: their room is free
    again sooner, for more frames. 0 leaves them on every disk."""
