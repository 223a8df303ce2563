"""Subscriptions: frames in from our parents, chain-checked; frames out to our children, cursor by cursor.

A child is a cursor into the journal, not a queue: it costs no memory, slows nobody and has no gaps. The newest
frames are kept in memory as well, so that forwarding doesn't wait for the commit.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Final, NamedTuple

from kvnet.core.events import UNSENT_BYTES_MAX, Apply, AwaitWritable, DropUnapplied, Empty, Send
from kvnet.core.frames import Frame, read_span
from kvnet.core.messages import Beacon, Frames, Move, Reason, Refused, Subscribe, Unsubscribe
from kvnet.core.state import NEVER, Child, NodeState
from kvnet.core.versions import GENESIS, Position
from kvnet.errors import BeyondHorizon, ProtocolError

MESSAGE_FRAME_BYTES: Final = 64 * 1024
RECENT_BYTES_MAX: Final = 512 * 1024
MOVE_AGAIN_MS: Final = 5000


class _Run(NamedTuple):
    """Frames after a cursor, as a message."""

    after_seq: int
    tip: Position
    last_seq: int
    message: Frames
    size: int


def _nothing() -> None:
    """What happens when nobody wants to know."""


class Stream:
    """Our children's cursors and our own tip."""

    def __init__(self, state: NodeState, read_frame: Callable[[bytes], Frame]) -> None:
        self.state = state
        self._read_frame = read_frame
        self.frames_received = 0
        self.frames_duplicate = 0
        self.frame_bytes_received = 0
        self.frame_bytes_sent = 0
        self._recent: list[Frame] = []
        self._recent_first: list[int] = []
        self._recent_bytes = 0
        self._run = _Run(-1, GENESIS, 0, Frames(()), 0)
        """What a child was last given; most others are given the same."""
        self._beacon: Beacon | None = None
        """Likewise."""
        self._disputes: dict[str, tuple[int, bytes]] = {}
        """By peer whose history differs: a seq, and its chain there."""
        self.on_start_over: Callable[[], None] = _nothing
        """Called when our replica is thrown away."""
        self.on_drop: Callable[[], None] = _nothing
        """Called when frames that were to be applied are not any more."""

    @property
    def recent_bytes(self) -> int:
        return self._recent_bytes

    @property
    def dispute_count(self) -> int:
        return len(self._disputes)

    # -- in --------------------------------------------------------------------------------------------------

    def take(self, peer: str, message: Frames) -> bool:
        """Take what continues our history from a parent's message; return whether the tip moved.

        Repeated frames are dropped; a frame of another history bars the peer.
        """
        state = self.state
        tip = state.tip
        taken: list[Frame] = []
        differs: tuple[int, int, bytes] | None = None
        for data in message.frames:
            self.frames_received += 1
            self.frame_bytes_received += len(data)
            try:
                first, last = read_span(data)
                if last <= tip.seq:
                    self.frames_duplicate += 1
                    continue
                if last > state.frames_wanted_to:
                    break
                if first > tip.seq + 1:
                    break  # a gap: sent for a subscription before this one, for another tip
                frame = self._read_frame(data)
            except ProtocolError as error:
                state.report("malformed", f"{peer}: {error}")
                state.barred[peer] = state.now + state.timers.peer_bar_ms
                break
            if first != tip.seq + 1 or frame.chain_before != tip.chain or frame.epoch < tip.epoch:
                differs = frame.epoch, first - 1, frame.chain_before
                break
            taken.append(frame)
            tip = frame.position
        if taken:
            state.tip = tip
            self._remember(taken)
            self.pump_all()
            state.out.append(Apply(tuple(taken)))
        if differs is not None:
            self.dispute(peer, *differs)  # last: it may throw away what has just been taken
        return bool(taken)

    def add_own(self, frames: tuple[Frame, ...]) -> None:
        """Take frames that our own writer cut; they are durable and applied already, and not handed out yet."""
        state = self.state
        state.tip = state.applied = frames[-1].position
        state.head_seq = state.tip.seq
        self._remember(list(frames))

    def dispute(self, peer: str, epoch: int, seq: int, chain: bytes) -> None:
        """Note that a peer's history, now in this epoch, has this chain after this seq, where ours has another.

        We are forked if its epoch is higher than ours, or if two peers say the same.
        """
        state = self.state
        neighbour = state.neighbours.get(peer)
        if neighbour is not None and neighbour.advert is not None:
            epoch = max(epoch, neighbour.advert.position.epoch)
        state.barred[peer] = state.now + state.timers.peer_bar_ms
        state.report(
            "mismatch", f"{peer} has {seq}:{chain[:4].hex()} in epoch {epoch} where we are at {state.tip}"
        )
        if state.is_root or epoch < state.tip.epoch:
            return  # a lower epoch's history is the abandoned one, however many have it
        agreeing = [other for other, theirs in self._disputes.items() if theirs == (seq, chain) and other != peer]
        self._disputes[peer] = seq, chain
        if epoch > state.tip.epoch:
            self.overrule(peer, epoch)
        elif agreeing:
            state.report("forked", f"{peer} and {agreeing} against us at {state.tip}")
            self._give_way()

    def overrule(self, peer: str, epoch: int) -> None:
        """Give way to a history of a higher epoch, which isn't ours going on."""
        state = self.state
        state.report("forked", f"{peer} is in epoch {epoch} and we are left behind at {state.tip}")
        state.overruled_by = epoch
        self._give_way()

    def _give_way(self) -> None:
        """Leave a history that isn't the network's: what isn't applied first, and then what is.

        Where frames wait for a chunk that is lost, all of the network has them, and what it shows is right.
        """
        state = self.state
        is_stuck = state.lacks_chunks and state.applied not in {state.tip, GENESIS}
        if not is_stuck or state.journal.bootstrap is not None:
            self.start_over()
            return
        self._stand_alone()
        self.drop_unapplied()
        state.began_at, state.began_at_ms = state.applied, state.now

    def drop_unapplied(self) -> None:
        """Stand where our records stand: the frames beyond that are forgotten."""
        state = self.state
        state.report("dropped", f"frames after {state.applied}, up to {state.tip}, that weren't applied")
        self._forget_recent()
        state.tip = state.applied
        state.out.append(DropUnapplied())
        self.on_drop()

    def start_over(self) -> None:
        """Throw our replica away: the network's history is not ours."""
        state = self.state
        self._stand_alone()
        self._forget_recent()
        state.tip = state.applied = state.began_at = GENESIS
        state.began_at_ms = state.now
        state.out.append(Empty())
        self.on_start_over()

    def _stand_alone(self) -> None:
        """Nobody serves us or is served from now on, and nobody is left alone for what was before."""
        state = self.state
        self._disputes.clear()
        state.barred.clear()
        for neighbour in state.neighbours.values():
            neighbour.useless_until = NEVER
        for parent in list(state.parents):
            self._leave(parent)
        for child in list(state.children):
            self.drop_child(child, Reason.BEHIND)

    def jump_to(self, position: Position) -> None:
        """Follow another journal from its position on; whoever we serve from before is refused when it shows."""
        state = self.state
        for parent in list(state.parents):
            self._leave(parent)
        self._forget_recent()
        state.tip = state.applied = position
        self.on_drop()

    def _forget_recent(self) -> None:
        self._recent.clear()
        self._recent_first.clear()
        self._recent_bytes = 0

    def _leave(self, parent: str) -> None:
        del self.state.parents[parent]
        self.state.send(parent, Unsubscribe())

    def _remember(self, frames: list[Frame]) -> None:
        for frame in frames:
            self._recent.append(frame)
            self._recent_first.append(frame.first_seq)
            self._recent_bytes += len(frame.data)
        if self._recent_bytes > RECENT_BYTES_MAX:
            # Drop half at once: the cost is spread over many frames. What isn't committed yet always stays.
            keep, kept = len(self._recent), 0
            while keep > 0 and (
                kept < RECENT_BYTES_MAX // 2 or self._recent[keep - 1].last_seq > self.state.applied.seq
            ):
                keep -= 1
                kept += len(self._recent[keep].data)
            del self._recent[:keep], self._recent_first[:keep]
            self._recent_bytes = kept

    # -- out -------------------------------------------------------------------------------------------------

    def on_subscribe(self, peer: str, message: Subscribe) -> Reason | None:
        """Serve this peer from its position on; return why not, if not."""
        state = self.state
        theirs, tip = message.position, state.tip
        known = peer in state.children
        reason: Reason | None = None
        if peer in state.parents or peer not in state.neighbours:
            reason = Reason.BEHIND
        elif not known and self._has_no_room(late=message.late):
            reason = Reason.FULL
        elif theirs.seq > tip.seq:
            if theirs.epoch < tip.epoch:
                reason = Reason.MISMATCH
        elif theirs != tip and not self._holds(theirs):
            reason = Reason.HORIZON if theirs.seq < state.journal.horizon_seq else Reason.MISMATCH
        if reason is not None:
            self._refuse(peer, reason, theirs)
            return reason
        state.children[peer] = Child(peer, theirs.seq)
        self.pump(peer)
        if not known and len(state.children) > state.timers.children_max:
            self.ask_to_move(1, apart_from=peer)
        return None

    def _has_no_room(self, *, late: bool) -> bool:
        state = self.state
        if state.is_root:
            return len(state.children) >= state.timers.coordinator_children_max
        return state.is_full() and not late

    def _holds(self, theirs: Position) -> bool:
        index = bisect_left(self._recent_first, theirs.seq + 1)
        if index < len(self._recent) and self._recent_first[index] == theirs.seq + 1:
            return self._recent[index].chain_before == theirs.chain
        return self.state.journal.holds(theirs)

    def _refuse(self, peer: str, reason: Reason, theirs: Position) -> None:
        """Refuse; on another history tell our last frame end up to theirs, the same at all who share ours."""
        state = self.state
        state.children.pop(peer, None)
        mine = state.tip
        if reason is Reason.MISMATCH and theirs.seq < mine.seq:
            mine = state.journal.end_before(theirs.seq) or mine
        state.send(peer, Refused(reason, mine, state.tip.epoch))

    def drop_child(self, peer: str, reason: Reason) -> None:
        if self.state.children.pop(peer, None) is not None:
            self.state.send(peer, Refused(reason, self.state.tip, self.state.tip.epoch))

    def ask_to_move(self, count: int, apart_from: str = "") -> None:
        """Ask this many children to find another parent, none twice within 5 s."""
        state = self.state
        able = [
            child
            for child in state.children.values()
            if child.name != apart_from and state.now - child.moved_at >= MOVE_AGAIN_MS
        ]
        for child in state.rng.sample(able, min(count, len(able))):
            child.moved_at = state.now
            state.send(child.name, Move())

    def pump_all(self) -> None:
        """Pump every child; those with the same cursor, as a rule all, are given the same messages."""
        for peer in list(self.state.children):
            self.pump(peer)

    def on_writable(self, peer: str) -> None:
        child = self.state.children.get(peer)
        if child is not None:
            child.waiting = False
            self.pump(peer)

    def pump(self, peer: str) -> None:
        """Hand the child's link what it takes: frames from its cursor on, then the beacon that follows them."""
        state = self.state
        child = state.children[peer]
        if child.waiting:
            return
        if child.seq < state.tip.seq:
            room = UNSENT_BYTES_MAX - state.links.unsent_bytes(peer)
            while child.seq < state.tip.seq:
                if room <= 0:
                    child.waiting = True
                    state.out.append(AwaitWritable(peer))
                    return
                run = self._run_after(child)
                if run is None:
                    return
                room -= run.size
                self.frame_bytes_sent += run.size
                child.seq = run.last_seq
                state.out.append(Send(peer, run.message))
        if state.beacon > child.beacon and child.seq >= state.head_seq:
            child.beacon = state.beacon
            state.out.append(Send(peer, self._own_beacon()))

    def _run_after(self, child: Child) -> _Run | None:
        """The child's next frames, or None after it was refused for asking what we can't give."""
        run = self._run
        if run.after_seq == child.seq and run.tip == self.state.tip:
            return run
        frames = self._frames_after(child)
        if not frames:
            return None
        data = tuple([frame.data for frame in frames])
        self._run = _Run(child.seq, self.state.tip, frames[-1].last_seq, Frames(data), sum(map(len, data)))
        return self._run

    def _frames_after(self, child: Child) -> list[Frame]:
        frames: list[Frame] = []
        index = bisect_left(self._recent_first, child.seq + 1)
        if index < len(self._recent) and (index > 0 or self._recent_first[0] == child.seq + 1):
            size = 0
            for frame in self._recent[index:]:
                size += len(frame.data)
                if frames and size > MESSAGE_FRAME_BYTES:
                    break
                frames.append(frame)
        else:
            try:
                frames = list(self.state.journal.frames_after(child.seq, MESSAGE_FRAME_BYTES))
            except BeyondHorizon:
                self.drop_child(child.name, Reason.HORIZON)
                return []
        if frames and frames[0].first_seq != child.seq + 1:
            self._refuse(child.name, Reason.MISMATCH, Position(self.state.tip.epoch, child.seq, b""))
            return []
        return frames

    def _own_beacon(self) -> Beacon:
        state = self.state
        held_ms = state.beacon_held_ms + state.now - state.beacon_at
        said = self._beacon
        if (
            said is not None
            and said.beacon == state.beacon
            and said.held_ms == held_ms
            and said.latency_ms == state.latency_ms
        ):
            return said
        self._beacon = Beacon(
            state.beacon,
            state.head_seq,
            state.beacon_time_ms,
            state.beacon_interval_ms,
            state.latency_ms,
            held_ms,
            (*state.path, state.config.name),
            state.wants_receipts,
        )
        return self._beacon
