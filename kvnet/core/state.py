"""What the parts of one node's protocol share: where it stands, its neighbours, its timers and its effects."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Final

from kvnet.core.events import Effect, JournalPort, LinkPort, Report, Send
from kvnet.core.freshness import BeaconSeen
from kvnet.core.messages import Advert, Ask, BeaconId, Message
from kvnet.core.versions import GENESIS, Position
from kvnet.timers import Timers

RTT_WINDOW_MS: Final = 60_000
RTT_SAMPLES_MAX: Final = 16
NEVER: Final = -inf
NO_BEACON: Final = BeaconId(0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """Who a node is and whom it could know; the address book is shared and read-only at any size."""

    name: str
    root: str
    """The coordinator's name."""
    members: tuple[str, ...]
    """Every PoP, in the topology's order."""
    nearest: tuple[str, ...]
    """Other PoPs, nearest first; a few dozen suffice."""
    root_links: tuple[str, ...]
    """The PoPs the coordinator dials."""
    accept_loss: bool = False
    """Coordinator only: write although the network is ahead."""
    recover: bool = False
    """Coordinator only: an empty disk may be filled from the network."""
    fresh: bool = True
    """Coordinator only: no history was ever begun here, so that an empty disk is what it should be."""

    @property
    def is_root(self) -> bool:
        return self.name == self.root


