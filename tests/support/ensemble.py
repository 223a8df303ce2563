"""A few real cores that talk to each other, and a transcript of what they said.

Links are ordered and take no time: whatever is said is heard in the order in which it was said, before the clock
goes on. A link's round trip is what its handshake measured. Chance is taken out (`Steady`), so that waits are what
the documents say and a transcript can be written down.

    net = Ensemble({"root": ["a"], "a": ["b"]})  # who dials whom
    net.write()
    assert net.transcript(Frames) == ["root -> a Frames(1-2)", "a -> b Frames(1-2)"]
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

from kvnet.core.entries import Delete, Entry, Epoch
from kvnet.core.events import (
    AcksCame,
    Applied,
    Apply,
    AwaitWritable,
    Connect,
    DeadlineReached,
    DialFailed,
    Disconnect,
    Effect,
    Empty,
    Event,
    FramesCut,
    LinkWritable,
    MessageReceived,
    OpenEpoch,
    PeerLost,
    PeerUp,
    ReceiptsWanted,
    RefuseWrites,
    Report,
    Send,
    SetDeadline,
    Started,
)
from kvnet.core.frames import Frame, cut_frame, read_frame
from kvnet.core.messages import Ack, Acks, Advert, Ask, Beacon, BeaconId, Frames, Message, Refused, Subscribe
from kvnet.core.replica import Replica
from kvnet.core.state import NodeConfig
from kvnet.core.versions import Version
from kvnet.simulator.journal import SimulatedJournal
from kvnet.timers import Timers

ROOT = "root"
RTT_MS = 20.0
WALL_MS = 1_700_000_000_000.0


class Steady(random.Random):
    """No chance at all: the middle of each range, the first of each sample."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2

    def sample(self, population: Any, k: int, **_: Any) -> list[Any]:
        return list(population)[:k]


class Member:
    """One node: its core while it runs, its journal for ever."""

    def __init__(self, journal: SimulatedJournal) -> None:
        self.journal = journal
        self.core: Replica | None = None
        self.deadline = float("inf")

    def unsent_bytes(self, peer: str) -> int:
        return 0


