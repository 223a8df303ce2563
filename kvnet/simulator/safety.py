"""Safety: what must hold at every moment, whatever breaks. One class for each property."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any, Final

from kvnet.core.donor import RECEIVERS_MAX
from kvnet.core.entries import DIGEST_MODULUS, PutLarge
from kvnet.core.events import UNSENT_BYTES_MAX
from kvnet.core.fetching import KEPT_ASKS_MAX
from kvnet.core.frames import Frame
from kvnet.core.freshness import BeaconSeen, staleness_ms
from kvnet.core.manifest import Manifest
from kvnet.core.messages import Ack, Beacon, BeaconId, Frames, Message
from kvnet.core.offers import OFFERS_MAX
from kvnet.core.state import NEVER
from kvnet.core.stream import MESSAGE_FRAME_BYTES, RECENT_BYTES_MAX
from kvnet.core.versions import GENESIS, Position, Version
from kvnet.simulator.checking import Checker
from kvnet.simulator.disturbances import Disturbances
from kvnet.simulator.history import Written
from kvnet.simulator.node import SimulatedNode
from kvnet.simulator.world import ROOT, World

CONTROL_SLACK_BYTES: Final = 128 * 1024
"""Control messages that may wait on a link together with its frames."""
BEACONS_REMEMBERED: Final = 64
DRIFT_MAX: Final = 0.001
"""How much faster or slower than time a monotonic clock may go."""
BANDWIDTH_SETTLES_MS: Final = 30_000.0
"""How long a queue may be left of another bandwidth."""


class OneHistory(Checker):
    """What a replica applies was made durable by a coordinator, frame after frame, before it left there."""

    name = "one history"

    def on_applied(self, node: SimulatedNode, frames: Sequence[Frame]) -> None:
        for frame in frames:
            if frame.chain_after not in self.world.history.frames:
                self.fail(
                    f"{node.id} applied {frame.position}, which no coordinator made durable",
                    node=node.id,
                    seq=frame.last_seq,
                )


class DurableBeforeSent(Checker):
    """Not a byte of a frame leaves the coordinator before its fsync."""

    name = "durable before sent"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._durable = {durable.frame.data for durable in world.history.frames.values()}

    def on_durable(self, node: SimulatedNode, frames: Sequence[Frame]) -> None:
        del node
        self._durable.update(frame.data for frame in frames)

    def on_sent(self, node: SimulatedNode, peer: str, messages: Sequence[Message]) -> None:
        if node.name != ROOT:
            return
        for message in messages:
            if type(message) is Frames and not self._durable.issuperset(message.frames):
                self.fail(f"{node.id} sent {peer} a frame before its fsync", node=node.id)


class NeverBack(Checker):
    """A replica's position only grows, also over a restart and by being made anew, until it is emptied or its disk
    is replaced.
    """

    name = "never back"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._at: dict[str, Position] = {}

    def on_applied(self, node: SimulatedNode, frames: Sequence[Frame]) -> None:
        before = self._at.get(node.id, GENESIS)
        for frame in frames:
            if (frame.epoch, frame.first_seq) < (before.epoch, before.seq + 1):
                self.fail(f"{node.id} went back from {before} to {frame.position}", node=node.id)
            before = frame.position
        self._at[node.id] = before

    def on_adopted(self, node: SimulatedNode) -> None:
        before, now = self._at.get(node.id, GENESIS), node.disk.position
        if now[:2] < before[:2]:
            self.fail(f"{node.id} was at {before} and is made anew at {now}", node=node.id)
        self._at[node.id] = now

    def on_durable(self, node: SimulatedNode, frames: Sequence[Frame]) -> None:
        if frames:
            self._at[node.id] = frames[-1].position

    def on_emptied(self, node: SimulatedNode) -> None:
        self._at.pop(node.id, None)

    def on_started(self, node: SimulatedNode) -> None:
        before = self._at.get(node.id, GENESIS)
        if node.disk.position.seq < before.seq:
            self.fail(f"{node.id} started at {node.disk.position}, and had been at {before}", node=node.id)


class AcksAreTrue(Checker):
    """What the coordinator hears of a member, that member's readers have seen."""

    name = "acks are true"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._seen: dict[str, Version] = {}
        """The newest that each member has shown to readers, twins included."""
        self.count = 0
        for node in world.nodes.values():
            self.on_started(node)

    def on_applied(self, node: SimulatedNode, frames: Sequence[Frame]) -> None:
        if frames:
            self._see(node, frames[-1].position)

    def on_adopted(self, node: SimulatedNode) -> None:
        self._see(node, node.disk.position)

    def on_started(self, node: SimulatedNode) -> None:
        self._see(node, node.disk.position)

    def _see(self, node: SimulatedNode, position: Position) -> None:
        self._seen[node.name] = max(self._seen.get(node.name, position.version), position.version)

    def on_acks(self, node: SimulatedNode, acks: Sequence[Ack]) -> None:
        self.count += len(acks)
        for ack in acks:
            seen = self._seen.get(ack.member)
            if seen is None or ack.version > seen:
                self.fail(
                    f"{node.id} heard that {ack.member} shows {ack.version}, which shows {seen}",
                    node=ack.member,
                    seq=ack.version.seq,
                )


