"""Receipts: which members have what, told up the tree while somebody waits for it.

A bit in the beacon says that receipts are wanted. Each node then tells its parents its own ack, what its readers
see, and those of the nodes behind it: first all that it knows, after that what has changed, some times a second at
most. That is a convergecast over the tree that frames take. Acks are merged by the newer, so nothing here minds a
tree that changes: an ack that comes by two ways counts once, and who moves tells its new parent everything.

An ack is cumulative, and true for as long as its member's replica isn't thrown away. A replica that begins again
begins another life, which it names by a beacon, since beacons are the one clock that all share: acks of the later
life replace those of the one before.
"""

from __future__ import annotations

from typing import Final

from kvnet.core.events import AcksCame
from kvnet.core.messages import Ack, Acks, BeaconId
from kvnet.core.state import NEVER, NO_BEACON, NodeState

TELL_AGAIN_MS: Final = 50.0
"""What comes within this time after the last telling is told together."""


class Receipts:
    """What a node knows of the members behind it, itself included."""

    def __init__(self, state: NodeState) -> None:
        self.state = state
        self._acks: dict[str, Ack] = {}
        """By member."""
        self._untold: dict[str, None] = {}
        """Members whose acks have changed since our parents were told."""
        self._is_wanted = False
        self._told_at = NEVER
        self._life: BeaconId | None = None
        """The beacon that our life is named by; None while it hasn't come."""
        self._lives_after = NO_BEACON
        """The name of our last life: the next one's is of a newer beacon."""

    @property
    def ack_count(self) -> int:
        return len(self._acks)

    def on_served(self) -> None:
        """Our readers may see more than before, or nothing any more."""
        state = self.state
        if state.is_root:
            return
        name, served = state.config.name, state.journal.served
        if served.seq:
            if self._life is not None:
                self._note(Ack(name, self._life, served.version))
        elif self._acks.pop(name, None) is not None:
            self._untold.pop(name, None)
            self._life = None

    def on_beacon(self) -> None:
        """A newer beacon came: it may name our life, and says whether receipts are wanted."""
        state = self.state
        if self._life is None and state.beacon > self._lives_after:
            self._life = self._lives_after = state.beacon
            self.on_served()
        if state.wants_receipts and not self._is_wanted:
            for parent in state.parents.values():
                parent.is_told = False  # what changed while nobody wanted it
            state.set_timer_earlier("receipts", state.now)
        self._is_wanted = state.wants_receipts

    def on_acks(self, peer: str, acks: tuple[Ack, ...]) -> None:
        """Take what a child tells. The root passes it on to whoever waits, unless it can't be.

        A node that isn't our child tells its parents what it tells us.
        """
        state = self.state
        if peer not in state.children:
            return
        if not state.is_root:
            for ack in acks:
                self._note(ack)
            return
        came = tuple(ack for ack in acks if self._can_be(ack) and self._is_newer(ack))
        for ack in came:
            self._acks[ack.member] = ack
        if came:
            state.out.append(AcksCame(came))

    def _can_be(self, ack: Ack) -> bool:
        """Whether, at the root, nothing is told that we haven't sent, and of no life that hasn't begun."""
        tip = self.state.tip
        return (ack.version.epoch, ack.version.seq) <= tip[:2] and ack.life <= self.state.beacon

    def _is_newer(self, ack: Ack) -> bool:
        known = self._acks.get(ack.member)
        if known is None:
            return ack.member in self.state.config.members
        return (ack.life, ack.version) > (known.life, known.version)

    def _note(self, ack: Ack) -> None:
        if not self._is_newer(ack):
            return
        self._acks[ack.member] = ack
        if self._is_wanted:
            self._untold[ack.member] = None
            self.state.set_timer_earlier("receipts", max(self.state.now, self._told_at + TELL_AGAIN_MS))

    def tell(self) -> None:
        """Tell our parents what they don't know."""
        state = self.state
        changed = tuple(self._acks[member] for member in self._untold)
        self._untold.clear()
        if not self._is_wanted:
            return
        self._told_at = state.now
        for parent in state.parents.values():
            acks = changed if parent.is_told else tuple(self._acks.values())
            parent.is_told = True
            if acks:
                state.send(parent.name, Acks(acks))

    def check_invariants(self) -> None:
        """Assert what must hold between any two events; it is called after each."""
        assert len(self._acks) <= len(self.state.config.members), "acks of more members than there are"
