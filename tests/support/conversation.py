"""One node of the protocol, and a test that plays all its peers: say something, hear what it answers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from kvnet.core.events import (
    Applied,
    Apply,
    AwaitWritable,
    Connect,
    DeadlineReached,
    Disconnect,
    DropUnapplied,
    Effect,
    Empty,
    Event,
    FramesCut,
    MessageReceived,
    OpenEpoch,
    PeerLost,
    PeerUp,
    RefuseWrites,
    Report,
    Send,
    SetDeadline,
    Started,
)
from kvnet.core.frames import Frame
from kvnet.core.messages import Advert, Beacon, BeaconId, Frames, Message, Reason, Refused, Subscribe
from kvnet.core.replica import Replica
from kvnet.core.state import NodeConfig
from kvnet.core.versions import GENESIS, Position
from kvnet.simulator.journal import Kept, SimulatedJournal
from kvnet.timers import Timers
from tests.support.frames import FrameMaker

ROOT = "root"
WALL_MS = 1_700_000_000_000.0


class Conversation:
    """A node, its disk, and all it said; time goes on only when the test says so."""

    def __init__(
        self,
        name: str = "me",
        *,
        history: Sequence[Frame] = (),
        members: Sequence[str] = (),
        root_links: Sequence[str] = (),
        journal_bytes_max: int | None = None,
        timers: Timers | None = None,
        start: bool = True,
        **flags: bool,
    ) -> None:
        self.journal = SimulatedJournal(Kept(journal_bytes_max))
        for frame in history:
            self.journal.append(frame)
        config = NodeConfig(
            name=name, root=ROOT, members=tuple(members), nearest=(), root_links=tuple(root_links), **flags
        )
        self.timers = timers or Timers()
        self.now = 1000.0
        self.unsent: dict[str, int] = {}
        self.replica = Replica(
            config, self.timers, self.journal, self, random.Random(1), lambda: WALL_MS + self.now
        )
        self.commits = True
        """Whether the disk commits at once."""
        self.uncommitted: list[Frame] = []
        self.deadline = float("inf")
        self.sent: list[tuple[str, Message]] = []
        self.effects: list[Effect] = []
        """What the last event made the node do, but for sending and deadlines."""
        self.reports: Counter[str] = Counter()
        self._dials: list[str] = []
        self._closed: list[str] = []
        if start:
            self.hear(Started())

    def unsent_bytes(self, peer: str) -> int:
        return self.unsent.get(peer, 0)

    @property
    def state(self) -> Any:
        return self.replica.state

    @property
    def is_late(self) -> bool:
        return self.state.late_since is not None

    @property
    def parents(self) -> list[str]:
        return list(self.state.parents)

    @property
    def children(self) -> list[str]:
        return list(self.state.children)

    # -- what happens to it ----------------------------------------------------------------------------------

    def hear(self, event: Event) -> None:
        self.effects = []
        events = [event]
        while events:
            for effect in self.replica.handle(events.pop(0), self.now):
                match effect:
                    case Send(peer, message):
                        self.sent.append((peer, message))
                        continue
                    case SetDeadline(at_ms):
                        self.deadline = at_ms
                        continue
                    case Apply(frames):
                        self.uncommitted.extend(frames)
                    case DropUnapplied():
                        self.uncommitted.clear()
                    case Empty():
                        self.uncommitted.clear()
                        self.journal.clear()
                        events.append(Applied(GENESIS))
                    case Report(what):
                        self.reports[what] += 1
                    case Connect(peer):
                        self._dials.append(peer)
                    case Disconnect(peer):
                        self._closed.append(peer)
                self.effects.append(effect)
            self.replica.check_invariants()
            if self.commits and self.uncommitted:
                events.append(self._commit())

    def _commit(self) -> Applied:
        for frame in self.uncommitted:
            self.journal.append(frame)
        self.uncommitted.clear()
        return Applied(self.journal.position)

    def commit(self) -> None:
        self.hear(self._commit())

    def link(self, *peers: str, rtt_ms: float = 20.0) -> None:
        for peer in peers:
            self.hear(PeerUp(peer, rtt_ms))

    def lose(self, peer: str) -> None:
        self.hear(PeerLost(peer))

    def receive(self, peer: str, *messages: Message) -> None:
        for message in messages:
            self.hear(MessageReceived(peer, message))

    def cut(self, *frames: Frame) -> None:
        """The coordinator's writer made these durable."""
        for frame in frames:
            self.journal.append(frame)
        self.hear(FramesCut(tuple(frames)))

    def wait(self, ms: float) -> None:
        """Let time pass, with every deadline in it."""
        end = self.now + ms
        while self.deadline <= end:
            self.now, self.deadline = max(self.now, self.deadline), float("inf")
            self.hear(DeadlineReached())
        self.now = end

    def adopt(self, parent: str, beacon: Beacon | None = None, *, latency_ms: float = 10.0) -> None:
        """Make a linked peer the parent of a node that is late, with a first beacon at its own head."""
        position = self.state.tip
        beacon = beacon or beacon_of(position, number=1, path=(ROOT, parent), latency_ms=latency_ms)
        self.receive(
            parent, advert_of(position, beacon=beacon.beacon, latency_ms=latency_ms, path=beacon.path[:-1])
        )
        assert parent in self.parents, "the node took no parent"
        self.receive(parent, beacon)
        assert not self.is_late
        self.sent.clear()

    # -- what it did -----------------------------------------------------------------------------------------

    def said(self, *kinds: type[Message]) -> list[tuple[str, Message]]:
        """Take out what it sent so far; only these kinds, if any are named."""
        sent, self.sent = self.sent, []
        return [(peer, message) for peer, message in sent if not kinds or isinstance(message, kinds)]

    def said_to(self, peer: str, *kinds: type[Message]) -> list[Message]:
        return [message for other, message in self.said(*kinds) if other == peer]

    def told(self, kind: type[Message]) -> list[str]:
        """Whom it sent messages of this kind, in order."""
        return [peer for peer, _ in self.said(kind)]

    def dialled(self) -> list[str]:
        """Take out whom it wanted to dial so far."""
        dials, self._dials = self._dials, []
        return dials

    def disconnected(self) -> list[str]:
        """Take out whose links it wanted closed so far."""
        closed, self._closed = self._closed, []
        return closed

    def awaited(self) -> list[str]:
        return [effect.peer for effect in self.effects if isinstance(effect, AwaitWritable)]

    def opened(self) -> int | None:
        return next((effect.epoch for effect in self.effects if isinstance(effect, OpenEpoch)), None)

    def refused(self) -> str:
        return next((effect.why for effect in self.effects if isinstance(effect, RefuseWrites)), "")


