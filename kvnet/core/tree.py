"""Parent choice: a tree of least latency from the root, found as distance-vector routing finds it (DSDV, Babel).

A beacon plays the part of DSDV's sequence number. A node takes as its parent only a neighbour with a newer
beacon than its own, or with the same beacon and nearer to the root than itself; with one parent each, that
forbids loops. Where we leave the papers: latency is the metric, adverts are rare (5 s) and beacons carry the
route, and a node that is late may have up to three parents (lateness.py), so that a short loop can form; it
gets no new beacon and ends at the late limit.
"""

from __future__ import annotations

from typing import Final

from kvnet.core.messages import Advert, Beacon, Reason, Refused, Subscribe, Unsubscribe
from kvnet.core.state import NEVER, NO_BEACON, Neighbour, NodeState, Parent
from kvnet.core.stream import Stream

HYSTERESIS_MS: Final = 5.0
HYSTERESIS_SHARE: Final = 0.05
BEHIND_MS: Final = 50.0
HELPFUL_MS: Final = 30_000.0
MOVING_MS: Final = 1000.0
USELESS_MS: Final = 5000.0
SUCCESSOR_PATIENCE_MS: Final = 1000.0
PARENTS_MAX: Final = 3


class Tree:
    """Which neighbours serve us, and what their beacons told."""

    def __init__(self, state: NodeState, stream: Stream) -> None:
        self.state = state
        self.stream = stream
        self._moving_until = NEVER
        self._successor = ""
        """The parent that shall replace the others, as soon as it has proven that it serves us."""

    # -- whom we may take ------------------------------------------------------------------------------------

    def may_serve(self, neighbour: Neighbour) -> bool:
        """Whether it isn't our parent already, of another or an abandoned history, or known to refuse us.

        A child may take its parent's place only where there is none; `add_parent` turns the two round.
        """
        state = self.state
        return (
            neighbour.advert is not None
            and not (state.parents and neighbour.name in state.children)
            and neighbour.name not in state.parents
            and not state.is_barred(neighbour.name)
            and neighbour.useless_until <= state.now
            and not state.is_left_behind(neighbour.advert.position.epoch)
        )

    def is_feasible(self, advert: Advert) -> bool:
        """The rule that forbids loops."""
        state = self.state
        return advert.beacon > state.beacon or (
            advert.beacon == state.beacon and advert.latency_ms < state.latency_ms
        )

    def consider(self, neighbour: Neighbour) -> None:
        """Take the sender of the advert that has just come as parent if that is clearly better, or asked for."""
        state = self.state
        advert = neighbour.advert
        if advert is None or state.is_root or not state.parents or not self.may_serve(neighbour):
            return
        if state.config.name in advert.path or self._awaits_successor():
            return
        if state.late_since is not None and not self.is_moving:
            return  # `Lateness.try_move` knows what a late node needs
        if self.is_moving:
            # Asked to move: any neighbour with our beacon, room, and a path without us will do.
            if advert.beacon >= state.beacon and not advert.full:
                self._moving_until = NEVER
                self.replace_parents(neighbour.name, late=False)
            return
        if advert.full or not self.is_feasible(advert):
            return
        cost, mine = neighbour.cost_ms(), state.latency_ms
        if cost < mine - HYSTERESIS_MS and cost < mine * (1 - HYSTERESIS_SHARE):
            self.replace_parents(neighbour.name, late=False)

    # -- taking and leaving ----------------------------------------------------------------------------------

    def add_parent(self, peer: str, *, late: bool) -> None:
        state = self.state
        if state.children.pop(peer, None) is not None:
            state.send(peer, Refused(Reason.BEHIND, state.tip, state.tip.epoch))
        state.parents[peer] = Parent(peer, state.now)
        state.send(peer, Subscribe(state.tip, late))
        if state.wants_receipts:
            state.set_timer_earlier("receipts", state.now)
        if len(state.parents) > 1:
            state.set_timer_earlier("review", state.now + state.timers.second_parent_review_ms)

    def replace_parents(self, peer: str, *, late: bool) -> None:
        """Subscribe there; with its first beacon it takes the place of the others (`_succeed`)."""
        if len(self.state.parents) == PARENTS_MAX:
            self.leave(self._quickest_first()[-1].name)
        self.add_parent(peer, late=late)
        self._successor = peer

    def _awaits_successor(self) -> bool:
        """Whether a new parent may still prove itself; one that doesn't in time is left."""
        parent = self.state.parents.get(self._successor)
        if parent is None or self.state.now - parent.since < SUCCESSOR_PATIENCE_MS:
            return parent is not None
        self.leave(self._successor)
        return False

    def _succeed(self) -> None:
        """Leave the old parent for its successor; of several all but the quickest, which `review` judges.

        Who has two parents has them because packets get lost; a nearer one doesn't make up for that.
        """
        old = [parent.name for parent in self._quickest_first() if parent.name != self._successor]
        self._successor = ""
        for name in old[1:] or old:
            self.leave(name)

    def leave(self, peer: str) -> None:
        if self.state.parents.pop(peer, None) is not None:
            self.state.send(peer, Unsubscribe())

    def on_refused(self, peer: str, message: Refused) -> bool:
        """Forget a parent that doesn't serve us; return whether it was one."""
        state = self.state
        neighbour = state.neighbours.get(peer)
        if neighbour is not None and message.reason is not Reason.MISMATCH:
            neighbour.useless_until = state.now + USELESS_MS
        return state.parents.pop(peer, None) is not None

    def on_move(self, peer: str) -> None:
        """Ask the nearest neighbours where they stand; `consider` takes the first that will do."""
        state = self.state
        if peer not in state.parents:
            return
        if len(state.parents) > 1:
            self.leave(peer)
            return
        self._moving_until = state.now + MOVING_MS

    @property
    def is_moving(self) -> bool:
        return self.state.now < self._moving_until

    # -- beacons ---------------------------------------------------------------------------------------------

    def on_beacon(self, peer: str, message: Beacon) -> bool:
        """Take a parent's beacon; return whether it was newer than ours."""
        state = self.state
        parent = state.parents.get(peer)
        neighbour = state.neighbours.get(peer)
        if parent is None or neighbour is None or state.is_root:
            return False
        parent.heard_at = state.now
        if state.config.name in message.path or message.head_seq > state.tip.seq:
            return False
        if message.beacon.epoch < state.tip.epoch:
            return False  # an abandoned coordinator's
        if message.beacon.epoch > state.tip.epoch:
            # Its head is an entry of a later epoch, and we have another one there.
            self.stream.overrule(peer, message.beacon.epoch)
            return False
        if message.beacon > parent.beacon:
            if parent.beacon > NO_BEACON:  # the first is as late as our subscription, not as its link
                self._compare(parent, message)
            parent.beacon, parent.beacon_at = message.beacon, state.now
        if peer == self._successor:
            self._succeed()
        latency = message.latency_ms + neighbour.one_way_ms
        if message.beacon > state.beacon:
            state.beacon = message.beacon
            state.beacon_at = state.now
            state.beacon_time_ms = message.time_ms
            state.beacon_held_ms = message.held_ms
            state.beacon_latency_ms = latency
            state.beacon_interval_ms = message.interval_ms
            state.head_seq = message.head_seq
            state.wants_receipts = message.wants_receipts
            state.latency_ms = latency
            state.path = message.path
            return True
        if message.beacon == state.beacon and latency < state.latency_ms:
            state.latency_ms = latency  # only ever nearer within one beacon: that keeps the rule's promise
            state.path = message.path
        return False

    def _compare(self, parent: Parent, message: Beacon) -> None:
        """Note whose beacons come late or not at all; a parent that covers for another's delays is kept."""
        now = self.state.now
        for other in self.state.parents.values():
            if other is parent or now - other.since < 2 * BEHIND_MS:
                continue
            if other.beacon >= message.beacon:
                if now - other.beacon_at > BEHIND_MS:
                    parent.behind_at = now
            elif other.beacon < parent.beacon:
                other.behind_at = now  # it missed the one before this

    def review(self) -> None:
        """Let the slower of several parents go, unless there are two and each covers for the other."""
        state = self.state
        if len(state.parents) < 2:
            return
        parents = self._quickest_first()
        helpful = [p for p in parents if state.now - p.behind_at < HELPFUL_MS]
        if len(parents) > 2 or len(helpful) < 2:
            self.leave(parents[-1].name)
        if len(state.parents) > 1:
            state.set_timer("review", state.now + state.timers.second_parent_review_ms)

    def _quickest_first(self) -> list[Parent]:
        """Our parents, those with the newest beacon first, among equals those nearest to the root."""
        neighbours = self.state.neighbours
        by_cost = sorted(self.state.parents.values(), key=lambda p: (neighbours[p.name].cost_ms(), p.name))
        return sorted(by_cost, key=lambda p: p.beacon, reverse=True)
