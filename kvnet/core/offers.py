"""Large values: their chunks travel ahead of the entry that makes them visible.

    offer     the coordinator offers a value's chunks to its children, each passes the offer on to its own at once
    fetch     a node wants what it lacks from whoever offered it (fetching.py), and sends it on as soon as it is
              stored, so chunks flow down the tree in a pipeline
    echo      a node that holds all, and whose children said so too, says so to the first that offered it

That is propagation of information with feedback (Segall, "Distributed network protocols", 1983), over the tree
that frames take. The coordinator sequences the entry when its children have said so, or after 6 s: an offer saves
time, nothing rests on it. A node that has the entry and not the chunks stops there and fetches them from anybody.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Final

from kvnet.core.events import OfferSettled
from kvnet.core.fetching import Fetching
from kvnet.core.messages import Holds, Offer
from kvnet.core.state import NodeState

OFFERS_MAX: Final = 64
FORGOTTEN_MAX: Final = 1024
"""Offers whose ids are remembered when they are forgotten, so that none goes round twice."""
SETTLE_MS: Final = 6000.0
OFFER_AGAIN_MS: Final = 30_000.0
"""A new child is given the offers of this time."""
OFFER_LIFE_MS: Final = 60_000.0
LOOK_MS: Final = 500.0
"""How often a node looks whether the children it waits for are still its children."""


@dataclass(slots=True)
class _Offer:
    """A large value on its way."""

    id: bytes
    chunks: tuple[bytes, ...]
    at: float
    first: str
    """Who offered it first and waits for our children as well; "" for our own."""
    lacking: dict[bytes, None]
    """Those of its chunks that aren't stored here."""
    offerers: dict[str, None] = field(default_factory=dict)
    """All who offered it: they have its chunks, or will."""
    unanswered: dict[str, None] = field(default_factory=dict)
    """Later offerers, who wait for ourselves only."""
    told: dict[str, None] = field(default_factory=dict)
    """Children that it was passed on to."""
    awaited: dict[str, None] = field(default_factory=dict)
    """Those of them that haven't said that they hold it."""
    settled: bool = False