class EpochsDiffer(Checker):
    """No two histories share an epoch: a pair of epoch and seq names one entry, everywhere and for ever.

    Two coordinators from copies of one disk can break that, and one whose disk lost what it had synced; the chain
    tells the two apart then.
    """

    name = "epochs differ"

    def __init__(self, world: World, disturbances: Disturbances) -> None:
        super().__init__(world)
        self._disturbances = disturbances
        self._frames: dict[tuple[int, int], bytes] = {}

    def on_durable(self, node: SimulatedNode, frames: Sequence[Frame]) -> None:
        for frame in frames:
            known = self._frames.setdefault((frame.epoch, frame.first_seq), frame.chain_after)
            if known != frame.chain_after and not self._disturbances.excuses:
                self.fail(f"{node.id} wrote {frame.position} a second time", node=node.id, seq=frame.last_seq)


class FoldOfAPrefix(Checker):
    """A replica's records are what the history up to its position adds up to, and its digest says so.

    The last writer of every key has won, and what is deleted is gone.
    """

    name = "fold of a prefix"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._changed: dict[str, None] = {}
        self.looked = 0

    def on_applied(self, node: SimulatedNode, frames: Sequence[Frame]) -> None:
        del frames
        self._changed[node.id] = None

    def on_adopted(self, node: SimulatedNode) -> None:
        self._changed[node.id] = None
        if not node.disk.verified:
            self.fail(f"{node.id} is made anew and wasn't proven", node=node.id)

    def on_emptied(self, node: SimulatedNode) -> None:
        self._changed[node.id] = None

    def look(self) -> None:
        changed, self._changed = self._changed, {}
        for id_ in changed:
            node = self.world.nodes.get(id_)
            if node is not None:
                self._look_at(node)

    def _look_at(self, node: SimulatedNode) -> None:
        self.looked += 1
        position = node.disk.position
        if not node.disk.folds:
            return
        if not self.world.history.knows(position.chain):
            self.fail(f"{node.id} stands at {position}, where no history leads", node=node.id)
        held = {
            (namespace, key): Written(record.value, record.metadata, record.expires_at, record.version)
            for namespace, records in node.disk.records.items()
            for key, record in records.items()
        }
        expected = self.world.history.fold(position.chain)
        if held != expected:
            places = sorted(
                place for place in held.keys() | expected.keys() if held.get(place) != expected.get(place)
            )
            self.fail(f"{node.id} at {position} differs from its history in {places[:3]}", node=node.id)
        hashes = (r.hash for records in node.disk.records.values() for r in records.values())
        if sum(int.from_bytes(hash_, "big") for hash_ in hashes) % DIGEST_MODULUS != node.disk.digest:
            self.fail(f"{node.id} at {position} has a digest that isn't the sum of its records", node=node.id)


class WholeValues(Checker):
    """A replica shows a large value only when it has all of its chunks, and keeps them for as long."""

    name = "whole values"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.looked = 0

    def on_applied(self, node: SimulatedNode, frames: Sequence[Frame]) -> None:
        for frame in frames:
            for entry in frame.entries():
                if isinstance(entry, PutLarge):
                    self._look_for(node, Manifest.unpack(entry.manifest).chunks)

    def on_adopted(self, node: SimulatedNode) -> None:
        for held in node.disk.records.values():
            for record in held.values():
                if record.large:
                    self._look_for(node, Manifest.unpack(record.value).chunks)

    def look(self) -> None:
        for node in self.world.nodes.values():
            gone = node.disk.lacking_named()
            if gone:
                self.fail(f"{node.id} has lost {len(gone)} chunks that its records name", node=node.id)

    def _look_for(self, node: SimulatedNode, chunks: Sequence[bytes]) -> None:
        self.looked += 1
        missing = node.disk.lacking_chunks(chunks)
        if missing and node.disk.folds:
            self.fail(f"{node.id} shows a large value and lacks {len(missing)} of its chunks", node=node.id)