class Ensemble:
    """Nodes by name, one of them `root`; it forms at once and goes on only when the test says so."""

    def __init__(
        self,
        dials: Mapping[str, Sequence[str]],
        *,
        rtt_ms: Mapping[str, float] | None = None,
        disks: Mapping[str, Sequence[Frame]] | None = None,
        start: bool = True,
        **timers: int,
    ) -> None:
        """`dials`: who wants links to whom. `rtt_ms`: the round trips of links that have their own, as in
        `{"a b": 200}`. `disks`: what is on the disks that aren't empty.
        """
        names = dict.fromkeys(chain([ROOT], dials, *dials.values()))
        self.dials = {name: tuple(dials.get(name, ())) for name in names}
        self.rtt_ms = {frozenset(pair.split()): rtt for pair, rtt in (rtt_ms or {}).items()}
        self.timers = Timers(random_links=0, **timers)
        self.now = 0.0
        self.members = {name: Member(SimulatedJournal()) for name in names}
        for name, frames in (disks or {}).items():
            for frame in frames:
                self.members[name].journal.append(frame)
        self.links: dict[frozenset[str], tuple[str, str]] = {}
        """The two ends of each, by pair, in the order in which they came up."""
        self.silent: set[str] = set()
        self.apart: set[frozenset[str]] = set()
        """Pairs that can't reach each other."""
        self.held: dict[tuple[str, str], list[Message]] = {}
        """What waits on its way, by sender and receiver."""
        self.heard: dict[str, str] = {}
        """The newest that the root has heard of each member."""
        self._under_way: deque[Callable[[], None]] = deque()
        self._lines: list[tuple[float, type, str]] = []
        if start:
            self.start(*names)
            self.wait(1000)
            self.transcript()

    # -- what happens ----------------------------------------------------------------------------------------

    def start(self, *names: str, **flags: bool) -> None:
        """Start these nodes, on the disks they have; the flags are the coordinator's."""
        for name in names:
            member = self.members[name]
            assert member.core is None, f"{name} runs already"
            config = NodeConfig(
                name=name,
                root=ROOT,
                members=tuple(other for other in self.members if other != ROOT),
                nearest=() if name == ROOT else self.dials[name],
                root_links=self.dials[ROOT],
                **(flags if name == ROOT else {}),
            )
            self.silent.discard(name)
            member.core = Replica(
                config, self.timers, member.journal, member, Steady(), lambda: WALL_MS + self.now
            )
        for name in names:
            self._feed(name, Started())
        self._deliver()

    def stop(self, *names: str) -> None:
        """End these processes: their connections close."""
        for name in names:
            self.members[name].core = None
            for ends in [ends for ends in self.links.values() if name in ends]:
                self._unlink(*ends)
        self._deliver()

    def silence(self, *names: str) -> None:
        """Let these fall silent: their connections stay open, and nothing comes of them."""
        self.silent.update(names)

    def part(self, a: str, b: str) -> None:
        """End the link of these two, for good."""
        self.apart.add(frozenset((a, b)))
        self._unlink(a, b)
        self._deliver()

    def link(self, a: str, b: str) -> None:
        self.apart.discard(frozenset((a, b)))
        self._link(a, b)
        self._deliver()

    def hold(self, sender: str, receiver: str) -> None:
        """Keep what one says to the other on its way, until `release`."""
        self.held[sender, receiver] = []

    def release(self, sender: str, receiver: str) -> None:
        for message in self.held.pop((sender, receiver)):
            self._under_way.append(partial(self._hear, sender, receiver, message))
        self._deliver()

    def lose(self, sender: str, receiver: str) -> None:
        """What was held is lost; what follows isn't held."""
        del self.held[sender, receiver]

    def say(self, sender: str, receiver: str, message: Message) -> None:
        """Put words in somebody's mouth."""
        self._send(sender, receiver, message)
        self._deliver()

    def write(self, count: int = 1) -> None:
        """The coordinator makes that many frames of one entry each durable."""
        for _ in range(count):
            self._cut(self.journal(ROOT).position.epoch, Delete(bytes(16), b"key"))
            self._deliver()

    def want_receipts(self, ms: float) -> None:
        """Somebody waits, for so long at most, until members have a write."""
        self._feed(ROOT, ReceiptsWanted(self.now + ms))
        self._deliver()

    def wait(self, ms: float) -> None:
        """Let time pass, with all that happens in it."""
        end = self.now + ms
        while True:
            name, member = min(self.members.items(), key=lambda item: item[1].deadline)
            if member.deadline > end:
                break
            self.now, member.deadline = max(self.now, member.deadline), float("inf")
            self._feed(name, DeadlineReached())
            self._deliver()
        self.now = end

    # -- what is ---------------------------------------------------------------------------------------------

    def core(self, name: str) -> Replica:
        core = self.members[name].core
        assert core is not None, f"{name} doesn't run"
        return core

    def journal(self, name: str) -> SimulatedJournal:
        return self.members[name].journal

    def parents(self, name: str) -> list[str]:
        return list(self.core(name).state.parents)

    def tree(self) -> dict[str, list[str]]:
        """Return the parents of every edge that runs and isn't silent."""
        return {
            name: self.parents(name)
            for name, member in self.members.items()
            if name != ROOT and member.core is not None and name not in self.silent
        }

    def positions(self) -> dict[str, str]:
        return {name: str(member.journal.position.version) for name, member in self.members.items()}

    def agreed(self) -> str:
        """Return the position that all running nodes share: one history, one end."""
        found = {member.journal.position for member in self.members.values() if member.core is not None}
        assert len(found) == 1, self.positions()
        return str(found.pop().version)

    def transcript(self, *kinds: type, of: str = "", since: float | None = None) -> list[str]:
        """Take out what was said since the last time, and forget the rest.

        Only messages and effects of these `kinds`, and lines in which the node `of` has a part, if any are named;
        with the milliseconds since `since`, if that is given.
        """
        lines, self._lines = self._lines, []
        return [
            line if since is None else f"{now - since:5.0f}  {line}"
            for now, kind, line in lines
            if (not kinds or kind in kinds) and (not of or of in line.split())
        ]

    # -- how it happens --------------------------------------------------------------------------------------

    def _note(self, name: str, kind: type, line: str) -> None:
        if name not in self.silent:
            self._lines.append((self.now, kind, f"{name} {line}"))

    def _deliver(self) -> None:
        while self._under_way:
            self._under_way.popleft()()

    def _hear(self, sender: str, receiver: str, message: Message) -> None:
        if frozenset((sender, receiver)) in self.links and not {sender, receiver} & self.silent:
            if isinstance(message, Advert):
                message = message._replace(echo_ms=-1.0)  # what it echoes took no time
            self._feed(receiver, MessageReceived(sender, message))

    def _send(self, sender: str, receiver: str, message: Message) -> None:
        self._note(sender, type(message), f"-> {receiver} {words(message)}")
        if (sender, receiver) in self.held:
            self.held[sender, receiver].append(message)
        else:
            self._under_way.append(partial(self._hear, sender, receiver, message))

    def _link(self, a: str, b: str) -> None:
        pair = frozenset((a, b))
        if pair not in self.links:
            self.links[pair] = (a, b)
            for one, other in ((a, b), (b, a)):
                self._feed(one, PeerUp(other, self.rtt_ms.get(pair, RTT_MS)))

    def _unlink(self, a: str, b: str) -> None:
        if self.links.pop(frozenset((a, b)), None) is not None:
            for one, other in ((a, b), (b, a)):
                self._feed(one, PeerLost(other))

    def _dial(self, name: str, peer: str) -> None:
        pair = frozenset((name, peer))
        if pair in self.links:
            return
        if pair in self.apart or pair & self.silent or self.members[peer].core is None:
            self._feed(name, DialFailed(peer))
        else:
            self._link(name, peer)

    def _feed(self, name: str, event: Event) -> None:
        core = self.members[name].core
        if core is not None:
            effects = core.handle(event, self.now)
            core.check_invariants()
            for effect in effects:
                self._carry_out(name, effect)

    def _carry_out(self, name: str, effect: Effect) -> None:
        member = self.members[name]
        match effect:
            case Send(peer, message):
                self._send(name, peer, message)
            case SetDeadline(at_ms):
                member.deadline = at_ms
            case Apply(frames):
                for frame in frames:
                    member.journal.append(frame)
                self._feed(name, Applied(member.journal.position))
            case Empty():
                self._note(name, Empty, "throws its replica away")
                member.journal.clear()
                self._feed(name, Applied(member.journal.position))
            case Connect(peer):
                self._note(name, Connect, f"dials {peer}")
                self._under_way.append(partial(self._dial, name, peer))
            case Disconnect(peer, why):
                self._note(name, Disconnect, f"closes its link to {peer}: {why}")
                self._unlink(name, peer)
            case AwaitWritable(peer):
                self._feed(name, LinkWritable(peer))
            case OpenEpoch(epoch):
                self._note(name, OpenEpoch, f"opens epoch {epoch}")
                self._cut(epoch, Epoch(epoch, b"%016d" % self.now))
            case RefuseWrites(why):
                self._note(name, RefuseWrites, f"refuses to write: {why}")
            case AcksCame(acks):
                self._note(name, AcksCame, f"hears {_told(acks)}")
                self.heard |= {ack.member: str(ack.version) for ack in acks}
            case Report(what, detail):
                self._note(name, Report, f"{what}: {detail}" if what == "late" else what)

    def _cut(self, epoch: int, *entries: Entry) -> None:
        frame = next_frame(self.journal(ROOT), epoch, entries)
        self.journal(ROOT).append(frame)
        self._feed(ROOT, FramesCut((frame,)))


