"""The coordinator's part in the protocol: starting as a replica, opening an epoch, and the beacons.

It asks the members it reaches where they stand (their first adverts tell), fetches what any has beyond it on
its own chain, and only then opens a new epoch. It refuses to write where that could lose what was acknowledged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from kvnet.core.bootstrap import Bootstrap
from kvnet.core.events import OpenEpoch, RefuseWrites
from kvnet.core.fetching import Fetching
from kvnet.core.frames import EPOCH_MAX
from kvnet.core.messages import BeaconId, Reason
from kvnet.core.state import NEVER, Neighbour, NodeState
from kvnet.core.stream import Stream
from kvnet.core.tree import Tree
from kvnet.core.versions import Position

LISTEN_MS: Final = 500.0
LISTEN_MS_MAX: Final = 2000.0
"""Who has written before waits so long for a member to tell where it stands; a handshake alone can take 0.7 s."""
CATCH_UP_PATIENCE_MS: Final = 5000.0
ACCEPT_LOSS_MS: Final = 5000.0
"""Who was told to accept a loss asks no further member for what it lacks after this time."""
HORIZONS_ENOUGH: Final = 8
"""So many members whose journals begin after our end speak for the others, once it has listened for as long."""
WITNESSES: Final = 2
"""A single member that contradicts the coordinator may itself be the one that is wrong."""
BUSY_MS: Final = 1000.0
MANY_FRAMES: Final = 30
"""Frames within a second from which on they are handed out together."""


class Phase(Enum):
    LISTENING = auto()
    CATCHING_UP = auto()
    OPENING = auto()
    OPEN = auto()
    REFUSING = auto()
    STOPPED = auto()
    """It has written, and found out that it must not; only a new start leads on."""


class Root:
    """The coordinator's start and its beacons; idle at every other node."""

    def __init__(
        self,
        state: NodeState,
        tree: Tree,
        stream: Stream,
        bootstrap: Bootstrap,
        fetching: Fetching,
        wall_ms: Callable[[], float],
    ) -> None:
        self.state = state
        self.bootstrap = bootstrap
        self.fetching = fetching
        self.wall_ms = wall_ms
        self.tree = tree
        self.stream = stream
        self.phase = Phase.LISTENING
        self._epoch_seen = state.tip.epoch
        self._ahead: dict[str, Position] = {}
        self._elsewhere: set[Position] = set()
        """Positions that aren't on a history that goes on from ours: whoever stands there has nothing for us."""
        self._rivals: dict[str, Position] = {}
        """Members that have what no coordinator but another one can have given them."""
        self._tried: set[str] = set()
        self._begin_later: set[str] = set()
        """Members whose journals begin after our end."""
        self._cuts: deque[float] = deque(maxlen=MANY_FRAMES)
        """When the last frames were cut."""
        self._handed_out_at = NEVER
        self._started_at = NEVER
        self.receipts_until = NEVER
        """Until when receipts are wanted."""

    def start(self) -> None:
        self._started_at = self.state.now
        self.state.set_timer("root", self.state.now + LISTEN_MS)

    def _hears_nobody(self) -> bool:
        """Whether nobody has told where it stands yet, and there may be somebody who does."""
        state = self.state
        is_over = state.now >= self._started_at + LISTEN_MS_MAX  # as the timer has it, to the last bit
        told = any(neighbour.advert is not None for neighbour in state.neighbours.values())
        return not told and not state.config.fresh and not is_over

    def on_advert(self, neighbour: Neighbour) -> None:
        """Note who is ahead of us while we may still catch up."""
        if neighbour.advert is None:
            return
        position = neighbour.advert.position
        if self.phase is Phase.OPEN:
            self._look_for_rival(neighbour.name, position)
        if self.phase in {Phase.OPENING, Phase.OPEN, Phase.STOPPED}:
            return
        self._epoch_seen = max(self._epoch_seen, position.epoch)
        if (position.epoch, position.seq) > (self.state.tip.epoch, self.state.tip.seq):
            self._ahead[neighbour.name] = position
        waited = self.phase is Phase.LISTENING and self.state.now - self._started_at >= LISTEN_MS
        if waited or self.phase is Phase.REFUSING:
            self._decide()

    def _look_for_rival(self, name: str, position: Position) -> None:
        """Write no more when two members are ahead of us: in our own epoch, or in a higher one.

        Nobody can have what we haven't sent. Another coordinator writes or has written, or our disk has lost an
        epoch of this number; what we go on to write would split the network, or be thrown away by all of it.
        """
        tip = self.state.tip
        if position[:2] <= tip[:2]:
            return
        self._rivals[name] = position
        witnesses = [other for other, there in self._rivals.items() if there[:2] > tip[:2]]
        self.state.report("rival", f"{', '.join(witnesses)} ahead of us, who write epoch {tip.epoch}")
        if len(witnesses) >= min(WITNESSES, len(self.state.config.members)):
            self.stop(
                f"members are ahead of us, in epoch {position.epoch}: another coordinator writes or has written, "
                "or this disk has lost writes; stop the other one, put the newest disk in place, "
                "or start with --accept-loss"
            )

    def on_mismatch(self, name: str, position: Position) -> None:
        """Write no more when two members stand on another history of our own epoch, wherever.

        Nobody yields within an epoch. They do to the next one, which a new start opens.
        """
        tip = self.state.tip
        if self.phase is not Phase.OPEN or position.epoch != tip.epoch:
            return
        self._rivals[name] = position
        witnesses = [other for other, there in self._rivals.items() if there.epoch == tip.epoch]
        self.state.report("rival", f"{', '.join(witnesses)} on another history of our epoch {tip.epoch}")
        if len(witnesses) >= min(WITNESSES, len(self.state.config.members)):
            self.stop(
                f"members are on another history of epoch {tip.epoch}, which another coordinator has begun; "
                "stop that one and start this one again: all will follow its next epoch, with --accept-loss "
                "if they are ahead"
            )

    def stop(self, why: str) -> None:
        """Write no more and lead no more, until this process is started again."""
        self.phase = Phase.STOPPED
        self.state.cancel_timer("root")
        self.state.cancel_timer("hand_out")
        self.state.out.append(RefuseWrites(why))

    def on_timer(self) -> None:
        if self.phase is Phase.LISTENING:
            if self._hears_nobody():
                self.state.set_timer("root", self._started_at + LISTEN_MS_MAX)
            else:
                self._decide()
        elif self.phase is Phase.CATCHING_UP and self.bootstrap.is_active:
            if self.bootstrap.lacks_frames:
                self._leave_silent()
            self._decide()
        elif self.phase is Phase.CATCHING_UP:
            for name in list(self.state.parents):  # silent for too long, and still ahead
                self.tree.leave(name)
            self._decide()
        elif self.phase is Phase.OPEN:
            self._beacon()
            self.hand_out()

    def on_progress(self) -> None:
        """Frames came or were applied while catching up: go on until the member that gives them has no more."""
        if self.phase not in {Phase.CATCHING_UP, Phase.REFUSING} or self.bootstrap.is_active:
            return
        state = self.state
        here = state.tip
        is_given_more = any(self._ahead.get(name, here)[:2] > here[:2] for name in state.parents)
        if is_given_more and not self.fetching.wait_in_vain:
            self._catch_up()
        else:
            self._decide()

    def on_refused(self, peer: str, reason: Reason, epoch: int) -> None:
        """A member that is ahead can't give us what we lack."""
        if reason is Reason.MISMATCH and peer in self._ahead and epoch == self._ahead[peer].epoch:
            self._elsewhere.add(self._ahead[peer])
        if reason is Reason.HORIZON and peer in self._ahead:
            self._begin_later.add(peer)
        if self.phase is Phase.CATCHING_UP and not self.state.parents:
            self._decide()

    def on_lost(self, peer: str) -> None:
        """A member's link is gone; should it come back, it may be asked once more."""
        self._tried.discard(peer)
        if self.phase is Phase.CATCHING_UP and not self.state.parents:
            self._decide()

    def _decide(self) -> None:
        """Open, fetch or refuse, once the disk has what was fetched: an epoch begins where the writer stands."""
        state, config = self.state, self.state.config
        if self.bootstrap.is_active or state.applied != state.tip:
            if self.fetching.wait_in_vain:
                self._do_without_chunks()
            else:
                self._catch_up()
            return
        here = state.tip
        ahead = {name: there for name, there in self._ahead.items() if there[:2] > here[:2]}
        is_lost = state.tip.seq == 0 and (bool(ahead) or not config.fresh)
        best = sorted(
            (there, name)
            for name, there in ahead.items()
            if name not in self._tried and there not in self._elsewhere and name in state.neighbours
        )
        if is_lost and not config.recover:
            self._refuse("the coordinator's disk is empty but its network has a history; start with --recover")
        elif config.recover and any(name in self._begin_later for name in ahead):
            self._catch_up()
            self.bootstrap.begin()
        elif best and not self._has_asked_enough():
            self._fetch_from(best[-1][1])
            self._catch_up()
        elif config.accept_loss or not (ahead or is_lost):
            self._open()
        elif is_lost:
            self._refuse(
                "no member is reached that could fill the coordinator's empty disk; start its PoPs, "
                "or start with --recover and --accept-loss to begin a new history"
            )
        elif any(name in self._begin_later for name in ahead):
            self._refuse(
                "this disk ends before the journals of its network begin; start with --recover to take the data "
                "of its members instead, or with --accept-loss to go on without it"
            )
        else:
            epoch, seq, _ = max(ahead.values())
            behind = f"{seq - state.tip.seq} writes" if epoch == state.tip.epoch else f"epoch {epoch}"
            self._refuse(
                f"the network is ahead by {behind} and no member can give that back; "
                "start with --accept-loss to go on without it"
            )

    def _has_asked_enough(self) -> bool:
        """Whether no further member is asked for frames: told to accept a loss, or refused for so many horizons.

        Members' journals are of one size; to ask hundreds of them in turn takes minutes, and pages would do.
        """
        if self.state.now - self._started_at < ACCEPT_LOSS_MS:
            return False
        return self.state.config.accept_loss or len(self._begin_later) >= HORIZONS_ENOUGH

    def _do_without_chunks(self) -> None:
        """Go on from what is applied, since what comes behind it needs chunks that nobody gives; or refuse."""
        state, config = self.state, self.state.config
        beyond = f"the entries behind {state.applied.version}, {state.tip.seq - state.applied.seq} in number,"
        others_are_past = any(there[:2] > state.applied[:2] for there in self._ahead.values())
        is_making, is_proving = self.bootstrap.is_active, self.bootstrap.is_proving
        if is_making and not is_proving:
            self._catch_up()
        elif is_making and config.accept_loss:
            self._catch_up()
            self.bootstrap.begin_without_tail("its tail needs chunks that nobody gives")
        elif config.recover and not is_making and (others_are_past or self.fetching.are_passed_by):
            self._catch_up()
            self.bootstrap.pass_by()
        elif config.accept_loss:
            self._epoch_seen = max(self._epoch_seen, state.tip.epoch)
            self.stream.drop_unapplied()
            self._open()
        elif not is_making and (others_are_past or self.fetching.are_passed_by):
            self._refuse(
                f"{beyond} need chunks of large values that no member gives, though some have applied them; start "
                "with --recover to take the data of its members instead, or with --accept-loss to go on without it"
            )
        else:
            self._refuse(
                f"{beyond} need chunks of large values that no member has; start the members that have them, "
                "or start with --accept-loss to go on without these writes"
            )

    def _leave_silent(self) -> None:
        """Leave who gives none of the frames that we lack: others may."""
        state = self.state
        for parent in list(state.parents.values()):
            if state.now - max(parent.since, parent.heard_at) >= CATCH_UP_PATIENCE_MS:
                self.tree.leave(parent.name)

    def _catch_up(self) -> None:
        self.phase = Phase.CATCHING_UP
        self.state.set_timer("root", self.state.now + CATCH_UP_PATIENCE_MS)

    def _fetch_from(self, name: str) -> None:
        if name in self.state.parents:
            return
        for other in list(self.state.parents):
            self.tree.leave(other)
        self._tried.add(name)
        self.tree.add_parent(name, late=True)

    def _refuse(self, why: str) -> None:
        if self.phase is not Phase.REFUSING:
            self.phase = Phase.REFUSING
            self.state.out.append(RefuseWrites(why))

    def _open(self) -> None:
        epoch = max(self._epoch_seen, self.state.tip.epoch) + 1
        if epoch >= EPOCH_MAX:
            self._refuse(f"there is no epoch after {epoch - 1}: start a new network and import the data")
            return
        for name in list(self.state.parents):
            self.tree.leave(name)
        self.phase = Phase.OPENING
        self.state.cancel_timer("root")
        self.state.out.append(OpenEpoch(epoch))

    def on_frames_cut(self) -> None:
        """Hand the new frames out, at once or, when they come thick and fast, with those that follow."""
        state = self.state
        if self.phase is Phase.STOPPED:
            return  # a last commit was under way
        self._cuts.append(state.now)
        if self.phase is not Phase.OPEN:
            self.phase = Phase.OPEN
            self._beacon()
        else:
            busy_due = state.beacon_at + state.timers.beacon_interval_busy_ms
            state.set_timer_earlier("root", max(state.now, busy_due))
        many = len(self._cuts) == MANY_FRAMES and state.now - self._cuts[0] < BUSY_MS
        due = self._handed_out_at + state.timers.hand_out_interval_ms if many else state.now
        if due > state.now:
            state.set_timer_earlier("hand_out", due)
        else:
            self.hand_out()

    def hand_out(self) -> None:
        """Give the children what they lack; every node of the network wakes up for it."""
        self._handed_out_at = self.state.now
        self.state.cancel_timer("hand_out")
        self.stream.pump_all()

    def want_receipts(self, until_ms: float) -> None:
        """Have members tell what they have, until then. They learn it by a beacon, so one goes out at once."""
        self.receipts_until = max(self.receipts_until, until_ms)
        if self.phase is Phase.OPEN and not self.state.wants_receipts:
            self._beacon()
            self.hand_out()

    def _beacon(self) -> None:
        state = self.state
        state.wants_receipts = state.now < self.receipts_until
        busy = bool(self._cuts) and state.now - self._cuts[-1] < BUSY_MS
        state.beacon = BeaconId(state.tip.epoch, state.beacon.number + 1)
        state.beacon_at = state.now
        state.beacon_time_ms = self.wall_ms()
        state.beacon_interval_ms = (
            state.timers.beacon_interval_busy_ms if busy else state.timers.beacon_interval_ms
        )
        state.head_seq = state.tip.seq
        state.set_timer("root", state.now + state.beacon_interval_ms)