class NoResurrection(Checker):
    """Once a replica has applied the end of a key, nothing older of that key is ever seen there again.

    Unless what it had applied is no part of the history that it is made anew from.
    """

    name = "no resurrection"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._seen: dict[str, dict[tuple[bytes, bytes], int]] = {}
        """By node and place, the seq of the newest entry that was applied."""
        self._at: dict[str, bytes] = {}
        """By node, the chain after the newest frame that was applied."""
        self._changed: dict[str, None] = {}

    def on_applied(self, node: SimulatedNode, frames: Sequence[Frame]) -> None:
        seen = self._seen.setdefault(node.id, {})
        self._at[node.id] = node.disk.position.chain
        self._changed[node.id] = None
        for frame in frames:
            for seq, entry in enumerate(frame.entries(), frame.first_seq):
                place = (getattr(entry, "namespace", b""), getattr(entry, "key", b""))
                if seen.get(place, 0) >= seq:
                    self.fail(f"{node.id} applied an older entry of {place[1]!r} again", node=node.id, seq=seq)
                seen[place] = seq

    def on_adopted(self, node: SimulatedNode) -> None:
        chain = node.disk.position.chain
        if not self.world.history.leads(self._at.get(node.id, chain), chain):
            self._seen.pop(node.id, None)
        self._at[node.id] = chain
        self._changed[node.id] = None

    def on_emptied(self, node: SimulatedNode) -> None:
        self._seen.pop(node.id, None)

    def look(self) -> None:
        changed, self._changed = self._changed, {}
        for id_ in changed:
            node = self.world.nodes.get(id_)
            if node is None:
                continue
            for (namespace, key), seq in self._seen.get(id_, {}).items():
                record = node.disk.get(namespace, key)
                if record is not None and record.version.seq < seq:
                    self.fail(f"{id_} shows {key!r} as of {record.version}, after {seq}", node=id_, seq=seq)


