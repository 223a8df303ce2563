"""The overlay: which links we want, replacing those that stay down, and measuring their round trips.

Four nearest and four random PoPs, one of the random ones pinned: dialled for ever, so that no partition can
make everybody forget everybody else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kvnet.core.events import Connect, Disconnect
from kvnet.core.messages import NO_WAY_MS, Advert
from kvnet.core.sampling import sample
from kvnet.core.state import NEVER, Neighbour, NodeState

TICK_MS: Final = 1000.0
REDIAL_FIRST_MS: Final = 100.0
REDIAL_MAX_MS: Final = 5000.0
LADDER_IDLE_MS: Final = 10_000.0


@dataclass(slots=True)
class Wanted:
    """A link we want to have."""

    name: str
    near: bool
    pinned: bool
    down_since: float
    dial_at: float
    redial_ms: float = REDIAL_FIRST_MS
    instead_of: str = ""
    """The peer this one replaces."""


class Overlay:
    """Our wanted links and everybody we have a link with."""

    def __init__(self, state: NodeState) -> None:
        self.state = state
        self.wanted: dict[str, Wanted] = {}
        self._replaced: dict[str, float] = {}
        """Peers that lost their place, and when to try them again."""
        self._ladder: dict[str, float] = {}
        """Peers dialled for the ladder, and when."""

    @property
    def replaced_count(self) -> int:
        return len(self._replaced)

    # -- which links -----------------------------------------------------------------------------------------

    def start(self) -> None:
        state, config, timers = self.state, self.state.config, self.state.timers
        if config.is_root:
            for name in config.root_links[: timers.coordinator_links]:
                self._want(name, near=True)
        else:
            for name in config.nearest[: timers.nearest_links]:
                self._want(name, near=True)
            for name in self._random_peers(timers.random_links):
                self._want(name, near=False)
            for wanted in list(self.wanted.values())[timers.nearest_links : timers.nearest_links + 1]:
                wanted.pinned = True
        self._dial_due()
        state.set_timer("overlay", state.now + state.jittered(TICK_MS))
        state.set_timer("advert", state.now + state.jittered(timers.advert_interval_ms))

    def _random_peers(self, count: int) -> list[str]:
        config = self.state.config
        return sample(self.state.rng, config.members, count, (config.name,), self.wanted, self._replaced)

    def _want(self, name: str, *, near: bool, instead_of: str = "") -> None:
        now = self.state.now
        self.wanted[name] = Wanted(name, near, False, now, now, instead_of=instead_of)

    def tick(self) -> None:
        """Dial what is due, replace what stays down, close what the ladder no longer needs."""
        state, timers = self.state, self.state.timers
        now = state.now
        for wanted in list(self.wanted.values()):
            down = wanted.name not in state.neighbours
            if down and not wanted.pinned and now - wanted.down_since >= timers.link_replace_ms:
                self._replace(wanted)
        for name, at in list(self._replaced.items()):
            if now >= at:
                self._replaced[name] = now + state.jittered(timers.replaced_link_retry_ms)
                state.out.append(Connect(name))
        for neighbour in list(state.neighbours.values()):
            used = neighbour.ladder_used_at
            if used is None or neighbour.name in state.parents or neighbour.name in state.children:
                continue
            if now - used >= LADDER_IDLE_MS:
                state.out.append(Disconnect(neighbour.name, "ladder link unused"))
                neighbour.ladder_used_at = now
        self._dial_due()
        self._look_again()

    def _look_again(self) -> None:
        """Come back in a second while a link is down or lent; a whole overlay waits for its round of adverts."""
        neighbours = self.state.neighbours
        lent = any(neighbour.ladder_used_at is not None for neighbour in neighbours.values())
        if lent or not neighbours.keys() >= self.wanted.keys():
            self.state.set_timer_earlier("overlay", self.state.now + self.state.jittered(TICK_MS))

    def _replace(self, wanted: Wanted) -> None:
        """Give a dead link's place to the next nearest, or to another random PoP."""
        state = self.state
        config = state.config
        candidates = [
            n for n in config.nearest if n not in self.wanted and n not in self._replaced and n != config.name
        ]
        if wanted.near and candidates and not config.is_root:
            successor = candidates[0]
        else:
            drawn = self._random_peers(1)
            if not drawn:
                return
            successor = drawn[0]
        del self.wanted[wanted.name]
        self._replaced[wanted.name] = state.now + state.jittered(state.timers.replaced_link_retry_ms)
        state.report("link_replaced", f"{wanted.name} by {successor}")
        self._want(successor, near=wanted.near, instead_of=wanted.instead_of or wanted.name)

    def _dial_due(self) -> None:
        now = self.state.now
        for wanted in self.wanted.values():
            if wanted.name not in self.state.neighbours and now >= wanted.dial_at:
                wanted.dial_at = now + wanted.redial_ms
                wanted.redial_ms = min(REDIAL_MAX_MS, wanted.redial_ms * 2)
                self.state.out.append(Connect(wanted.name))

    def expect_ladder(self, peer: str) -> None:
        self._ladder[peer] = self.state.now

    # -- links come and go -----------------------------------------------------------------------------------

    def on_up(self, peer: str, rtt_ms: float) -> Neighbour:
        state = self.state
        neighbour = Neighbour(peer)
        neighbour.measure(state.now, rtt_ms)
        state.neighbours[peer] = neighbour
        dialled_for_ladder = self._ladder.pop(peer, NEVER) > NEVER
        wanted = self.wanted.get(peer)
        if wanted is not None:
            wanted.redial_ms = REDIAL_FIRST_MS
        elif self._replaced.pop(peer, None) is not None:
            if not self._win_back(peer):
                neighbour.ladder_used_at = state.now  # nobody's place any more: closed when it proves unused
        elif dialled_for_ladder:
            neighbour.ladder_used_at = state.now
            self._look_again()
        self.send_advert(neighbour, wants_echo=False)
        return neighbour

    def _win_back(self, peer: str) -> bool:
        """A replaced peer answers again: it gets its place back, and its substitute goes; False if it has none."""
        for wanted in list(self.wanted.values()):
            if wanted.instead_of == peer:
                del self.wanted[wanted.name]
                self._want(peer, near=wanted.near)
                name = wanted.name
                state = self.state
                if name in state.neighbours and name not in state.parents and name not in state.children:
                    state.out.append(Disconnect(name, "the link it replaced is back"))
                return True
        return False

    def on_lost(self, peer: str) -> None:
        state = self.state
        state.neighbours.pop(peer, None)
        wanted = self.wanted.get(peer)
        if wanted is not None:
            wanted.down_since = state.now
            wanted.dial_at = state.now + state.rng.uniform(0, REDIAL_FIRST_MS)
            state.set_timer_earlier("overlay", wanted.dial_at)

    def on_dial_failed(self, peer: str) -> None:
        self._ladder.pop(peer, None)
        wanted = self.wanted.get(peer)
        if wanted is not None:
            wanted.dial_at = self.state.now + self.state.jittered(wanted.redial_ms)
            self.state.set_timer_earlier("overlay", wanted.dial_at)

    # -- adverts ---------------------------------------------------------------------------------------------

    def send_advert(self, neighbour: Neighbour, *, wants_echo: bool) -> None:
        state = self.state
        heard = neighbour.heard_sent_ms
        advert = Advert(
            state.applied,
            state.advertised_beacon(),
            min(state.latency_ms, NO_WAY_MS),
            state.path,
            len(state.children),
            state.is_full(),
            state.now,
            heard,
            state.now - neighbour.heard_at if heard >= 0 else 0.0,
            wants_echo,
        )
        neighbour.heard_sent_ms = -1.0
        state.send(neighbour.name, advert)

    def advert_all(self) -> None:
        """The regular round of adverts, and the regular look at the overlay."""
        state = self.state
        self.tick()
        for neighbour in state.neighbours.values():
            self.send_advert(neighbour, wants_echo=False)
        state.set_timer("advert", state.now + state.jittered(state.timers.advert_interval_ms))

    def on_advert(self, neighbour: Neighbour, advert: Advert) -> None:
        state = self.state
        neighbour.advert, neighbour.advert_at = advert, state.now
        neighbour.heard_sent_ms, neighbour.heard_at = advert.sent_ms, state.now
        if advert.echo_ms >= 0:
            neighbour.measure(state.now, state.now - advert.echo_ms - advert.echo_hold_ms)
