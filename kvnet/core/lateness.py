"""Lateness and repair: who notices that it misses something, whom it asks, and how far it goes.

    late      2 intervals without a newer beacon · a neighbour's position that I lack 50 ms + RTT later ·
              no parent
    ask       the four neighbours that promise least latency, after 300 ms all; without a parent all at once
    move      only to one with newer frames or a newer beacon; subscribe there, then leave; a second parent
              after max(100 ms, 2 RTT), three at most
    ladder    nobody newer for 1 s: two random members, two of the coordinator's neighbours, the coordinator;
              a rung a second

Whether a member is up is never asked: silence of the link decides, as memberlist's suspicion (75 s at 330
nodes) would come long after the bound.
"""

from __future__ import annotations

from typing import Final

from kvnet.core.events import Connect
from kvnet.core.messages import Advert, Ask
from kvnet.core.overlay import Overlay
from kvnet.core.sampling import sample
from kvnet.core.state import NEVER, Neighbour, NodeState
from kvnet.core.tree import PARENTS_MAX, Tree

FIRST_ASKED: Final = 4
BEHIND_GRACE_MS: Final = 50.0
PREFER_ROOM_MS: Final = 100.0
SECOND_PARENT_MS: Final = 100.0
LADDER_WIDTH: Final = 2
LADDER_RUNGS: Final = 3
OWN_NEIGHBOURS_EVERY: Final = 8
ASK_AGAIN_MS: Final = 1000.0
ROOT_ASKS_PER_SECOND: Final = 10
ROOT_ASKS_BURST: Final = 20
SUBSCRIBE_PATIENCE_MS: Final = 1000.0
"""A parent that was taken and has delivered nothing for this long is not one."""