class StalenessIsABound(Checker):
    """A replica that says how stale its view is at most says enough.

    It goes by the round trips of its beacon's path and by the wall clocks, whichever is more. Where a clock is
    wrong it may say too little, but no more so than the beacon was delayed on its way by what round trips don't
    tell: lost packets, cuts, processes that stood still.
    """

    name = "staleness is a bound"

    def __init__(self, world: World, disturbances: Disturbances, *, slack_ms: float = 1.0) -> None:
        super().__init__(world)
        self._disturbances = disturbances
        self._slack_ms = slack_ms
        self._beacons: dict[str, tuple[BeaconSeen, float]] = {}
        """By node: the newest beacon whose head it has applied, and how much that was delayed."""
        self._sent: dict[tuple[str, str], dict[BeaconId, tuple[float, float]]] = {}
        """By way: of the last beacons, when each left first, and how much it was delayed by then."""
        self._delays: dict[str, dict[BeaconId, float]] = {}
        """By node: how much each of its last beacons was delayed; several may come in one turn."""
        self._durable: list[tuple[int, float]] = []
        """(last seq, time of its fsync), in the order of both."""
        self.looked = 0

    def on_durable(self, node: SimulatedNode, frames: Sequence[Frame]) -> None:
        del node
        for frame in frames:
            while self._durable and self._durable[-1][0] >= frame.last_seq:
                self._durable.pop()  # another history goes on from before
            self._durable.append((frame.last_seq, self.world.now))

    def on_sent(self, node: SimulatedNode, peer: str, messages: Sequence[Message]) -> None:
        for message in messages:
            if type(message) is Beacon:
                sent = self._sent.setdefault((node.name, peer), {})
                delay = 0.0 if node.name == ROOT else self._delays.get(node.id, {}).get(message.beacon, inf)
                sent.setdefault(message.beacon, (self.world.now, delay))
                _forget_oldest(sent)

    def on_emptied(self, node: SimulatedNode) -> None:
        self._beacons.pop(node.id, None)

    def on_stopped(self, node: SimulatedNode) -> None:
        self._beacons.pop(node.id, None)

    def on_event(self, node: SimulatedNode) -> None:
        core = node.core
        if core is None or node.name == ROOT or core.state.beacon_at == NEVER:
            return
        state = core.state
        delays = self._delays.setdefault(node.id, {})
        if state.beacon not in delays:
            delays[state.beacon] = self._delay_of(node, state.path[-1], state.beacon)
            _forget_oldest(delays)
        if (seen := state.beacon_seen(node.disk.position.seq)) is not None:
            self._beacons[node.id] = seen, delays[state.beacon]

    def _delay_of(self, node: SimulatedNode, sender: str, beacon: BeaconId) -> float:
        """Return how much longer the beacon that has just come was under way than the round trips on its path."""
        left, delay = self._sent.get((sender, node.name), {}).get(beacon, (-inf, inf))
        wan = self.world.wan
        pair_is_faulty = wan.state.fault(sender, node.name) or wan.state.fault(node.name, sender)
        told = 0.0 if pair_is_faulty or wan.state.jitter_sigma else wan.rtt_ms(sender, node.name)
        return delay + max(0.0, self.world.now - left - told)

    def look(self) -> None:
        if self._disturbances.excuses:
            return  # with two histories nobody can say which of them a replica is behind
        for node in self.world.edges():
            seen = self._beacons.get(node.id)
            if seen is not None and self.world.history.knows(node.disk.position.chain):
                self._look_at(node, *seen)

    def _look_at(self, node: SimulatedNode, beacon: BeaconSeen, delay_ms: float) -> None:
        self.looked += 1
        said = staleness_ms(
            now_ms=node.clock_ms(), wall_ms=node.wall_ms(), beacon=beacon, applied_stamp=node.disk.stamp
        )
        position = node.disk.position.seq
        missing = next((at for seq, at in self._durable if seq > position), inf)
        true = self.world.now - missing
        drift = DRIFT_MAX * max(0.0, said)
        error = min(self._disturbances.clock_error_ms, delay_ms) + drift + self._slack_ms
        if true > said + error:
            self.fail(f"{node.id} says at most {said:.0f} ms and lacks a write of {true:.0f} ms ago", node=node.id)


def _forget_oldest(of_beacons: dict[BeaconId, Any]) -> None:
    while len(of_beacons) > BEACONS_REMEMBERED:
        del of_beacons[next(iter(of_beacons))]


class EverythingIsBounded(Checker):
    """Nothing that a node keeps for others grows without limit."""

    name = "everything is bounded"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._bandwidth = world.wan.state.bandwidth_mbps
        self._bandwidth_changed_at = NEVER
        self.looked = 0

    def look(self) -> None:
        self.looked += 1
        members = len(self.world.nodes)
        bandwidth = self.world.wan.state.bandwidth_mbps
        if bandwidth != self._bandwidth:
            self._bandwidth, self._bandwidth_changed_at = bandwidth, self.world.now
        for node in self.world.live():
            core = node.core
            assert core is not None
            sizes = core.sizes()
            limits = {
                "recent_bytes": 8 * RECENT_BYTES_MAX + node.pending_bytes,
                "kept_asks": len(core.state.neighbours),
                "disputes": members,
                "barred": members,
                "ladder_peers": members,
                "replaced": members,
                "children": len(core.state.neighbours),
                "receivers": RECEIVERS_MAX,
                "offers": OFFERS_MAX,
                "kept_chunk_asks": KEPT_ASKS_MAX,
            }
            for what, limit in limits.items():
                if sizes[what] > limit:
                    self.fail(f"{node.id} keeps {sizes[what]} of {what}, more than {limit}", node=node.id)
            for peer, link in node.links.items():
                unsent = link.direction(node).model.unsent_bytes(self.world.now)
                if self.world.tampering is not None:
                    continue  # messages that are said twice are no queue of ours
                if self.world.now - self._bandwidth_changed_at < BANDWIDTH_SETTLES_MS:
                    continue  # a link tells its queue in time, at the line's speed of now
                if unsent > UNSENT_BYTES_MAX + MESSAGE_FRAME_BYTES + CONTROL_SLACK_BYTES:
                    self.fail(f"{node.id} has {unsent} bytes unsent for {peer}", node=node.id)
