"""One edge, its core on a real store: whatever peers, disk and fate do, it is the fold of one history's beginning.

Peers are played by the machine. They hold whole histories, written by real writers, some of which parted from one
another; a frame's bytes are never invented, but for the digest in one rule.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kvnet.core.events import DialFailed, LinkWritable
from kvnet.core.frames import HEADER_BYTES, Frame, read_frame
from kvnet.core.messages import (
    Advert,
    Ask,
    BeaconId,
    Frames,
    Message,
    Move,
    Reason,
    Refused,
    Subscribe,
    Unsubscribe,
)
from kvnet.core.versions import GENESIS, Position
from tests.support.conversation import ROOT, advert_of, beacon_of, frames_of, subscribe
from tests.support.fold import Author, Fold, assert_store_is, last_writes
from tests.support.stored import StoredConversation

PEER_NAMES = ("a", "b", "c", ROOT)
PEERS = st.sampled_from(PEER_NAMES)
KEYS = {"x": b"x", "y": b"y", "z": b"z", "long": b"longer than a slice" * 30}
VALUES = {"": b"", "1": b"1", "2": b"2", "large": bytes(3000)}
PICK = st.integers(0, 99)
WRITES = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(list(KEYS)), st.sampled_from(list(VALUES))),
        st.tuples(st.just("put"), st.sampled_from(list(KEYS)), st.sampled_from(list(VALUES))),
        st.tuples(st.just("delete"), st.sampled_from(list(KEYS)), st.none()),
        st.tuples(st.sampled_from(["cut", "namespace", "drop namespace"]), st.none(), st.none()),
    ),
    min_size=1,
    max_size=8,
)
HISTORIES_MAX = 4
FRAMES_MAX = 40


class ReplicaOnADisk(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp()) / "node"
        self.authors = [Author()]
        self.made = 0
        self.beacons = 0
        self.holds: dict[str, Author] = dict.fromkeys(PEER_NAMES, self.authors[0])
        self.subscribed: dict[str, Position] = {}
        """What the peers know of the node: where each subscription stands."""
        self.children: dict[str, tuple[int, bytes | None]] = {}
        """Where each peer is that subscribed: its seq, and the chain if the node has judged it."""
        self.committed = GENESIS
        self.resets = 0
        self.compared: Position | None = None
        self.sound = False

    @initialize(
        writes=WRITES,
        more=WRITES,
        parted=st.none() | PICK,
        held=PICK,
        journal_bytes_max=st.sampled_from([None, None, 1000]),
        late=st.booleans(),
    )
    def begin(
        self,
        writes: list[Any],
        more: list[Any],
        parted: int | None,
        held: int,
        journal_bytes_max: int | None,
        *,
        late: bool,
    ) -> None:
        author = self.authors[0]
        author.open_epoch(1)
        self.made += 1
        author.create_namespace(self.made)
        author.cut()
        self.write(0, writes)
        self.write(0, more)
        if parted is not None:
            self.part(0, parted, parted % 2, writes)
        self.journal_bytes_max = journal_bytes_max
        self.start()
        if held % 2:
            self.node.store.apply(author.frames[: 1 + held % len(author.frames)])
            self.node.crash()
            self.committed = self.node.store.position
            self.start()
        if not late:
            self.follow("a", 1, PEER_NAMES.index("a"))

    def start(self) -> None:
        self.node = StoredConversation(
            self.folder,
            journal_bytes_max=self.journal_bytes_max,
            members=("me", "a", "b", "c", "d"),
            root_links=("a", "b"),
        )
        assert self.node.journal.position == self.node.state.tip == self.node.state.applied
        self.subscribed.clear()
        self.resets = 0

    def pick(self, pick: int) -> Author:
        return self.authors[pick % len(self.authors)]

    def next_beacon(self, epoch: int) -> BeaconId:
        self.beacons += 1
        return BeaconId(epoch, self.beacons)

    # -- histories

    @rule(pick=PICK, writes=WRITES)
    def write(self, pick: int, writes: list[Any]) -> None:
        author = self.pick(pick)
        if len(author.frames) > FRAMES_MAX:
            return
        for what, key, value in writes:
            namespaces = list(author.writer._namespaces)
            namespace = namespaces[-1] if namespaces else b""
            match what:
                case "put" if namespace:
                    author.put(namespace, KEYS[key], VALUES[value])
                case "delete" if namespace:
                    author.delete(namespace, KEYS[key])
                case "namespace":
                    self.made += 1
                    author.create_namespace(self.made)
                case "drop namespace" if len(namespaces) > 1:
                    author.delete_namespace(namespace)
                case _:
                    author.cut()
        author.cut()

    @rule(pick=PICK)
    def open_epoch(self, pick: int) -> None:
        author = self.pick(pick)
        self.made += 1
        author.open_epoch(author.head.epoch + 1, self.made)

    @precondition(lambda self: len(self.authors) < HISTORIES_MAX)
    @rule(pick=PICK, at=PICK, higher=st.sampled_from([0, 1, 1, 2]), writes=WRITES)
    def part(self, pick: int, at: int, higher: int, writes: list[Any]) -> None:
        """A coordinator begins with what another one had once: in the same epoch, or in one of its own."""
        before = self.pick(pick)
        author = Author(before.frames[: 1 + at % len(before.frames)])
        self.made += 1
        if higher:
            author.open_epoch(author.head.epoch + higher, self.made)
        self.made += 1
        author.create_namespace(self.made)
        author.cut()
        self.authors.append(author)
        self.write(len(self.authors) - 1, writes)

    @rule(peer=PEERS, pick=PICK)
    def give(self, peer: str, pick: int) -> None:
        """This peer has another history from now on; it was emptied and refilled, with new links."""
        self.holds[peer] = self.pick(pick)
        self.node.lose(peer)
        self.subscribed.pop(peer, None)

    # -- peers

    @rule(peer=PEERS, rtt_ms=st.sampled_from([0.0, 20.0, 300.0]))
    def link(self, peer: str, rtt_ms: float) -> None:
        self.subscribed.pop(peer, None)
        self.node.link(peer, rtt_ms=rtt_ms)

    @rule(peer=PEERS)
    def lose(self, peer: str) -> None:
        self.subscribed.pop(peer, None)
        self.node.lose(peer)

    @rule(peer=PEERS)
    def fail_to_dial(self, peer: str) -> None:
        self.node.hear(DialFailed(peer))

    @rule(peer=PEERS, at=PICK, count=st.integers(0, 5))
    def follow(self, peer: str, count: int, at: int) -> None:
        """An honest peer with something newer: it is linked, tells where it is, and serves if it is asked to."""
        if not self.node.is_late:
            self.wait(700.0)
        if peer not in self.node.state.neighbours:
            self.link(peer, 20.0)
        self.advert(peer, at, fresh=True, full=False, wants_echo=False)
        self.hear_node()
        self.serve(peer, count)
        self.beacon(peer, fresh=True)

    @precondition(lambda self: len(self.authors) > 1)
    @rule(peers=st.lists(PEERS, min_size=1, max_size=3, unique=True), pick=PICK, at=PICK)
    def meet_another_history(self, peers: list[str], pick: int, at: int) -> None:
        """Peers that were elsewhere come and serve the node, or refuse it, one after the other."""
        for peer in peers:
            self.give(peer, pick)
            self.follow(peer, 2, at)

    @rule(peer=PEERS, at=PICK, fresh=st.booleans(), full=st.booleans(), wants_echo=st.booleans())
    def advert(self, peer: str, at: int, *, fresh: bool, full: bool, wants_echo: bool) -> None:
        frames = self.holds[peer].frames
        position = frames[at % len(frames) if at % 3 else -1].position
        beacon = self.next_beacon(position.epoch) if fresh else BeaconId(0, 0)
        self.node.receive(peer, advert_of(position, beacon=beacon, full=full, wants_echo=wants_echo, path=()))

    @rule(peer=PEERS, fresh=st.booleans())
    def beacon(self, peer: str, *, fresh: bool) -> None:
        """Behind the frames up to its subscription, as peers send them; repeated where it isn't fresh."""
        position = self.subscribed.get(peer)
        if position is not None and position in self.holds[peer].ends:
            self.beacons += fresh
            beacon = beacon_of(position, number=self.beacons, path=(peer,))
            self.node.receive(peer, beacon)

    @rule(peer=PEERS, pick=PICK, at=PICK, number=st.integers(0, 50))
    def any_beacon(self, peer: str, pick: int, at: int, number: int) -> None:
        frames = self.pick(pick).frames
        self.node.receive(peer, beacon_of(frames[at % len(frames)].position, number=number, path=(peer,)))

    @rule(peer=PEERS, count=st.integers(1, 5))
    def serve(self, peer: str, count: int) -> None:
        """The next frames of a subscription, or the refusal it deserves."""
        position = self.subscribed.get(peer)
        if position is None:
            return
        author = self.holds[peer]
        if position in author.ends:
            start = author.ends[position]
            frames = author.frames[start : start + count]
            if frames:
                self.subscribed[peer] = frames[-1].position
                self.node.receive(peer, frames_of(*frames))
        else:
            del self.subscribed[peer]
            mine = max((end for end in author.ends if end.seq <= position.seq), key=lambda end: end.seq)
            self.node.receive(peer, Refused(Reason.MISMATCH, mine, author.head.epoch))

    @rule(peer=PEERS, pick=PICK, first=PICK, count=st.integers(1, 8), one_by_one=st.booleans())
    def serve_anything(self, peer: str, pick: int, first: int, count: int, *, one_by_one: bool) -> None:
        """Older frames, a start in the middle, another history: whatever was sent for whichever subscription."""
        frames = self.pick(pick).frames
        first %= len(frames)
        frames = frames[first : first + count]
        self.node.receive(peer, *(map(frames_of, frames) if one_by_one else [frames_of(*frames)]))

    @rule(peer=PEERS, back=st.integers(1, 4), pick=PICK, first=PICK)
    def serve_what_fits_and_then_does_not(self, peer: str, back: int, pick: int, first: int) -> None:
        """One message of repeated frames, the next ones, and some of a history that parted."""
        tip = self.node.state.tip
        ends = next((author.ends for author in self.authors if tip in author.ends), None)
        if ends is None:
            return
        author = next(author for author in self.authors if tip in author.ends)
        frames = author.frames[max(0, ends[tip] - back) : ends[tip] + back]
        other = self.pick(pick).frames
        self.node.receive(peer, frames_of(*frames, *other[first % len(other) :][:back]))

    @precondition(lambda self: self.node.parents)
    @rule(which=PICK)
    def serve_what_fits_by_seq_alone(self, which: int) -> None:
        """From a parent, whose frames are looked at: a frame after the node's seq, and after another chain."""
        tip = self.node.state.tip
        strangers = [
            frame
            for author in self.authors
            for frame in author.frames
            if frame.first_seq == tip.seq + 1 and frame.chain_before != tip.chain
        ]
        if strangers:
            parent = self.node.parents[which % len(self.node.parents)]
            self.node.receive(parent, frames_of(strangers[which % len(strangers)]))

    @rule(peer=PEERS, pick=PICK, keep=st.booleans())
    def serve_a_wrong_digest(self, peer: str, pick: int, *, keep: bool) -> None:
        """The next frame, with a digest that its entries don't lead to: found by the store, not by the core."""
        author = self.pick(pick)
        at = author.ends.get(self.node.state.tip)
        if at is None or at == len(author.frames):
            return
        data = bytearray(author.frames[at].data)
        data[HEADER_BYTES - 1] ^= 1
        before = author.frames[at - 1 : at] if keep else []
        self.node.receive(peer, Frames((*(frame.data for frame in before), bytes(data))))

    @rule(peer=PEERS, reason=st.sampled_from(Reason), pick=PICK, at=PICK)
    def refuse(self, peer: str, reason: Reason, pick: int, at: int) -> None:
        author = self.pick(pick)
        position = author.frames[at % len(author.frames)].position
        self.subscribed.pop(peer, None)
        self.node.receive(peer, Refused(reason, position, author.head.epoch))

    @rule(peer=PEERS, pick=PICK, at=PICK, late=st.booleans())
    def be_a_child(self, peer: str, pick: int, at: int, *, late: bool) -> None:
        if peer not in self.node.state.neighbours:
            self.link(peer, 20.0)
        self.hear_node()
        frames = self.pick(pick).frames
        position = frames[at % len(frames)].position
        # One ahead of the node is served when the node comes there, and finds out itself if it is elsewhere.
        known = position.chain if position.seq <= self.node.state.tip.seq else None
        self.children[peer] = position.seq, known
        self.node.receive(peer, subscribe(position, late=late))

    @rule()
    def be_a_child_from_everywhere(self) -> None:
        """Who stands on the node's history gets the rest of it, if the journal goes so far; others get nothing."""
        node = self.node
        self.hear_node()
        self.sound = False
        tip = node.state.tip
        ours = next((author for author in self.authors if tip in author.ends), None)
        if ours is None:
            return  # it took a frame that its store is about to reject
        held = [end for end in ours.ends if end.seq <= tip.seq]
        node.link("d")
        for theirs in dict.fromkeys(end for author in self.authors for end in author.ends if end.seq <= tip.seq):
            node.said()
            node.receive("d", subscribe(theirs, late=True))
            answers = node.said_to("d", Frames, Refused)
            reasons = [answer.reason for answer in answers if isinstance(answer, Refused)]
            if theirs in held and (theirs.seq >= node.journal.horizon_seq or not reasons):
                sent = [data for answer in answers for data in getattr(answer, "frames", ())]
                rest = ours.frames[ours.ends[theirs] : ours.ends[tip]]
                assert sent == [frame.data for frame in rest], f"not what follows {theirs}"
                assert not reasons
            elif theirs in held:
                assert reasons == [Reason.HORIZON], "the memory of recent frames may go on where the journal ends"
            elif theirs.seq >= node.journal.horizon_seq:
                mine = max((end for end in held if end.seq <= theirs.seq), key=lambda end: end.seq)
                if tip == node.store.position:
                    assert answers == [Refused(Reason.MISMATCH, mine, tip.epoch)], (
                        "all who share a history name the same end"
                    )
                else:
                    assert reasons == [Reason.MISMATCH]
            else:
                assert [type(answer) for answer in answers] == [Refused]
        node.lose("d")

    @rule(
        peer=PEERS,
        message=st.sampled_from([Unsubscribe(), Move(), Ask(0, 0, BeaconId(0, 0), ladder=False), Frames(())]),
        full=st.booleans(),
    )
    def say(self, peer: str, message: Message, *, full: bool) -> None:
        self.node.unsent[peer] = full << 20
        self.node.receive(peer, message)
        self.node.hear(LinkWritable(peer))

    @rule(ms=st.sampled_from([1.0, 70.0, 300.0, 1000.0, 11_000.0, 61_000.0]))
    def wait(self, ms: float) -> None:
        self.node.wait(ms)

    # -- the disk

    @rule(commits=st.booleans())
    def disk(self, *, commits: bool) -> None:
        """It is slow from now on, or quick again."""
        self.node.commits = commits
        if commits:
            self.node.commit()

    @rule()
    def commit(self) -> None:
        self.node.commit()

    @rule(clean=st.booleans())
    def crash_and_restart(self, *, clean: bool) -> None:
        self.node.crash(clean=clean)
        self.start()
        assert self.node.journal.position == self.committed, "a restart stands where the last commit stood"

    @rule()
    def wipe_and_restart(self) -> None:
        self.node.wipe()
        self.committed = GENESIS
        self.start()

    # -- what always holds

    def hear_node(self) -> list[tuple[str, Message]]:
        """Peers hear what the node said; the last of its subscriptions counts."""
        self.node.end_turn()
        said = self.node.said()
        for peer, message in said:
            match message:
                case Subscribe(position, _):
                    self.subscribed[peer] = position
                case Unsubscribe():
                    self.subscribed.pop(peer, None)
                case Advert(position):
                    assert position in self.node.stood_at, "a promise of what wasn't committed"
                case Frames(frames):
                    for data in frames:
                        self.was_served(peer, read_frame(data))
                case Refused():
                    self.children.pop(peer, None)
        return said

    def was_served(self, peer: str, frame: Frame) -> None:
        """What a child is sent continues what it said it has."""
        seq, chain = self.children[peer]
        assert frame.first_seq == seq + 1, "a gap"
        assert chain in (None, frame.chain_before), "frames of another history than the child's"
        self.children[peer] = frame.last_seq, frame.chain_after

    @invariant()
    def it_is_the_fold_of_one_historys_beginning(self) -> None:
        self.sound = False
        node, state = self.node, self.node.state
        self.hear_node()
        node.replica.check_invariants()
        position = node.store.position
        if not node.journal.emptying:
            assert state.tip.seq >= state.applied.seq
            assert state.tip.seq >= position.seq
            assert state.applied == position, "the core knows of every commit"
        ours = [author for author in self.authors if position in author.ends]
        assert ours, f"no history has {position}"
        assert node.journal.emptied == node.reports["forked"] + node.diverged, "emptied without a reason"
        if node.journal.resets == self.resets:
            assert position.seq >= self.committed.seq, "a position went back"
            assert any(self.committed in author.ends for author in ours), "a position left its history"
        self.committed, self.resets = position, node.journal.resets
        if self.compared != position:
            self.compared = position
            self.compare(ours[0])
        self.sound = True

    def compare(self, author: Author) -> None:
        frames = author.frames[: author.ends[self.node.store.position]]
        assert_store_is(self.node.store, Fold(frames))
        for place, value in last_writes(reversed(frames)).items():
            stored = self.node.store.get(*place)
            assert (None if stored is None else stored.value) == value, f"the last write of {place} didn't win"

    # -- and what comes of it

    def teardown(self) -> None:
        try:
            if self.sound:
                self.come_to_rest()
        finally:
            self.node.crash()
        shutil.rmtree(self.folder.parent)

    def come_to_rest(self) -> None:
        """Once there is one history, served by two honest peers, the node comes to its end from wherever it is."""
        winner = self.authors[-1]
        self.made += 1
        winner.open_epoch(max(author.head.epoch for author in self.authors) + 1, self.made)
        self.disk(commits=True)
        event(f"histories: {len(self.authors)}")
        event(f"emptied: {min(2, self.node.journal.emptied)}")
        for peer in ("a", "b"):
            self.give(peer, -1)
            self.node.link(peer)
            self.node.unsent.clear()
        for peer in ("c", ROOT):
            self.lose(peer)
        for _ in range(900):
            for peer, message in self.hear_node():
                if isinstance(message, Ask) and peer in ("a", "b"):
                    self.advert(peer, 0, fresh=True, full=False, wants_echo=False)
            for peer in ("a", "b"):
                self.serve(peer, 3)
                self.beacon(peer, fresh=True)
            self.it_is_the_fold_of_one_historys_beginning()
            if self.node.store.position == winner.head:
                break
            self.wait(100.0)
        assert self.node.store.position == winner.head, "it never came to the network's history"
        assert self.node.store.recompute().good
        self.be_a_child_from_everywhere()


TestReplicaOnADisk = ReplicaOnADisk.TestCase
TestReplicaOnADisk.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