def history(frames: int, *, size: int = 10, epoch: int = 1, mark: bytes = b"") -> list[Frame]:
    """That many frames of one history; another `mark` gives another history after the first two frames."""
    maker = FrameMaker()
    maker.open_epoch()
    maker.cut()
    namespace = maker.create_namespace("n")
    maker.cut()
    continue_history(maker, frames - 2, namespace, size=size, mark=mark)
    for _ in range(epoch - 1):
        maker.open_epoch()
        maker.cut()
    return maker.frames[:frames] if epoch == 1 else maker.frames


def continue_history(maker: FrameMaker, frames: int, namespace: bytes, *, size: int, mark: bytes) -> None:
    for number in range(frames):
        maker.put(namespace, b"key-%d" % number, mark + bytes(size))
        maker.cut()


def frames_of(*frames: Frame) -> Frames:
    return Frames(tuple(frame.data for frame in frames))


def beacon_of(
    head: Position,
    *,
    number: int,
    epoch: int | None = None,
    latency_ms: float = 10.0,
    path: tuple[str, ...] = (ROOT,),
    interval_ms: int = 250,
) -> Beacon:
    id_ = BeaconId(head.epoch if epoch is None else epoch, number)
    return Beacon(id_, head.seq, WALL_MS, interval_ms, latency_ms, 0.0, path)


def advert_of(
    position: Position,
    *,
    beacon: BeaconId | tuple[int, int] = (0, 0),
    latency_ms: float = 10.0,
    path: tuple[str, ...] = (ROOT,),
    full: bool = False,
    wants_echo: bool = False,
) -> Advert:
    return Advert(position, BeaconId(*beacon), latency_ms, path, 8 * full, full, 0.0, -1.0, 0.0, wants_echo)


def refused(reason: Reason, position: Position, *, epoch: int | None = None) -> Refused:
    """A refusal by a node whose newest entry is of this epoch, the position's own by default."""
    return Refused(reason, position, position.epoch if epoch is None else epoch)


def subscribe(position: Position, *, late: bool = False) -> Subscribe:
    return Subscribe(position, late)
