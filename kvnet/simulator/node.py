"""One node of a simulated world: the unchanged protocol core, its disk, and a driver as the asyncio one is.

All that comes in at one instant over one link is one turn: the core handles event after event; then what it sends
leaves, one message per link; then its frames are applied in one transaction; then the core hears `Applied`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from random import Random
from typing import TYPE_CHECKING, Any, Final

from kvnet.core.events import (
    AbandonBootstrap,
    AcksCame,
    Applied,
    Apply,
    AwaitWritable,
    BeginBootstrap,
    BulkSend,
    ChunksLacking,
    Connect,
    DeadlineReached,
    Disconnect,
    Diverged,
    DropUnapplied,
    Effect,
    Empty,
    Event,
    FinishBootstrap,
    OfferSettled,
    OpenEpoch,
    PeerLost,
    RefuseWrites,
    Report,
    Send,
    SendChunk,
    SendPage,
    SetDeadline,
    Started,
    StoreChunk,
    StorePage,
)
from kvnet.core.frames import Frame
from kvnet.core.freshness import ReplicaClock
from kvnet.core.messages import Frames, Message
from kvnet.core.replica import Replica
from kvnet.core.state import NodeConfig
from kvnet.core.versions import GENESIS
from kvnet.errors import ChunksMissing, Divergence, ProtocolError, StorageFull
from kvnet.simulator.bulk_work import BulkWork
from kvnet.simulator.disk import SimulatedDisk
from kvnet.simulator.journal import SimulatedJournal
from kvnet.simulator.network import Link, size_of
from kvnet.topology.schema import COORDINATOR

if TYPE_CHECKING:
    from kvnet.simulator.world import World

FULL_RETRY_FIRST_MS: Final = 100.0
FULL_RETRY_MAX_MS: Final = 5000.0
"""How often a full disk is tried again, as runtime/driver.py does."""
PENDING_BYTES_MAX: Final = 16 * 1024 * 1024


class SimulatedNode:
    """One node: its core while it runs, its disk for ever."""

    __slots__ = (
        "_armed_at",
        "_deadline",
        "_frames",
        "_outbox",
        "_pending",
        "_put_off",
        "_reset_due",
        "_retry_ms",
        "_retrying",
        "backlog",
        "bulk",
        "clock",
        "clock_offset_ms",
        "clock_rate",
        "control_messages_sent",
        "core",
        "cpu_ms",
        "dialling",
        "disk",
        "events",
        "id",
        "links",
        "name",
        "refused_writes",
        "reports",
        "stalled_until",
        "started_at",
        "stopped_at",
        "wall_offset_ms",
        "world",
    )

    def __init__(self, world: World, name: str, disk: SimulatedDisk, *, id_: str = "") -> None:
        self.world = world
        self.name = name
        self.id = id_ or name
        """The name, but for a second node that runs under the same one."""
        self.disk = disk
        self.core: Replica | None = None
        self.links: dict[str, Link] = {}
        self.dialling: dict[str, None] = {}
        self.bulk = BulkWork(self)
        """Its bulk links, pages and chunks."""
        self.reports: list[tuple[float, str, str]] = []
        self.events = 0
        self.control_messages_sent = 0
        """WebSocket messages without a frame; all that is pending for a link in one turn is one."""
        self.refused_writes = ""
        self.started_at = -inf
        self.stopped_at = -inf
        self.stalled_until = -inf
        """Until then the process does nothing; what arrives waits in its sockets."""
        self.cpu_ms = 0.0
        """How long it takes over one event."""
        self._put_off: list[tuple[Callable[[Any], object], Any]] = []
        """What waits until it doesn't stand still any more."""
        self.backlog: list[Event] = []
        """What happened to its links while it was stalled."""
        self.clock_offset_ms = 0.0
        self.clock_rate = 1.0
        """Its monotonic clock is world time × rate + offset."""
        self.wall_offset_ms = 0.0
        self.clock = ReplicaClock()
        """By which its records expire."""
        self._forget_turn()

    def _forget_turn(self) -> None:
        self._pending: list[Event] = []
        self._outbox: dict[str, list[Message]] = {}
        self.bulk.forget()
        self._frames: list[Frame] = []
        self._reset_due = False
        self._retry_ms = FULL_RETRY_FIRST_MS
        self._retrying = False
        self._deadline = inf
        self._armed_at = inf

    @property
    def journal(self) -> SimulatedJournal:
        """Its disk's journal."""
        return self.disk.journal

    @property
    def is_up(self) -> bool:
        return self.core is not None

    @property
    def pending_bytes(self) -> int:
        """Bytes of frames that wait for a full disk."""
        return sum(len(frame.data) for frame in self._frames)

    def clock_ms(self) -> float:
        """Return the time by this node's monotonic clock."""
        return self.world.now * self.clock_rate + self.clock_offset_ms

    def wall_ms(self) -> float:
        """Return the time by this node's wall clock."""
        return self.world.now + self.wall_offset_ms

    def hear_time(self) -> None:
        """Tell the clock what the root says, of which this host's own wall is no witness; that of the root is."""
        core = self.core
        if self.name == COORDINATOR:
            self.clock.on_beacon(self.wall_ms(), self.clock_ms())
        elif core is not None and core.state.beacon_at > -inf:
            self.clock.on_beacon(core.state.beacon_time_ms, core.state.beacon_at)

    def replica_time_s(self) -> float:
        """Return the time by which its records expire, as a read does: it is remembered."""
        self.hear_time()
        now_s = self.clock.now_ms(self.clock_ms()) / 1000
        self.disk.note_time(now_s)
        return now_s

    def all_links(self) -> list[Link]:
        return [*self.links.values(), *self.bulk.links.values()]

    def links_of(self, bulk: bool) -> dict[str, Link]:
        return self.bulk.links if bulk else self.links

    def dialling_of(self, bulk: bool) -> dict[str, None]:
        return self.bulk.dialling if bulk else self.dialling

    def on_lost(self, peer: str, *, bulk: bool) -> None:
        if bulk:
            self.bulk.on_lost(peer)
        else:
            self.feed(PeerLost(peer))

    def unsent_bytes(self, peer: str) -> int:
        link = self.links.get(peer)
        if link is None:
            return 0
        waiting = size_of(self._outbox[peer]) if peer in self._outbox else 0
        return waiting + link.direction(self).model.unsent_bytes(self.world.now)

    # -- life ------------------------------------------------------------------------------------------------

    def start(self, config: NodeConfig, rng: Random) -> None:
        """Run, on the disk it has."""
        assert self.core is None, f"{self.id} runs already"
        self.refused_writes = ""
        self.started_at = self.world.now
        self.stalled_until = -inf
        self._forget_turn()
        self.disk.now_ms = self.wall_ms
        self.clock = ReplicaClock(self.disk.stamp, self.disk.reached_s * 1000)
        world = self.world
        self.core = Replica(
            config, world.timers, self.disk.port, self, rng, self.wall_ms, read_frame=world.read_frame
        )
        self.feed(Started())

    def stop(self) -> None:
        """Be gone, at once and whole; the disk stays."""
        self.core = None
        self.stopped_at = self.world.now
        self.dialling.clear()
        self.backlog.clear()
        self.stalled_until = -inf
        self._wake_up(None)  # nobody has to wait for who is gone
        self._forget_turn()

    def resume(self) -> None:
        """Go on, if it stood still."""
        if self.stalled_until > self.world.now:
            self.stalled_until = self.world.now
            if self.core is not None:
                self._drain(self.core)
                for link in self.all_links():
                    self.world.look_at(link.direction(link.other(self)))
                if self._deadline < inf:
                    self._arm()
            self._wake_up(None)

    def put_off(self, action: Callable[[Any], object], argument: Any) -> bool:
        """Whether this process stands still, and `action(argument)` happens when it doesn't any more."""
        if self.world.now >= self.stalled_until:
            return False
        if not self._put_off:
            self.world.at(self.stalled_until, self._wake_up, None)
        self._put_off.append((action, argument))
        return True

    def _wake_up(self, _: object) -> None:
        if not self._put_off:
            return
        if self.world.now < self.stalled_until:
            self.world.at(self.stalled_until, self._wake_up, None)
            return
        put_off, self._put_off = self._put_off, []
        for action, argument in put_off:
            action(argument)

    def set_clock(self, *, step_ms: float = 0.0, drift_ppm: float = 0.0) -> None:
        """Set the wall clock by a step, and have the monotonic one run faster or slower from now on."""
        self.wall_offset_ms += step_ms
        before = self.clock_ms()
        self.clock_rate += drift_ppm / 1e6
        self.clock_offset_ms += before - self.clock_ms()
        if self._deadline < inf:
            self._arm()

    # -- turns -----------------------------------------------------------------------------------------------

    def feed(self, event: Event) -> None:
        """Have the core handle this, now or when the process goes on."""
        if self.core is None:
            return
        if self.world.now < self.stalled_until:
            if not self.backlog:
                self.world.at(self.stalled_until, self._drain, self.core)
            self.backlog.append(event)
            return
        self.turn([event])

    def _drain(self, core: Replica) -> None:
        if self.core is not core or not self.backlog:
            return
        if self.world.now < self.stalled_until:
            self.world.at(self.stalled_until, self._drain, core)
            return
        events, self.backlog = self.backlog, []
        self.turn(events)

    def turn(self, events: list[Event]) -> None:
        """Handle these events and carry out what they lead to."""
        core = self.core
        if core is None:
            return
        if self._pending:  # within a turn of its own: an effect led to the next event
            self._pending.extend(events)
            return
        world = self.world
        world.at_work = self.id
        clock = world.now * self.clock_rate + self.clock_offset_ms
        self._pending = pending = events
        handled = 0
        while True:
            while handled < len(pending):
                event = pending[handled]
                handled += 1
                if world.trace is not None:
                    world.trace.on_event(self, event)
                for effect in core.handle(event, clock):
                    if type(effect) is Send:
                        out = self._outbox.get(effect.peer)
                        if out is None:
                            self._outbox[effect.peer] = [effect.message]
                        else:
                            out.append(effect.message)
                    elif type(effect) is SetDeadline:
                        self._deadline = effect.at_ms
                        if effect.at_ms < self._armed_at:
                            self._arm()
                    elif type(effect) is Apply:
                        self._frames.extend(effect.frames)
                    else:
                        self._carry_out(effect)
                core.check_invariants()
                for tell in world.heard.event:
                    tell(self)
            if self._outbox:
                outbox, self._outbox = self._outbox, {}
                for peer, messages in outbox.items():
                    world.send(self, peer, messages)
                if self.core is not core:
                    return
            self.bulk.send()
            if self._reset_due:
                self._reset()
            elif self._frames and not self._retrying and not self.bulk.lacking:
                self._apply()
            if not self.disk.verified:
                self._look_whether_level(core)
            if handled == len(pending):
                break
        self.events += handled
        world.events += handled
        self._pending = []
        if self.cpu_ms:
            self.stalled_until = world.now + handled * self.cpu_ms

    def hear_next(self, event: Event) -> None:
        """Within a turn: have the core handle this after what it handles now."""
        self._pending.append(event)

    def _carry_out(self, effect: Effect) -> None:
        world = self.world
        match effect:
            case Connect(peer):
                world.dial(self, peer)
            case Disconnect(peer, _):
                link = self.links.get(peer)
                if link is not None:
                    world.close(link)
            case AwaitWritable(peer):
                link = self.links.get(peer)
                if link is not None:
                    world.await_room(link.direction(self))
            case DropUnapplied():
                self._frames.clear()
                self.bulk.lacking = ()
            case Empty():
                self._frames.clear()
                self.bulk.give_up()
                self._reset_due = True
            case BeginBootstrap() | AbandonBootstrap():
                self._frames.clear()
                self.bulk.carry_out(effect)
            case BulkSend() | SendChunk() | SendPage() | StorePage() | FinishBootstrap() | StoreChunk():
                self.bulk.carry_out(effect)
            case OfferSettled(id_):
                world.offer_settled(self, id_)
            case AcksCame(acks):
                for tell in world.heard.acks:
                    tell(self, acks)
            case OpenEpoch(epoch):
                world.open_epoch(self, epoch)
            case RefuseWrites(why):
                self.refused_writes = why
                world.close_desk(self)
            case Report(what, detail):
                self.reports.append((world.now, what, detail))
            case _:
                raise AssertionError(f"an effect out of its place: {effect}")
        if world.trace is not None:
            world.trace.on_effect(self, effect)

    # -- the store -------------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Have on the medium what is written, where this node does that."""
        if self.world.edges_sync or self.name == COORDINATOR:
            self.disk.sync()

    def notice_damage(self) -> None:
        """Find out that a record isn't what was written: nobody is shown it, and the replica is made anew."""
        if self.disk.is_damaged:
            self.reports.append((self.world.now, "damaged", "a record isn't what was written"))
            self.feed(Diverged("a record isn't what was written"))

    def _look_whether_level(self, core: Replica) -> None:
        """An edge that has a parent and all that a beacon spoke of is verified, as nodes/edge.py finds it."""
        state = core.state
        is_level = self.disk.position.seq >= state.head_seq > 0 and state.late_since is None
        if self.disk.successor is None and is_level and (state.parents or state.is_root):
            self.disk.mark_verified()

    def _reset(self) -> None:
        self._reset_due = False
        self.disk.reset()
        for tell in self.world.heard.emptied:
            tell(self)
        self._pending.append(Applied(GENESIS))

    def _apply(self) -> None:
        frames = self._frames
        try:
            self.disk.apply(frames)
        except StorageFull as error:
            self.reports.append((self.world.now, "storage_full", str(error)))
            self._retrying = True
            self.world.at(self.world.now + self._retry_ms, self._try_again, self.core)
            self._retry_ms = min(FULL_RETRY_MAX_MS, self._retry_ms * 2)
            return
        except (Divergence, ProtocolError) as error:
            self._frames = []
            self.reports.append((self.world.now, "diverged", str(error)))
            self._pending.append(Diverged(str(error)))
            return
        except ChunksMissing as missing:
            if missing.applicable:
                self.disk.apply(frames[: missing.applicable])
            frames = frames[: missing.applicable]
            self.bulk.lacking = missing.hashes
            self._pending.append(ChunksLacking(missing.hashes))
        self._frames = self._frames[len(frames) :]
        self._retry_ms = FULL_RETRY_FIRST_MS
        self.sync()
        if not frames:
            return
        self.clock.on_applied(self.disk.stamp)
        if self.disk.successor is None:  # else readers don't see them yet
            for tell in self.world.heard.applied:
                tell(self, frames)
        self._pending.append(Applied(self.disk.port.position))

    def _try_again(self, core: Replica) -> None:
        if self.core is not core:
            return
        if self.put_off(self._try_again, core):
            return
        self._retrying = False
        if self._frames and not self._reset_due and not self.bulk.lacking:
            self._apply()
            events, self._pending = self._pending, []
            if events:
                self.turn(events)

    def overflows(self, messages: list[Message]) -> bool:
        """Whether these bring frames while more wait for a full disk than memory may hold."""
        return (
            self._retrying
            and self.pending_bytes > PENDING_BYTES_MAX
            and any(type(message) is Frames for message in messages)
        )

    # -- time ------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Wake at the deadline; one armed for an earlier time stays, and is moved on when it fires."""
        self._armed_at = self._deadline
        at = (self._deadline - self.clock_offset_ms) / self.clock_rate
        self.world.at(max(at, self.world.now), self._wake, (self.core, self._armed_at))

    def _wake(self, armed: tuple[Replica, float]) -> None:
        core, armed_at = armed
        if self.core is not core or armed_at != self._armed_at:
            return
        world = self.world
        if world.now < self.stalled_until:
            world.at(self.stalled_until, self._wake, armed)
            return
        self._armed_at = inf
        if self._deadline > armed_at:
            if self._deadline < inf:
                self._arm()
            return
        due, self._deadline = self._deadline, inf
        behind = due - self.clock_ms()
        if 0 < behind < ROUNDING_MS:
            self.clock_offset_ms += behind  # the division above rounded down: time never runs backwards for it
        self.turn([DeadlineReached()])


ROUNDING_MS: Final = 1e-6