class Offers:
    """The large values on their way."""

    def __init__(self, state: NodeState, fetching: Fetching) -> None:
        self.state = state
        self.fetching = fetching
        fetching.offerers_of = self._offerers_of
        self._offers: dict[bytes, _Offer] = {}
        self._forgotten: dict[bytes, None] = {}
        """Ids of offers that were here, the oldest first."""

    @property
    def offer_count(self) -> int:
        return len(self._offers)

    def status(self) -> dict[str, int]:
        """What `/status` tells about large values; what came, and came in vain, is counted since the start."""
        fetching = self.fetching
        return {
            "offers": len(self._offers),
            "chunks_wanted": len(fetching.wanted),
            "chunks_needed_now": fetching.needed_count,
            "chunks_received": fetching.chunks_received,
            "chunks_unwanted": fetching.chunks_unwanted,
        }

    def _offerers_of(self, name: bytes) -> Iterator[str]:
        for offer in self._offers.values():
            if name in offer.lacking:
                yield from offer.offerers

    def _lacking(self) -> set[bytes]:
        """What any offer lacks."""
        return {name for offer in self._offers.values() for name in offer.lacking}

    def begin(self, id_: bytes, chunks: tuple[bytes, ...]) -> None:
        """At the coordinator: offer what is durable here to all."""
        self._make_room()
        self._add(_Offer(id_, chunks, self.state.now, "", {}))

    def on_offer(self, peer: str, message: Offer) -> None:
        """Fetch what a neighbour offers and pass the offer on; from a second one it is another source."""
        state = self.state
        if state.is_root or state.is_barred(peer):
            return
        offer = self._offers.get(message.id)
        if offer is None and message.id in self._forgotten:
            # It has been round already. Passing it on again, whoever has forgotten it too would pass it back.
            if not state.journal.lacking_chunks(message.chunks):
                state.send(peer, Holds(message.id))
            return
        if offer is None:
            self._make_room()
            lacking = dict.fromkeys(state.journal.lacking_chunks(message.chunks))
            self.fetching.want(lacking)
            offer = _Offer(message.id, message.chunks, state.now, peer, lacking)
            offer.offerers[peer] = None
            self._add(offer)
            self.fetching.fetch()
            return
        offer.offerers[peer] = None
        if not offer.first:
            offer.first = peer
        if offer.first != peer:
            offer.unanswered[peer] = None
        elif offer.settled:
            state.send(peer, Holds(offer.id))  # it was lost with a link
        self._review(offer)

    def _make_room(self) -> None:
        if len(self._offers) >= OFFERS_MAX:
            self._forget(next(iter(self._offers.values())))

    def _add(self, offer: _Offer) -> None:
        self._offers[offer.id] = offer
        for child in self.state.children:
            self._pass_on(offer, child)
        self._review(offer)
        self.state.set_timer_earlier("offers", self.state.now + LOOK_MS)

    def _pass_on(self, offer: _Offer, child: str) -> None:
        if child in offer.offerers or child in offer.told:
            return
        offer.told[child] = None
        if not offer.settled:
            offer.awaited[child] = None
        self.state.send(child, Offer(offer.id, offer.chunks))

    def on_child(self, child: str) -> None:
        """A peer subscribed: it is given what is still on its way."""
        for offer in self._offers.values():
            if self.state.now - offer.at < OFFER_AGAIN_MS:
                self._pass_on(offer, child)

    def on_holds(self, peer: str, id_: bytes) -> None:
        offer = self._offers.get(id_)
        if offer is not None:
            offer.awaited.pop(peer, None)
            self._review(offer)

    def on_child_gone(self) -> None:
        """Some peer isn't our child any more: nobody waits for it."""
        for offer in self._offers.values():
            self._review(offer)

    def on_lost(self, peer: str) -> None:
        """A link is gone: what was said over it may not have come."""
        for offer in self._offers.values():
            offer.told.pop(peer, None)
            offer.offerers.pop(peer, None)
            offer.unanswered.pop(peer, None)
            if offer.first == peer and not self.state.is_root:
                offer.first = ""
        self.on_child_gone()
        self.fetching.on_lost(peer)

    def on_stored(self, name: bytes, *, ok: bool) -> None:
        """A chunk is here, or isn't what it was called."""
        if not self.fetching.on_stored(name, ok=ok):
            return
        for offer in self._offers.values():
            if offer.lacking.pop(name, "no") is None:
                self._review(offer)
        self.fetching.fetch()

    def _review(self, offer: _Offer) -> None:
        """Say that we hold it, to whoever should know and as soon as it is so."""
        state = self.state
        if offer.lacking:
            return
        for peer in offer.unanswered:
            state.send(peer, Holds(offer.id))
        offer.unanswered.clear()
        for child in list(offer.awaited):
            if child not in state.children:
                del offer.awaited[child]
        if not offer.awaited:
            self._settle(offer)

    def _settle(self, offer: _Offer) -> None:
        if offer.settled:
            return
        offer.settled = True
        offer.awaited.clear()
        if self.state.is_root:
            self.state.out.append(OfferSettled(offer.id))
        elif offer.first:
            self.state.send(offer.first, Holds(offer.id))

    def _forget(self, offer: _Offer) -> None:
        """Forget an offer; what nobody else waits for isn't fetched any more."""
        del self._offers[offer.id]
        self._forgotten[offer.id] = None
        if len(self._forgotten) > FORGOTTEN_MAX:
            del self._forgotten[next(iter(self._forgotten))]
        if self.state.is_root:
            self._settle(offer)
        self.fetching.forget(offer.lacking, self._lacking())

    def forget_needs(self) -> None:
        """No entry needs any chunk now."""
        self.fetching.forget_needs(self._lacking())

    def pass_by(self) -> None:
        """The replica was made anew: entries may be behind us by now whose chunks were offered and never came."""
        self.forget_needs()
        for offer in [offer for offer in self._offers.values() if offer.lacking]:
            self._forget(offer)

    def start_over(self) -> None:
        """The replica was thrown away, and its chunks with it."""
        self.fetching.start_over()
        if self.state.is_root:
            for offer in self._offers.values():
                self._settle(offer)
        self._offers.clear()

    # -- time ------------------------------------------------------------------------------------------------

    def on_timer(self) -> None:
        """Leave silent sources, try again, forget old offers."""
        state = self.state
        for offer in list(self._offers.values()):
            age = state.now - offer.at
            if state.is_root and age >= SETTLE_MS:
                self._settle(offer)
            if age >= OFFER_LIFE_MS or (offer.settled and not offer.lacking and age >= OFFER_AGAIN_MS):
                self._forget(offer)
            else:
                self._review(offer)
        self.fetching.on_timer()
        due = self.fetching.due()
        for offer in self._offers.values():
            if not offer.settled:
                due = min(due, state.now + LOOK_MS)
            due = min(due, offer.at + (OFFER_AGAIN_MS if offer.settled else OFFER_LIFE_MS))
            if offer.lacking:
                due = min(due, offer.at + OFFER_LIFE_MS)
        if due < inf:
            state.set_timer_earlier("offers", max(due, state.now + 1.0))

    def check_invariants(self) -> None:
        if self._offers or self.fetching.wanted or self.fetching.needed_count:
            self.fetching.check_invariants()
        wanted = self.fetching.wanted
        assert len(self._offers) <= OFFERS_MAX, "too many offers"
        for offer in self._offers.values():
            assert offer.lacking.keys() <= wanted, "an offer waits for a chunk that nobody fetches"
            assert not (offer.settled and offer.lacking and not self.state.is_root), "settled without its chunks"
