"""Large values: their chunks travel ahead of the entry that makes them visible.

    offer     the coordinator offers a value's chunks to its children, each passes the offer on to its own at once
    fetch     a node wants what it lacks from whoever offered it, twelve chunks at a time; a chunk that it is asked
              for and hasn't got yet is sent on as soon as it is stored, so chunks flow down the tree in a pipeline
    echo      a node that holds all, and whose children said so too, says so to the first that offered it

That is propagation of information with feedback (Segall, "Distributed network protocols", 1983), over the tree
that frames take. The coordinator sequences the entry when its children have said so, or after 6 s: an offer saves
time, nothing rests on it. A node that has the entry and not the chunks stops there and fetches them from anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Final

from kvnet.core.events import BulkSend, OfferSettled, SendChunk, StoreChunk
from kvnet.core.messages import Chunk, ChunkMissing, ChunksWanted, Holds, Offer
from kvnet.core.state import NEVER, NodeState

OUTSTANDING_MAX: Final = 12
"""Chunks asked for and not stored yet: 3 MiB, which is what a large value costs a node in memory."""
OFFERS_MAX: Final = 64
FORGOTTEN_MAX: Final = 1024
"""Offers whose ids are remembered when they are forgotten, so that none goes round twice."""
KEPT_ASKS_MAX: Final = 1024
"""Asks for chunks that are on their way to us; beyond them the answer is that we don't have it."""
SETTLE_MS: Final = 6000.0
OFFER_AGAIN_MS: Final = 30_000.0
"""A new child is given the offers of this time."""
OFFER_LIFE_MS: Final = 60_000.0
SILENCE_MS: Final = 2000.0
"""A source that was asked and says nothing for this long isn't waited for; longer at each further round."""
PATIENCE_ROUNDS_MAX: Final = 8
PATIENCE_MAX: Final = 8.0
"""By how much that grows while sources turn out to have been left too early."""
PATIENCE_DECAY: Final = 0.98
"""What is kept of that growth with each chunk that comes in time."""
ROUND_AGAIN_MS: Final = 1000.0
"""When nobody had a chunk, all are asked again after this time."""
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


@dataclass(slots=True)
class _Want:
    """A chunk that we fetch."""

    source: str = ""
    """Whom it was asked of, "" while it isn't; or who sent it, while it is being stored."""
    asked_at: float = NEVER
    """The last time that it was; whatever comes of it later is taken."""
    storing: bool = False
    tried: dict[str, None] = field(default_factory=dict)
    """Who didn't give it in this round."""
    rounds: int = 0
    not_before: float = NEVER
    askers: dict[str, None] = field(default_factory=dict)
    """Who asked us for it meanwhile."""

    def fail(self) -> None:
        """Its source didn't give it: the next one is asked."""
        self.tried[self.source] = None
        self.source = ""
        self.storing = False


