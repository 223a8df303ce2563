"""One node's protocol: events in, effects out. Routing only; the rules stand in the parts it is made of."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import inf
from typing import Any, Final, assert_never

from kvnet.core.bootstrap import Bootstrap
from kvnet.core.donor import Donor
from kvnet.core.events import (
    Applied,
    BootstrapFailed,
    Bootstrapped,
    BulkLost,
    BulkReceived,
    ChunksLacking,
    ChunksReady,
    ChunkStored,
    DeadlineReached,
    DialFailed,
    Diverged,
    Effect,
    Event,
    FramesCut,
    JournalPort,
    LinkPort,
    LinkWritable,
    MessageReceived,
    PageSent,
    PageStored,
    PageUnusable,
    PeerLost,
    PeerUp,
    ReceiptsWanted,
    SetDeadline,
    Started,
)
from kvnet.core.fetching import Fetching
from kvnet.core.frames import Frame, read_frame
from kvnet.core.lateness import Lateness
from kvnet.core.messages import (
    Acks,
    Advert,
    Ask,
    Beacon,
    BulkMessage,
    Chunk,
    ChunkMissing,
    ChunksWanted,
    Frames,
    Holds,
    Message,
    Move,
    Offer,
    Page,
    PagesCredit,
    PagesRefused,
    PagesWanted,
    Reason,
    Refused,
    Subscribe,
    Unsubscribe,
)
from kvnet.core.offers import Offers
from kvnet.core.overlay import Overlay
from kvnet.core.receipts import Receipts
from kvnet.core.root import Phase, Root
from kvnet.core.state import Neighbour, NodeConfig, NodeState
from kvnet.core.stream import Stream
from kvnet.core.tree import PARENTS_MAX, Tree
from kvnet.core.versions import GENESIS, Position
from kvnet.timers import Timers

SEND_AWAY_AGAIN_MS: Final = 1000.0


class Replica:
    """One node's protocol state; owns no socket, clock, task or file.

    State changes only in `handle`; the caller supplies the time and carries out the effects in order.
    """

    def __init__(
        self,
        config: NodeConfig,
        timers: Timers,
        journal: JournalPort,
        links: LinkPort,
        rng: random.Random,
        wall_ms: Callable[[], float],
        *,
        read_frame: Callable[[bytes], Frame] = read_frame,
    ) -> None:
        """`wall_ms` tells the milliseconds since 1970; only the coordinator's beacons speak of it.

        `read_frame` may be one that remembers what it has read, where many nodes live in one process.
        """
        self.state = NodeState(config, timers, journal, links, rng)
        self.stream = Stream(self.state, read_frame)
        self.tree = Tree(self.state, self.stream)
        self.overlay = Overlay(self.state)
        self.lateness = Lateness(self.state, self.tree, self.overlay)
        self.fetching = Fetching(self.state)
        self.offers = Offers(self.state, self.fetching)
        self.bootstrap = Bootstrap(self.state, self.stream, self.tree)
        self.donor = Donor(self.state)
        self.receipts = Receipts(self.state)
        self.root = Root(self.state, self.tree, self.stream, self.bootstrap, self.fetching, wall_ms)
        self.stream.on_start_over = self._on_start_over
        self.stream.on_drop = self.offers.forget_needs
        self._deadline = inf

    @property
    def name(self) -> str:
        return self.state.config.name

    def handle(self, event: Event, now_ms: float) -> list[Effect]:
        """Return what must be done now that this happened, in order."""
        state = self.state
        state.now = now_ms
        out: list[Effect] = []
        state.out = out
        # Nearly all that happens is one of these two, and a match takes its time.
        if type(event) is MessageReceived:
            self._on_message(event.peer, event.message)
        elif type(event) is Applied:
            self._on_applied(event.position)
        else:
            self._on_other(event)
        deadline = state.next_deadline()
        if deadline != self._deadline:
            self._deadline = deadline
            if deadline < inf:
                out.append(SetDeadline(deadline))
        return out

    def _on_applied(self, position: Position) -> None:
        state = self.state
        if self.bootstrap.start_seq <= position.seq <= state.tip.seq:
            state.applied = position
        if not position.seq:
            self.offers.start_over()
        self.receipts.on_served()
        self.bootstrap.on_applied()
        self._answer_asks()
        if state.is_root:
            self.root.on_progress()

    def _on_other(self, event: Event) -> None:
        state = self.state
        match event:
            case DeadlineReached():
                self._on_deadline()
            case LinkWritable(peer):
                self.stream.on_writable(peer)
            case FramesCut(frames):
                self.stream.add_own(frames)
                self.root.on_frames_cut()
                self._answer_asks()
            case PeerUp(peer, rtt_ms):
                if peer in state.neighbours:
                    self._on_lost(peer)
                self.lateness.on_link(self.overlay.on_up(peer, rtt_ms))
            case PeerLost(peer):
                self._on_lost(peer)
            case DialFailed(peer):
                self.overlay.on_dial_failed(peer)
            case Started():
                self._start()
            case Diverged(why):
                self._on_diverged(why)
            case BulkReceived(peer, message):
                self._on_bulk(peer, message)
            case BulkLost(peer):
                self.fetching.on_bulk_lost(peer)
                self.donor.forget(peer)
                self.bootstrap.on_bulk_lost(peer)
            case PageSent(peer, until):
                self.donor.on_sent(peer, until)
            case PageStored(until):
                self.bootstrap.on_stored(until)
            case PageUnusable(why):
                self.bootstrap.on_unusable(why)
            case Bootstrapped(position):
                self._on_bootstrapped(position)
            case BootstrapFailed(why):
                state.report("diverged", f"a successor was made in vain: {why}")
                self.bootstrap.fail(why)
            case ChunkStored(hash_, ok):
                self.offers.on_stored(hash_, ok=ok)
            case ChunksLacking(hashes):
                self.fetching.on_lacking(hashes)
            case ChunksReady(id_, chunks):
                self.offers.begin(id_, chunks)
            case ReceiptsWanted(until_ms):
                self.root.want_receipts(until_ms)
            case MessageReceived() | Applied():
                raise AssertionError("handled before")
            case _:
                assert_never(event)

    def _start(self) -> None:
        self.overlay.start()
        if not self.state.tip.seq:
            self.state.began_at_ms = self.state.now
        self.bootstrap.resume()
        if self.state.is_root:
            self.root.start()
        else:
            self.lateness.become_late("just started")

    def _on_diverged(self, why: str) -> None:
        """Start over from nothing; the coordinator, from which all others take their truth, stops instead."""
        if self.state.is_root:
            self.root.stop(f"the replica differs from its own journal ({why}): restore it")
            return
        self.stream.start_over()
        self.lateness.become_late("diverged")

    def _on_start_over(self) -> None:
        """Our replica is thrown away, and a successor with it."""
        self.bootstrap.forget()
        self.donor.stop()

    def _on_bootstrapped(self, position: Position) -> None:
        self.bootstrap.on_bootstrapped(position)
        self.offers.pass_by()
        self.receipts.on_served()
        self.overlay.advert_all()
        self._answer_asks()
        if self.state.is_root:
            self.root.on_progress()

    def _on_lost(self, peer: str) -> None:
        state = self.state
        state.children.pop(peer, None)
        was_parent = state.parents.pop(peer, None) is not None
        self.lateness.forget(peer)
        self.overlay.on_lost(peer)
        self.offers.on_lost(peer)
        if state.is_root:
            self.root.on_lost(peer)
        elif was_parent:
            self.lateness.on_parent_gone()

    def _on_message(self, peer: str, message: Message) -> None:
        state = self.state
        neighbour = state.neighbours.get(peer)
        if neighbour is None:
            return  # its link died while this was on the way
        match message:
            case Frames():
                self._on_frames(peer, message)
            case Beacon():
                was_parent = peer in state.parents
                self._send_away(neighbour)
                if self.tree.on_beacon(peer, message):
                    self.receipts.on_beacon()
                    self.lateness.on_newer_beacon()
                    self.stream.pump_all()
                    self._answer_asks()
                elif was_parent and not state.is_root:
                    self.lateness.on_parent_gone()  # its beacon has overruled us
            case Advert():
                self._on_advert(neighbour, message)
            case Ask():
                if not state.is_barred(peer) and self.lateness.on_ask(peer, message):
                    self.overlay.send_advert(neighbour, wants_echo=False)
            case Subscribe():
                reason = self.stream.on_subscribe(peer, message)
                if reason is None:
                    self.offers.on_child(peer)
                elif state.is_root and reason is Reason.MISMATCH:
                    self.root.on_mismatch(peer, message.position)
            case Unsubscribe():
                state.children.pop(peer, None)
                self.offers.on_child_gone()
            case Offer():
                self.offers.on_offer(peer, message)
            case Holds(id_):
                self.offers.on_holds(peer, id_)
            case Acks(acks):
                self.receipts.on_acks(peer, acks)
            case Refused():
                self._on_refused(peer, message)
            case Move():
                self.tree.on_move(peer)
                if self.tree.is_moving:
                    for other in state.neighbours.values():
                        if other.name != peer and other.name not in state.children:
                            self.overlay.send_advert(other, wants_echo=True)
            case _ if isinstance(message, BulkMessage):
                state.report("malformed", f"{peer}: pages and chunks belong on the bulk link")
            case _:
                assert_never(message)

    def _on_bulk(self, peer: str, message: BulkMessage) -> None:
        match message:
            case ChunksWanted():
                self.fetching.on_wanted(peer, message)
            case Chunk():
                self.fetching.on_chunk(peer, message)
            case ChunkMissing(hash_):
                self.fetching.on_missing(peer, hash_)
                self._look_for_chunks()
            case PagesWanted():
                self.donor.on_wanted(peer, message)
            case PagesCredit():
                self.donor.on_credit(peer, message)
            case Page():
                self.bootstrap.on_page(peer, message)
            case PagesRefused():
                self.bootstrap.on_refused(peer)
                self.donor.forget(peer)
            case _:
                assert_never(message)

    def _on_frames(self, peer: str, message: Frames) -> None:
        state = self.state
        parent = state.parents.get(peer)
        if parent is None:
            self.stream.frames_received += len(message.frames)
            self.stream.frame_bytes_received += sum(map(len, message.frames))
            return  # we left this parent while the frames were on the way
        parent.heard_at = state.now
        moved = self.stream.take(peer, message)
        if state.is_barred(peer):
            self.tree.leave(peer)
        if not state.is_root:
            self.lateness.on_parent_gone()
        if moved:
            self.lateness.on_progress()
            self.bootstrap.on_progress()
            if state.is_root:
                self.root.on_progress()

    def _send_away(self, neighbour: Neighbour) -> None:
        """Tell who serves us without being our parent, once a second: it may have refused us and then not."""
        state = self.state
        if neighbour.name not in state.parents and state.now - neighbour.sent_away_at >= SEND_AWAY_AGAIN_MS:
            neighbour.sent_away_at = state.now
            state.send(neighbour.name, Unsubscribe())

    def _on_advert(self, neighbour: Neighbour, advert: Advert) -> None:
        state = self.state
        self.overlay.on_advert(neighbour, advert)
        if advert.position.epoch > state.tip.epoch > 0:
            state.barred.pop(neighbour.name, None)  # it contradicted us in another epoch; now it may overrule us
        if advert.wants_echo:
            self.overlay.send_advert(neighbour, wants_echo=False)
        if state.lacks_chunks:
            self.fetching.on_ahead(neighbour.name)
            self._look_for_chunks()
        if state.is_root:
            self.root.on_advert(neighbour)
            return
        self.tree.consider(neighbour)
        self.lateness.note_ahead(neighbour, advert)
        self.lateness.try_move(neighbour)

    def _on_refused(self, peer: str, message: Refused) -> None:
        state = self.state
        was_parent = self.tree.on_refused(peer, message)
        # Nothing differs from nothing; and who stands where we stand answers what we asked before we started over.
        differs = message.reason is Reason.MISMATCH and state.tip not in {GENESIS, message.position}
        if was_parent and differs and not self._is_opening_root():
            position = message.position
            self.stream.dispute(peer, max(position.epoch, message.epoch), position.seq, position.chain)
        if state.is_root:
            if was_parent and message.reason is Reason.HORIZON and self.bootstrap.is_active:
                self.bootstrap.on_horizon(peer)
            self.root.on_refused(peer, message.reason, message.epoch)
        elif was_parent:
            self.lateness.on_parent_gone()
            if message.reason is Reason.HORIZON:
                self.bootstrap.on_horizon(peer)

    def _is_opening_root(self) -> bool:
        return self.state.is_root and self.root.phase is not Phase.OPEN

    def _answer_asks(self) -> None:
        for peer in self.lateness.answerable():
            neighbour = self.state.neighbours.get(peer)
            if neighbour is not None:
                self.overlay.send_advert(neighbour, wants_echo=False)

    def _on_deadline(self) -> None:
        state = self.state
        self._deadline = inf
        for timer in state.due_timers():
            match timer:
                case "overlay":
                    self.overlay.tick()
                case "advert":
                    self.overlay.advert_all()
                    surplus = len(state.children) - state.timers.children_max
                    if surplus > 0:
                        self.stream.ask_to_move(surplus)
                case "late":
                    self.lateness.become_late("no newer beacon")
                case "lacking":
                    self.lateness.on_lacking()
                case "widen":
                    self.lateness.on_widen()
                case "retry":
                    self.lateness.on_retry()
                case "ladder":
                    self.lateness.on_ladder()
                case "review":
                    self.tree.review()
                case "root":
                    self.root.on_timer()
                case "hand_out":
                    self.root.hand_out()
                case "offers":
                    self.offers.on_timer()
                    self._look_for_chunks()
                case "bootstrap":
                    self.bootstrap.on_timer()
                case "receipts":
                    self.receipts.tell()
                case _:
                    raise AssertionError(f"a timer nobody set: {timer}")

    def _look_for_chunks(self) -> None:
        """Take pages where frames lead nowhere: a value was replaced so long ago that nobody has its chunks."""
        if not self.fetching.are_passed_by:
            return
        if self.state.is_root:
            self.root.on_progress()
        elif not self.bootstrap.is_active:
            self.bootstrap.pass_by()

    def bootstrap_status(self) -> dict[str, Any] | None:
        """Return how far a replica in the making is, for people; None when there is none."""
        return self.bootstrap.status()

    def sizes(self) -> dict[str, int]:
        """Return how much it keeps of what peers could make grow: counts, and bytes where the name says so."""
        return {
            "recent_bytes": self.stream.recent_bytes,
            "disputes": self.stream.dispute_count,
            "kept_asks": self.lateness.kept_ask_count,
            "ladder_peers": self.lateness.ladder_peer_count,
            "replaced": self.overlay.replaced_count,
            "barred": len(self.state.barred),
            "children": len(self.state.children),
            "receivers": self.donor.receiver_count,
            "left_donors": self.bootstrap.left_count,
            "unproven_pages": self.bootstrap.unproven_count,
            "offers": self.offers.offer_count,
            "chunks_wanted": len(self.fetching.wanted),
            "kept_chunk_asks": self.fetching.kept_ask_count,
            "acks": self.receipts.ack_count,
        }

    def check_invariants(self) -> None:
        """Assert what must hold between any two events; cheap enough for every simulated step."""
        state = self.state
        name, parents, children = state.config.name, state.parents, state.children
        links = state.neighbours.keys()
        assert state.applied.seq <= state.tip.seq, "applied what was never taken"
        assert len(parents) <= PARENTS_MAX, "too many parents"
        for parent in parents:
            assert parent in links, "somebody serves us without a link"
            assert parent not in children, "a parent that is a child"
        assert children.keys() <= links, "somebody is served without a link"
        assert name not in links, "a link to myself"
        assert name not in state.path, "a path through myself"
        if state.is_root:
            assert len(children) <= state.timers.coordinator_children_max, "too many copies"
        self.offers.check_invariants()
        self.bootstrap.check_invariants()
        self.receipts.check_invariants()