@dataclass(slots=True)
class Neighbour:
    """A peer with a link, as far as we know it."""

    name: str
    rtts: list[tuple[float, float]] = field(default_factory=list)
    """(when, round trip), newest last, of the last minute."""
    rtt_ms: float = 0.0
    """The least of them."""
    advert: Advert | None = None
    advert_at: float = NEVER
    heard_sent_ms: float = -1.0
    """Its last `sent_ms`, to be echoed."""
    heard_at: float = NEVER
    useless_until: float = NEVER
    """It refused us: not asked to serve until then."""
    asked: Ask | None = None
    """What it was last asked, and when."""
    asked_at: float = NEVER
    sent_away_at: float = NEVER
    """When it was last told that it isn't our parent."""
    ladder_used_at: float | None = None
    """The link was dialled for the ladder, last used then; None for a link of the overlay."""

    def measure(self, now: float, rtt_ms: float) -> None:
        rtts, rtt_ms = self.rtts, max(0.0, rtt_ms)
        forgotten = False
        while rtts and (now - rtts[0][0] >= RTT_WINDOW_MS or len(rtts) == RTT_SAMPLES_MAX):
            forgotten = rtts.pop(0)[1] <= self.rtt_ms or forgotten
        rtts.append((now, rtt_ms))
        if forgotten or len(rtts) == 1:
            self.rtt_ms = min(rtt for _, rtt in rtts)
        elif rtt_ms < self.rtt_ms:
            self.rtt_ms = rtt_ms

    @property
    def rtt_typical_ms(self) -> float:
        """What a quarter of the last minute's round trips stayed below, to be compared with a configured one.

        The least of them is too short, by the jitter's luck; the median has what a busy machine adds.
        """
        return sorted(rtt for _, rtt in self.rtts)[len(self.rtts) // 4]

    @property
    def one_way_ms(self) -> float:
        return self.rtt_ms / 2

    def cost_ms(self) -> float:
        """What our latency from the root would be behind it."""
        return self.advert.latency_ms + self.one_way_ms if self.advert else inf


class NodeState:
    """The shared state. `now` and `out` belong to the event being handled; the rest to its owner, named here."""

    def __init__(
        self,
        config: NodeConfig,
        timers: Timers,
        journal: JournalPort,
        links: LinkPort,
        rng: random.Random,
    ) -> None:
        self.config = config
        self.is_root = config.is_root
        self.timers = timers
        self.journal = journal
        self.links = links
        self.rng = rng
        self.now = 0.0
        self.out: list[Effect] = []
        # overlay
        self.neighbours: dict[str, Neighbour] = {}
        self.barred: dict[str, float] = {}
        """Peers whose history differs from ours, and until when they aren't listened to, over any link."""
        # stream
        self.tip: Position = journal.position
        """Received and chain-checked; at or ahead of `applied`."""
        self.applied: Position = journal.position
        self.frames_wanted_to = inf
        """Frames that end after this seq aren't taken."""
        self.children: dict[str, Child] = {}
        self.began_at: Position = GENESIS
        """What this replica began with: nothing, or what it had applied when it gave way to another history."""
        self.began_at_ms = NEVER
        """When it did, the last time."""
        self.awaits_page = False
        """Nobody can serve us from where we stand: no use in subscribing before the first page has come."""
        self.overruled_by = 0
        """The epoch whose history took the place of ours, the last time that happened."""
        # offers
        self.lacks_chunks = False
        """What is to be applied next waits for chunks."""
        # tree
        self.parents: dict[str, Parent] = {}
        """By name, in the order they were taken; the first to deliver matters, not the order."""
        self.beacon = NO_BEACON
        self.beacon_at = NEVER
        self.beacon_time_ms = 0.0
        self.beacon_held_ms = 0.0
        self.beacon_latency_ms = 0.0
        """Of the path it came by; `latency_ms` may become less with a nearer parent that tells of it, too."""
        self.beacon_interval_ms = timers.beacon_interval_ms
        self.head_seq = 0
        self.wants_receipts = False
        """As of our beacon."""
        self.latency_ms = 0.0 if config.is_root else inf
        self.path: tuple[str, ...] = ()
        # lateness
        self.late_since: float | None = None
        self._timers: dict[str, float] = {}
        self._next_deadline: float | None = None
        """The earliest timer, while it is known; None when it must be looked for."""

    def send(self, peer: str, message: Message) -> None:
        self.out.append(Send(peer, message))

    def report(self, what: str, detail: str) -> None:
        self.out.append(Report(what, detail))

    def jittered(self, ms: float) -> float:
        """This long ± 20 %, so that what happens to all doesn't make all act at once."""
        return ms * self.rng.uniform(0.8, 1.2)

    # -- timers, one deadline for all ------------------------------------------------------------------------

    def set_timer(self, name: str, at_ms: float) -> None:
        self._timers[name] = at_ms
        self._next_deadline = None

    def set_timer_earlier(self, name: str, at_ms: float) -> None:
        if at_ms < self._timers.get(name, inf):
            self.set_timer(name, at_ms)

    def cancel_timer(self, name: str) -> None:
        if self._timers.pop(name, None) is not None:
            self._next_deadline = None

    def has_timer(self, name: str) -> bool:
        return name in self._timers

    def next_deadline(self) -> float:
        """Return when the earliest timer is due; inf without any."""
        if self._next_deadline is None:
            self._next_deadline = min(self._timers.values(), default=inf)
        return self._next_deadline

    def due_timers(self) -> Iterator[str]:
        """Yield and forget the timers that are due, in the order of their times, then of their names."""
        due = sorted((at, name) for name, at in self._timers.items() if at <= self.now)
        for _, name in due:
            if self._timers.get(name, inf) <= self.now:
                self.cancel_timer(name)
                yield name

    # -- derived ---------------------------------------------------------------------------------------------

    def advertised_beacon(self) -> BeaconId:
        """The newest beacon that counts for whoever reads our records: its head is applied."""
        return self.beacon if self.applied.seq >= self.head_seq else NO_BEACON

    def beacon_seen(self, stored_seq: int) -> BeaconSeen | None:
        """Return the beacon by which a store that reaches `stored_seq` tells its age; None if it isn't that far.

        Frames that wait for a full disk are received, but nobody can read them yet.
        """
        if self.beacon_at == NEVER or stored_seq < self.head_seq:
            return None
        return BeaconSeen(self.beacon_at, self.beacon_time_ms, self.beacon_held_ms, self.beacon_latency_ms)

    def is_newer(self, epoch: int, seq: int, beacon: BeaconId) -> bool:
        """Whether that is newer than what we have, in frames or in beacon."""
        return (epoch, seq) > (self.tip.epoch, self.tip.seq) or beacon > self.beacon

    def is_barred(self, peer: str) -> bool:
        return self.barred.get(peer, NEVER) > self.now

    def is_left_behind(self, epoch: int) -> bool:
        """Whether a replica that begins should not take a history of this epoch, since there is a higher one.

        It would take the old one from whoever hasn't heard yet, and have to give way again. If nobody gives it
        the higher one within `peer_bar_ms`, any will do.
        """
        if self.tip != self.began_at or self.now - self.began_at_ms >= self.timers.peer_bar_ms:
            return False
        return epoch < self.overruled_by or any(
            neighbour.advert is not None and neighbour.advert.position.epoch > epoch
            for neighbour in self.neighbours.values()
        )

    def is_full(self) -> bool:
        return len(self.children) >= self.timers.children_max


@dataclass(slots=True)
class Child:
    """A peer we serve: a cursor into our journal, not a queue."""

    name: str
    seq: int
    """The last seq handed to its link."""
    beacon: BeaconId = NO_BEACON
    """The last beacon handed to its link."""
    waiting: bool = False
    """`AwaitWritable` is under way."""
    moved_at: float = NEVER
    """When it was last asked to find another parent."""


@dataclass(slots=True)
class Parent:
    """A peer that serves us."""

    name: str
    since: float
    beacon: BeaconId = NO_BEACON
    """The newest it delivered."""
    beacon_at: float = NEVER
    behind_at: float = NEVER
    """When it last delivered a beacon more than 50 ms after another parent, or missed one."""
    heard_at: float = NEVER
    """When it last delivered anything."""
    is_told: bool = False
    """It has every ack that we had when we last sent some."""
