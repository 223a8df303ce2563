"""The giving side of a bootstrap: pages for nodes that can't be served frames from where they stand.

Any verified node gives them, to two receivers at a time. A receiver is a cursor and a credit, not a queue: one
page is read when the one before it has left, as long as there is credit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kvnet.core.events import BulkSend, SendPage
from kvnet.core.messages import PAGES_CREDIT_MAX, PagesCredit, PagesRefused, PagesWanted
from kvnet.core.state import NodeState

RECEIVERS_MAX: Final = 2
SILENCE_MS: Final = 30_000.0
"""A receiver that says nothing for this long makes room for another one."""


@dataclass(slots=True)
class _Receiver:
    """One who takes pages of us."""

    after: bytes
    credit: int
    heard_at: float
    reading: bool = False
    """A page is being read for it."""
    restarted: bool = False
    """That page is of where it was before."""


class Donor:
    """Who takes pages of us, and how far each is."""

    def __init__(self, state: NodeState) -> None:
        self.state = state
        self.pages_sent = 0
        self._receivers: dict[str, _Receiver] = {}

    @property
    def receiver_count(self) -> int:
        return len(self._receivers)

    def on_wanted(self, peer: str, message: PagesWanted) -> None:
        state = self.state
        journal = state.journal
        self._forget_silent()
        full = peer not in self._receivers and len(self._receivers) >= RECEIVERS_MAX
        if full or not journal.verified or journal.bootstrap is not None or state.is_barred(peer):
            state.out.append(BulkSend(peer, PagesRefused(state.applied)))
            return
        receiver = self._receivers.get(peer)
        if receiver is None:
            receiver = self._receivers[peer] = _Receiver(message.after, message.credit, state.now)
        else:
            receiver.after, receiver.credit, receiver.heard_at = message.after, message.credit, state.now
            receiver.restarted = receiver.reading
        self._send(peer, receiver)

    def on_credit(self, peer: str, message: PagesCredit) -> None:
        receiver = self._receivers.get(peer)
        if receiver is not None:
            receiver.credit = min(PAGES_CREDIT_MAX, receiver.credit + message.credit)
            receiver.heard_at = self.state.now
            self._send(peer, receiver)

    def on_sent(self, peer: str, until: bytes) -> None:
        """A page has left; the next one may."""
        receiver = self._receivers.get(peer)
        if receiver is None or not receiver.reading:
            return
        self.pages_sent += 1
        receiver.reading = False
        if receiver.restarted:
            receiver.restarted = False
        elif not until:
            del self._receivers[peer]
            return
        else:
            receiver.after = until
        self._send(peer, receiver)

    def forget(self, peer: str) -> None:
        """A receiver is gone, or takes no more."""
        self._receivers.pop(peer, None)

    def stop(self) -> None:
        """Our replica is no longer what it was: nobody is given more of it."""
        for peer in self._receivers:
            self.state.out.append(BulkSend(peer, PagesRefused(self.state.applied)))
        self._receivers.clear()

    def _send(self, peer: str, receiver: _Receiver) -> None:
        if receiver.credit > 0 and not receiver.reading:
            receiver.credit -= 1
            receiver.reading = True
            self.state.out.append(SendPage(peer, receiver.after))

    def _forget_silent(self) -> None:
        silent = [p for p, r in self._receivers.items() if self.state.now - r.heard_at >= SILENCE_MS]
        for peer in silent:
            del self._receivers[peer]