def next_frame(journal: SimulatedJournal, epoch: int, entries: Iterable[Entry]) -> Frame:
    here = journal.position
    return cut_frame(
        epoch=epoch,
        first_seq=here.seq + 1,
        stamp=0,
        chain_before=here.chain,
        digest_after=bytes(16),
        entries=list(entries),
    )


def history(frames: int, *, mark: bytes = b"key", epochs: int = 1) -> list[Frame]:
    """That many frames of epoch 1, of one entry each; another mark gives another history after the first.

    Each further epoch adds the frame that opens it.
    """
    journal = SimulatedJournal()
    for number in range(frames):
        entry = Delete(bytes(16), mark) if number else Epoch(1, bytes(16))
        journal.append(next_frame(journal, 1, [entry]))
    for epoch in range(2, epochs + 1):
        journal.append(next_frame(journal, epoch, [Epoch(epoch, bytes(16))]))
    return journal.frames


def words(message: Message) -> str:
    """A message in a few words, without what differs from run to run."""
    match message:
        case Frames(frames):
            first, last = read_frame(frames[0]).position.version, read_frame(frames[-1]).position.version
            return f"Frames({first})" if first == last else f"Frames({first}..{last})"
        case Beacon(beacon, head):
            return f"Beacon({_id(beacon)}, head {head})"
        case Advert():
            return f"Advert({message.position.version}, beacon {_id(message.beacon)})"
        case Ask(epoch, seq, beacon, ladder):
            return f"{'Ladder' * ladder}Ask({Version(epoch, seq)}, beacon {_id(beacon)})"
        case Subscribe(position, late):
            return f"Subscribe({position.version}{', late' * late})"
        case Acks(acks):
            return f"Acks({_told(acks)})"
        case Refused(reason, position, epoch):
            return f"Refused({reason.name}, {position.version}{f' of {epoch}' * (epoch != position.epoch)})"
        case _:
            return type(message).__name__


def _told(acks: Sequence[Ack]) -> str:
    return ", ".join(f"{ack.member} {ack.version}" for ack in acks)


def _id(beacon: BeaconId) -> str:
    return f"{beacon.epoch}.{beacon.number}"