class Offers:
    """The large values on their way, and the chunks that we fetch and are asked for."""

    def __init__(self, state: NodeState) -> None:
        self.state = state
        self.chunks_received = 0
        self.chunks_unwanted = 0
        """Received when they were here already, or not asked for any more."""
        self._offers: dict[bytes, _Offer] = {}
        self._forgotten: dict[bytes, None] = {}
        """Ids of offers that were here, the oldest first."""
        self._wants: dict[bytes, _Want] = {}
        """In the order in which they are fetched."""
        self._urgent: dict[bytes, None] = {}
        """Those of them that an entry needs now: they come first."""
        self._heard_at: dict[str, float] = {}
        """When those who were asked last sent anything."""
        self._patience = 1.0
        """On links or machines that are busy, chunks asked for twice would come twice, and keep them busy."""
        self._kept_asks = 0

    @property
    def offer_count(self) -> int:
        return len(self._offers)

    @property
    def wanted_count(self) -> int:
        return len(self._wants)

    @property
    def kept_ask_count(self) -> int:
        return self._kept_asks

    def status(self) -> dict[str, int]:
        """What `/status` tells about this part; what came, and came in vain, is counted since the start."""
        return {
            "offers": len(self._offers),
            "chunks_wanted": len(self._wants),
            "chunks_needed_now": len(self._urgent),
            "chunks_received": self.chunks_received,
            "chunks_unwanted": self.chunks_unwanted,
        }

    # -- offers ----------------------------------------------------------------------------------------------

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
            for name in lacking:
                self._wants.setdefault(name, _Want())
            offer = _Offer(message.id, message.chunks, state.now, peer, lacking)
            offer.offerers[peer] = None
            self._add(offer)
            self._fetch()
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
        needed = self._urgent.keys() | {name for other in self._offers.values() for name in other.lacking}
        for name in offer.lacking:
            if name not in needed:
                self._drop(name)

    # -- chunks for us ---------------------------------------------------------------------------------------

    def on_lacking(self, hashes: Iterable[bytes]) -> None:
        """An entry needs these chunks now: nothing else is applied before they are here."""
        state = self.state
        missing = state.journal.lacking_chunks(tuple(hashes))
        new = [name for name in missing if name not in self._urgent]
        if not new:
            return
        for name in new:
            self._urgent[name] = None
            want = self._wants.setdefault(name, _Want())
            want.not_before = NEVER
            if want.source and not want.storing and state.parents and want.source not in state.parents:
                want.fail()  # it may be waiting for us
        self.state.report("chunks", f"an entry waits for {len(self._urgent)} chunks, which are being fetched")
        self._fetch()

    def on_chunk(self, peer: str, message: Chunk) -> None:
        self.chunks_received += 1
        self._heard_at[peer] = self.state.now
        want = self._wants.get(message.hash)
        if want is None or want.storing or peer in want.tried:
            self._patience = min(PATIENCE_MAX, self._patience * 2)  # it was left too early
        else:
            self._patience = max(1.0, self._patience * PATIENCE_DECAY)
        if want is None or want.storing or want.asked_at == NEVER:
            self.chunks_unwanted += 1
            return
        want.source = peer
        want.storing = True
        self.state.out.append(StoreChunk(message.hash, message.data))

    def on_missing(self, peer: str, name: bytes) -> None:
        self._heard_at[peer] = self.state.now
        want = self._wants.get(name)
        if want is not None and want.source == peer and not want.storing:
            want.fail()
            self._fetch()

    def on_stored(self, name: bytes, *, ok: bool) -> None:
        """A chunk is here, for our entry, our offers, and all who asked for it."""
        state = self.state
        want = self._wants.get(name)
        if not ok:
            if want is not None and want.storing:
                state.report("chunks", f"{want.source} sent a chunk that couldn't be stored; another is asked")
                want.fail()
                self._fetch()
            return
        if want is not None:
            del self._wants[name]
            self._kept_asks -= len(want.askers)
            for peer in want.askers:
                state.out.append(SendChunk(peer, name))
        if self._urgent.pop(name, "no") is None and not self._urgent:
            state.report("chunks", "what an entry waited for is here")
        for offer in self._offers.values():
            if offer.lacking.pop(name, "no") is None:
                self._review(offer)
        self._fetch()

    def on_bulk_lost(self, peer: str) -> None:
        self._heard_at.pop(peer, None)
        for want in self._wants.values():
            if want.askers.pop(peer, "no") is None:
                self._kept_asks -= 1
            if want.source == peer and not want.storing:
                want.fail()
        self._fetch()

    def _drop(self, name: bytes) -> None:
        want = self._wants.pop(name)
        self._kept_asks -= len(want.askers)
        for peer in want.askers:
            self.state.out.append(BulkSend(peer, ChunkMissing(name)))

    def _outstanding(self) -> int:
        return sum(1 for want in self._wants.values() if want.source)

    def _in_order(self) -> Iterator[tuple[bytes, _Want]]:
        for name in self._urgent:
            yield name, self._wants[name]
        for name, want in self._wants.items():
            if name not in self._urgent:
                yield name, want

    def _fetch(self) -> None:
        """Ask for what is lacking, as many as may be outstanding, in order."""
        state = self.state
        room = OUTSTANDING_MAX - self._outstanding()
        asks: dict[str, list[bytes]] = {}
        if room > 0:
            for name, want in self._in_order():
                if want.source or want.not_before > state.now:
                    continue
                source = self._next_source(name, want)
                if source is None:
                    want.tried.clear()
                    want.rounds += 1
                    want.not_before = state.now + state.jittered(ROUND_AGAIN_MS)
                    state.set_timer_earlier("offers", want.not_before)
                    continue
                want.source, want.asked_at = source, state.now
                asks.setdefault(source, []).append(name)
                room -= 1
                if not room:
                    break
        for source, names in asks.items():
            state.out.append(BulkSend(source, ChunksWanted(tuple(names))))
            state.set_timer_earlier("offers", state.now + SILENCE_MS)

    def _next_source(self, name: bytes, want: _Want) -> str | None:
        return next((peer for peer in self._sources(name) if peer not in want.tried), None)

    def _sources(self, name: bytes) -> Iterator[str]:
        """Who may have a chunk: those who offered it, our parents, who is near; at last the coordinator.

        What an entry needs now our parents have, or will. If those who wait for each other had nobody above them,
        they would wait in a circle until their patience ends.
        """
        state = self.state
        root = state.config.root
        if name in self._urgent:
            yield from state.parents  # the coordinator as well: whoever waits for another then waits up the tree
        for offer in self._offers.values():
            if name in offer.lacking:
                yield from offer.offerers
        yield from (peer for peer in state.parents if peer != root)
        told = [n for n in state.neighbours.values() if n.advert is not None and n.name != root]
        yield from (n.name for n in sorted(told, key=lambda n: (n.rtt_ms, n.name)))
        if not state.is_root:
            yield root

    # -- chunks for others -----------------------------------------------------------------------------------

    def on_wanted(self, peer: str, message: ChunksWanted) -> None:
        """Send what is here; what is on its way to us is sent when it comes."""
        state = self.state
        for name in message.hashes:
            want = self._wants.get(name)
            if want is None:
                state.out.append(SendChunk(peer, name))
            elif want.source == peer or self._kept_asks >= KEPT_ASKS_MAX:
                state.out.append(BulkSend(peer, ChunkMissing(name)))
            elif peer not in want.askers:
                want.askers[peer] = None
                self._kept_asks += 1

    # -- time ------------------------------------------------------------------------------------------------

    def on_timer(self) -> None:
        """Leave silent sources, try again, forget old offers."""
        state = self.state
        now = state.now
        for offer in list(self._offers.values()):
            age = now - offer.at
            if state.is_root and age >= SETTLE_MS:
                self._settle(offer)
            if age >= OFFER_LIFE_MS or (offer.settled and not offer.lacking and age >= OFFER_AGAIN_MS):
                self._forget(offer)
            else:
                self._review(offer)
        for want in self._wants.values():
            if want.source and not want.storing and now >= self._patient_until(want):
                want.fail()
        self._fetch()
        waiting_on = {want.source for want in self._wants.values() if want.source}
        for peer in [peer for peer in self._heard_at if peer not in waiting_on]:
            del self._heard_at[peer]
        self._set_timer()

    def _patient_until(self, want: _Want) -> float:
        patience = self._patience * min(want.rounds + 1, PATIENCE_ROUNDS_MAX)
        return max(want.asked_at, self._heard_at.get(want.source, NEVER)) + SILENCE_MS * patience

    def _set_timer(self) -> None:
        """Come back for whatever is due next."""
        now = self.state.now
        due = inf
        for offer in self._offers.values():
            if not offer.settled:
                due = min(due, now + LOOK_MS)
            due = min(due, offer.at + (OFFER_AGAIN_MS if offer.settled else OFFER_LIFE_MS))
            if offer.lacking:
                due = min(due, offer.at + OFFER_LIFE_MS)
        for want in self._wants.values():
            if not want.source:
                due = min(due, want.not_before if want.not_before > now else inf)
            elif not want.storing:
                due = min(due, self._patient_until(want))
        if due < inf:
            self.state.set_timer_earlier("offers", max(due, now + 1.0))

    def start_over(self) -> None:
        """The replica was thrown away, and its chunks with it."""
        for name in list(self._wants):
            self._drop(name)
        self._urgent.clear()
        self._heard_at.clear()
        if self.state.is_root:
            for offer in self._offers.values():
                self._settle(offer)
        self._offers.clear()

    def check_invariants(self) -> None:
        assert len(self._offers) <= OFFERS_MAX, "too many offers"
        asked = sum(1 for want in self._wants.values() if want.source and not want.storing)
        assert asked <= OUTSTANDING_MAX, "too many chunks outstanding"
        assert self._kept_asks == sum(len(want.askers) for want in self._wants.values())
        assert self._kept_asks <= KEPT_ASKS_MAX, "too many asks kept"
        assert self._urgent.keys() <= self._wants.keys(), "an entry waits for a chunk that nobody fetches"
        for offer in self._offers.values():
            assert offer.lacking.keys() <= self._wants.keys(), "an offer waits for a chunk that nobody fetches"
            assert not (offer.settled and offer.lacking and not self.state.is_root), "settled without its chunks"