class Lateness:
    """Whether we are late, our asks, and the asks of others that we keep."""

    def __init__(self, state: NodeState, tree: Tree, overlay: Overlay) -> None:
        self.state = state
        self.tree = tree
        self.overlay = overlay
        self.asks_sent = 0
        self.ladder_asks_sent = 0
        self._kept_asks: dict[str, Ask] = {}
        self._lacking_seq = 0
        self._second_after = NEVER
        self._rung = 0
        self._ladder_peers: dict[str, None] = {}
        """Whom to ask as soon as the link stands."""
        self._tokens = float(ROOT_ASKS_BURST)
        self._tokens_at = 0.0

    @property
    def kept_ask_count(self) -> int:
        return len(self._kept_asks)

    @property
    def ladder_peer_count(self) -> int:
        return len(self._ladder_peers)

    # -- being late ------------------------------------------------------------------------------------------

    def watch_beacon(self) -> None:
        """Be late when the next beacons stay away; armed by each newer one."""
        self.state.set_timer("late", self._late_at())

    def _late_at(self) -> float:
        """When our beacon is too old: it counts from when the nodes on its path had it, not when they let go."""
        state = self.state
        return state.beacon_at - state.beacon_held_ms + state.timers.late_intervals * state.beacon_interval_ms

    def _beacon_is_late(self) -> bool:
        return self.state.now >= self._late_at()

    def on_newer_beacon(self) -> None:
        """Be on time again, unless it is old itself, or a neighbour is ahead and that is within its grace."""
        state = self.state
        is_here = state.tip.seq >= self._lacking_seq or not state.has_timer("lacking")
        is_fresh = state.beacon_held_ms <= state.beacon_interval_ms  # else whoever sent it misses the next one
        if state.late_since is not None and is_here and is_fresh:
            self._end()
        self.watch_beacon()

    def on_progress(self) -> None:
        """Frames came: what we lacked may be here."""
        state = self.state
        if self._lacking_seq and state.tip.seq >= self._lacking_seq:
            self._lacking_seq = 0
            state.cancel_timer("lacking")
            if state.late_since is not None and not self._beacon_is_late():
                self._end()

    def note_ahead(self, neighbour: Neighbour, advert: Advert) -> None:
        """Remember what a neighbour has and we lack; if we still lack it 50 ms + RTT later, we are late."""
        state = self.state
        position = advert.position
        if self._lacking_seq or position.seq <= state.tip.seq or position.epoch < state.tip.epoch:
            return
        if neighbour.name in state.children or state.is_barred(neighbour.name):
            return
        self._lacking_seq = position.seq
        state.set_timer("lacking", state.now + BEHIND_GRACE_MS + neighbour.rtt_ms)

    def on_lacking(self) -> None:
        """The grace is over; we are late until what we lack is here, or a newer beacon says that all is."""
        if self.state.tip.seq < self._lacking_seq:
            self.become_late("a neighbour is ahead")

    def on_parent_gone(self) -> None:
        if not self.state.parents:
            self.become_late("no parent")

    def become_late(self, why: str) -> None:
        """Start asking; nothing happens if we are late already, but that having no parent asks all at once."""
        state = self.state
        if state.is_root:
            return
        if state.late_since is None:
            state.late_since = state.now
            self._rung = 0
            self._second_after = NEVER
            state.set_timer("ladder", state.now + state.jittered(state.timers.ladder_after_ms))
            state.report("late", why)
        elif state.parents:
            return
        if state.parents:
            self._ask(self._best(FIRST_ASKED))
            state.set_timer("widen", state.now + state.jittered(state.timers.ask_widen_ms))
        else:
            self._ask(self._best(None))

    def _end(self) -> None:
        state = self.state
        state.late_since = None
        self._lacking_seq = 0
        self._ladder_peers.clear()
        for name in ("widen", "ladder", "retry"):
            state.cancel_timer(name)

    # -- asking ----------------------------------------------------------------------------------------------

    def _best(self, count: int | None) -> list[Neighbour]:
        """The neighbours worth asking, those that promise least latency first.

        Children have what they have from us, as a rule; but one that has a second parent may be all that still
        connects us, so without a parent they are asked as well.
        """
        state = self.state
        able = [
            n
            for n in state.neighbours.values()
            if n.name not in state.parents
            and not (state.parents and n.name in state.children)
            and not state.is_barred(n.name)
        ]
        able.sort(key=lambda n: (n.cost_ms(), n.name))
        return able[:count]

    def _ask(self, neighbours: list[Neighbour], *, ladder: bool = False) -> None:
        """Ask these; who was just asked the same and has said nothing since keeps that ask, and will answer."""
        state = self.state
        ask = Ask(state.tip.epoch, state.tip.seq, state.beacon, ladder)
        for neighbour in neighbours:
            is_kept = neighbour.asked == ask and neighbour.advert_at < neighbour.asked_at
            if is_kept and state.now - neighbour.asked_at < ASK_AGAIN_MS:
                continue
            neighbour.asked, neighbour.asked_at = ask, state.now
            self.asks_sent += 1
            state.send(neighbour.name, ask)

    def on_widen(self) -> None:
        if self.state.late_since is not None:
            self._ask([n for n in self._best(None) if n.asked_at < self.state.late_since])
            self._try_all()

    def on_link(self, neighbour: Neighbour) -> None:
        """A link came up while we are late: it may be what we waited for."""
        state = self.state
        if state.late_since is None:
            return
        if self._ladder_peers.pop(neighbour.name, "no") is None:
            neighbour.ladder_used_at = state.now
            self.ladder_asks_sent += 1
            self._ask([neighbour], ladder=True)
        else:
            self._ask([neighbour])

    # -- moving ----------------------------------------------------------------------------------------------

    def try_move(self, neighbour: Neighbour) -> None:
        """Move to this neighbour if it has what we lack and we are late."""
        state = self.state
        advert = neighbour.advert
        if state.late_since is None or advert is None or not self.tree.may_serve(neighbour) or state.awaits_page:
            return
        if not state.is_newer(advert.position.epoch, advert.position.seq, advert.beacon):
            return
        if state.config.name in advert.path:
            return
        if advert.full and state.now < state.late_since + PREFER_ROOM_MS:
            state.set_timer_earlier("retry", state.late_since + PREFER_ROOM_MS)
            return
        if len(state.parents) >= PARENTS_MAX:
            self._drop_silent()
        if len(state.parents) >= PARENTS_MAX:
            return
        if state.parents and state.now < self._second_after and not self._promises_more(advert):
            return
        self._second_after = state.now + max(SECOND_PARENT_MS, 2 * neighbour.rtt_ms)
        state.set_timer_earlier("retry", self._second_after)
        self.tree.add_parent(neighbour.name, late=True)

    def _promises_more(self, advert: Advert) -> bool:
        """Whether this neighbour has a newer beacon than any that our parents told of."""
        neighbours = self.state.neighbours
        known = (neighbours[name].advert for name in self.state.parents)
        return all(theirs is None or theirs.beacon < advert.beacon for theirs in known)

    def _drop_silent(self) -> None:
        """Leave the parent that has been silent longest, if it had its chance."""
        state = self.state
        silent = [
            p for p in state.parents.values() if state.now - max(p.since, p.heard_at) > SUBSCRIBE_PATIENCE_MS
        ]
        if silent:
            self.tree.leave(min(silent, key=lambda p: (max(p.since, p.heard_at), p.name)).name)

    def on_retry(self) -> None:
        self._try_all()

    def _try_all(self) -> None:
        state = self.state
        if state.late_since is None:
            return
        fresh = [n for n in self._best(None) if n.advert_at >= state.late_since]
        for neighbour in fresh:
            self.try_move(neighbour)

    # -- the ladder ------------------------------------------------------------------------------------------

    def on_ladder(self) -> None:
        """Climb a rung: leave the neighbourhood, a step a second, until somebody has something newer."""
        state = self.state
        if state.late_since is None:
            return
        config = state.config
        match self._rung % LADDER_RUNGS:
            case 0:
                peers = sample(state.rng, config.members, LADDER_WIDTH, (config.name,), state.neighbours)
            case 1:
                peers = sample(
                    state.rng, config.root_links, LADDER_WIDTH, (config.name,), state.parents, state.children
                )
            case _:
                peers = [config.root]
        if self._rung % OWN_NEIGHBOURS_EVERY == OWN_NEIGHBOURS_EVERY - 1:
            self._ask(self._best(None))
        for peer in peers:
            neighbour = state.neighbours.get(peer)
            if neighbour is None:
                self._ladder_peers[peer] = None
                self.overlay.expect_ladder(peer)
                state.out.append(Connect(peer))
            elif not state.is_barred(peer):
                if neighbour.ladder_used_at is not None:
                    neighbour.ladder_used_at = state.now
                self.ladder_asks_sent += 1
                self._ask([neighbour], ladder=True)
        self._rung += 1
        state.set_timer("ladder", state.now + state.jittered(state.timers.ladder_step_ms))

    # -- the asks of others ----------------------------------------------------------------------------------

    def on_ask(self, peer: str, ask: Ask) -> bool:
        """Return whether to answer now; else keep a neighbour's ask until there is something newer."""
        state = self.state
        if state.is_root and ask.ladder and not self._take_token():
            return False
        if (state.applied.epoch, state.applied.seq) > (ask.epoch, ask.seq) or (
            state.advertised_beacon() > ask.beacon
        ):
            return True
        if not ask.ladder:
            self._kept_asks[peer] = ask
        return False

    def answerable(self) -> list[str]:
        """Take out the kept asks for which we now have something newer."""
        if not self._kept_asks:
            return []
        state = self.state
        here = (state.applied.epoch, state.applied.seq)
        beacon = state.advertised_beacon()
        peers = [p for p, ask in self._kept_asks.items() if here > (ask.epoch, ask.seq) or beacon > ask.beacon]
        for peer in peers:
            del self._kept_asks[peer]
        return peers

    def forget(self, peer: str) -> None:
        self._kept_asks.pop(peer, None)

    def _take_token(self) -> bool:
        now = self.state.now
        gained = (now - self._tokens_at) * ROOT_ASKS_PER_SECOND / 1000
        self._tokens = min(ROOT_ASKS_BURST, self._tokens + gained)
        self._tokens_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
