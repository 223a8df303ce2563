"""Chunks that are fetched: of what is offered, and before all else what an entry needs to be applied.

One source is asked at a time; who says nothing, or has it not, is left for the next. What is offered is asked of
whoever offered it. What an entry needs our parents have, or will: who waits, waits up the tree, and its root, the
coordinator, has all that it ever made durable and that is still of use. So a parent that was silent is asked again
between the others, who may be waiting themselves.

A chunk that we are asked for and that is on its way to us is sent on as soon as it is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from math import inf
from typing import Final

from kvnet.core.events import BulkSend, SendChunk, StoreChunk
from kvnet.core.messages import Chunk, ChunkMissing, ChunksWanted
from kvnet.core.state import NEVER, NodeState

OUTSTANDING_MAX: Final = 12
"""Chunks asked for and not stored yet: 3 MiB, which is what a large value costs a node in memory."""
KEPT_ASKS_MAX: Final = 1024
"""Asks for chunks that are on their way to us; beyond them the answer is that we don't have it."""
SILENCE_MS: Final = 2000.0
"""A source that was asked and says nothing for this long isn't waited for; longer at each further round."""
PATIENCE_ROUNDS_MAX: Final = 8
PATIENCE_MAX: Final = 8.0
"""By how much that grows while sources turn out to have been left too early."""
PATIENCE_DECAY: Final = 0.98
"""What is kept of that growth with each chunk that comes in time."""
ROUND_AGAIN_MS: Final = 1000.0
"""When nobody had a chunk, all are asked again after this time."""
SILENT_LINK_MS: Final = 7000.0
"""A source that says nothing on its other link either for this long, in which an advert was due, isn't slow."""
HASTY_MS: Final = 500.0
"""A source is left for one that is sure to know only when it has sent nothing for this long."""
IN_VAIN_MS: Final = 5000.0
IN_VAIN_MS_MAX: Final = 10_000.0
"""Nothing of what an entry needs has come for so long: it is given up, when all were asked; in any case."""
PASSED_BY: Final = 2
"""So many neighbours that are past an entry and have its chunks no more speak for all."""


@dataclass(slots=True)
class _Want:
    """A chunk that we fetch."""

    source: str = ""
    """Whom it was asked of, "" while it isn't; or who sent it, while it is being stored."""
    asked_at: float = NEVER
    """The last time that it was; whatever comes of it later is taken."""
    storing: bool = False
    tried: dict[str, float] = field(default_factory=dict)
    """Who didn't give it in this round, and since when; inf if it said that it hasn't got it."""
    rounds: int = 0
    not_before: float = NEVER
    deniers: dict[str, None] = field(default_factory=dict)
    """Who has ever said that it hasn't got it."""
    askers: dict[str, None] = field(default_factory=dict)
    """Who asked us for it meanwhile."""

    def fail(self, at: float) -> None:
        """Its source didn't give it: the next one is asked."""
        self.tried[self.source] = at
        self.source = ""
        self.storing = False


def _nobody(name: bytes) -> Iterable[str]:
    """Tell who offers a chunk where nothing is offered."""
    del name
    return ()


class Fetching:
    """The chunks that we fetch and are asked for."""

    def __init__(self, state: NodeState) -> None:
        self.state = state
        self.offerers_of: Callable[[bytes], Iterable[str]] = _nobody
        """Who has offered a chunk that we lack."""
        self.chunks_received = 0
        self.chunks_unwanted = 0
        """Received when they were here already, or not asked for any more."""
        self._wants: dict[bytes, _Want] = {}
        """In the order in which they are fetched."""
        self._urgent: dict[bytes, None] = {}
        """Those of them that an entry needs now: they come first."""
        self._urgent_at = NEVER
        """When the last of these came, or the first was needed."""
        self._heard_at: dict[str, float] = {}
        """When those who were asked last sent anything."""
        self._patience = 1.0
        """On links or machines that are busy, chunks asked for twice would come twice, and keep them busy."""
        self._kept_asks = 0

    @property
    def wanted(self) -> AbstractSet[bytes]:
        return self._wants.keys()

    @property
    def needed_count(self) -> int:
        return len(self._urgent)

    @property
    def kept_ask_count(self) -> int:
        return self._kept_asks

    @property
    def wait_in_vain(self) -> bool:
        """Whether an entry needs chunks that nobody gives: for long, though everybody was asked, or very long."""
        waited_ms = self.state.now - self._urgent_at
        if not self._urgent or waited_ms < IN_VAIN_MS:
            return False
        return waited_ms >= IN_VAIN_MS_MAX or any(self._wants[name].rounds for name in self._urgent)

    @property
    def are_passed_by(self) -> bool:
        """Whether others have what needs these chunks behind them, and keep them no more.

        The coordinator's word is enough, or that of two who have applied more than we have, or of one when all
        were asked.
        """
        return any(self._is_passed_by(self._wants[name]) for name in self._urgent)

    def _is_passed_by(self, want: _Want) -> bool:
        root, neighbours = self.state.config.root, self.state.neighbours
        past = [peer for peer in want.deniers if self._is_past(peer) or (peer == root and root not in neighbours)]
        return len(past) >= PASSED_BY or root in past or (bool(past) and want.rounds > 0)

    # -- for us ----------------------------------------------------------------------------------------------

    def want(self, names: Iterable[bytes]) -> None:
        """Fetch these with the next `fetch`, behind what is wanted already."""
        for name in names:
            self._wants.setdefault(name, _Want())

    def on_lacking(self, hashes: Iterable[bytes]) -> None:
        """An entry needs these chunks now: nothing else is applied before they are here."""
        state = self.state
        missing = state.journal.lacking_chunks(tuple(hashes))
        new = [name for name in missing if name not in self._urgent]
        if not new:
            return
        parents = self._parents()
        if not self._urgent:
            self._urgent_at = state.now
            state.lacks_chunks = True
        for name in new:
            self._urgent[name] = None
            want = self._wants.setdefault(name, _Want())
            want.not_before = NEVER
            is_asked = want.source and not want.storing
            is_silent = self._heard_at.get(want.source, NEVER) < want.asked_at
            is_late = want.asked_at <= state.now - SILENCE_MS
            if is_asked and parents and want.source != parents[0] and (is_silent or is_late):
                want.fail(state.now)  # it may be waiting for us
        self.state.report("chunks", f"an entry waits for {len(self._urgent)} chunks, which are being fetched")
        self.fetch()

    def on_ahead(self, peer: str) -> None:
        """A neighbour tells where it stands: who has applied what we can't has chunks, or needs none."""
        if not self._urgent or not self._is_past(peer):
            return
        for want in map(self._wants.__getitem__, self._urgent):
            asked_long = want.asked_at <= self.state.now - HASTY_MS > self._heard_at.get(want.source, NEVER)
            is_worse = want.source and asked_long and not self._is_past(want.source)
            if is_worse and not want.storing and peer not in want.tried:
                want.fail(self.state.now)
        self.fetch()

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
        if want is None:
            return
        want.deniers[peer] = None
        if want.source == peer and not want.storing:
            want.fail(inf)
            self.fetch()

    def on_stored(self, name: bytes, *, ok: bool) -> bool:
        """A chunk is here, for our entry and all who asked for it; or not, and another one is asked.

        Return whether it is; `fetch` comes next.
        """
        state = self.state
        want = self._wants.get(name)
        if not ok:
            if want is not None and want.storing:
                state.report("chunks", f"{want.source} sent a chunk that couldn't be stored; another is asked")
                want.fail(inf)
                self.fetch()
            return False
        if want is not None:
            del self._wants[name]
            self._kept_asks -= len(want.askers)
            for peer in want.askers:
                state.out.append(SendChunk(peer, name))
        if self._urgent.pop(name, "no") is None:
            self._urgent_at = state.now
            state.lacks_chunks = bool(self._urgent)
            if not self._urgent:
                state.report("chunks", "what an entry waited for is here")
        return True

    def on_bulk_lost(self, peer: str) -> None:
        self._heard_at.pop(peer, None)
        for want in self._wants.values():
            if want.askers.pop(peer, "no") is None:
                self._kept_asks -= 1
        self._leave_source(peer)
        self.fetch()

    def on_lost(self, peer: str) -> None:
        """The link with a peer is gone: its bulk link may stand on, but will hardly bring anything."""
        if self._leave_source(peer):
            self.fetch()

    def _leave_source(self, peer: str) -> bool:
        """Ask others for what was asked of this one; return whether that was anything."""
        asked = [want for want in self._wants.values() if want.source == peer and not want.storing]
        for want in asked:
            want.fail(self.state.now)
        return bool(asked)

    def forget_needs(self, offered: Collection[bytes]) -> None:
        """No entry needs any chunk now; what isn't offered either isn't fetched any more."""
        for name in [name for name in self._urgent if name not in offered]:
            self._drop(name)
        self._urgent.clear()
        self.state.lacks_chunks = False

    def forget(self, names: Iterable[bytes], offered: Collection[bytes]) -> None:
        """Fetch these no more, unless an entry needs them or another offer names them."""
        for name in names:
            if name not in offered and name not in self._urgent:
                self._drop(name)

    def start_over(self) -> None:
        """Nothing is wanted, nor needed."""
        for name in list(self._wants):
            self._drop(name)
        self._urgent.clear()
        self.state.lacks_chunks = False
        self._heard_at.clear()

    def _drop(self, name: bytes) -> None:
        want = self._wants.pop(name)
        self._kept_asks -= len(want.askers)
        for peer in want.askers:
            self.state.out.append(BulkSend(peer, ChunkMissing(name)))

    # -- whom to ask -----------------------------------------------------------------------------------------

    def fetch(self) -> None:
        """Ask for what is lacking, as many as may be outstanding, in order."""
        state = self.state
        room = self._room()
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

    def _room(self) -> int:
        """How many chunks more may be asked for; for what an entry needs, asks for others are taken back."""
        room = OUTSTANDING_MAX - sum(1 for want in self._wants.values() if want.source)
        waiting = sum(1 for name in self._urgent if not self._wants[name].source)
        for name, want in reversed(self._wants.items()):
            if room >= min(waiting, OUTSTANDING_MAX):
                break
            if want.source and not want.storing and name not in self._urgent:
                want.source = ""  # if it comes it is stored all the same
                room += 1
        return room

    def _in_order(self) -> Iterator[tuple[bytes, _Want]]:
        for name in self._urgent:
            yield name, self._wants[name]
        for name, want in self._wants.items():
            if name not in self._urgent:
                yield name, want

    def _next_source(self, name: bytes, want: _Want) -> str | None:
        untried = next((peer for peer in self._sources(name) if peer not in want.tried), None)
        if name in self._urgent and untried is not None:
            return next((parent for parent in self._parents() if self._may_ask_again(parent, want)), untried)
        return untried

    def _parents(self) -> list[str]:
        """Our parents, those nearest to the coordinator first, so that nobody waits in a circle."""
        state = self.state
        return sorted(
            state.parents, key=lambda name: (name != state.config.root, state.neighbours[name].cost_ms(), name)
        )

    def _may_ask_again(self, parent: str, want: _Want) -> bool:
        """Whether a parent wasn't asked yet, or was silent a while ago, or before it became our parent."""
        tried = want.tried.get(parent, NEVER)
        return tried <= self.state.now - ROUND_AGAIN_MS or tried < self.state.parents[parent].since

    def _sources(self, name: bytes) -> Iterator[str]:
        """Who may have a chunk: those who offered it, our parents, who is near; at last the coordinator.

        For what an entry needs now, those come first that have applied it.
        """
        state = self.state
        root = state.config.root
        if name in self._urgent:
            past = [n for n in state.neighbours.values() if self._is_past(n.name)]
            yield from (n.name for n in sorted(past, key=lambda n: (n.rtt_ms, n.name)))
        yield from self.offerers_of(name)
        yield from (peer for peer in state.parents if peer != root)
        told = [n for n in state.neighbours.values() if n.advert is not None and n.name != root]
        yield from (n.name for n in sorted(told, key=lambda n: (n.rtt_ms, n.name)))
        if not state.is_root:
            yield root

    def _is_past(self, peer: str) -> bool:
        """Whether a neighbour has applied more than we have, and so what we can't."""
        neighbour = self.state.neighbours.get(peer)
        advert = None if neighbour is None else neighbour.advert
        return advert is not None and advert.position[:2] > self.state.applied[:2]

    # -- for others ------------------------------------------------------------------------------------------

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
        """Leave silent sources, and try again."""
        now = self.state.now
        for name, want in self._wants.items():
            if want.source and not want.storing and now >= self._patient_until(name, want):
                want.fail(now)
        self.fetch()
        waiting_on = {want.source for want in self._wants.values() if want.source}
        for peer in [peer for peer in self._heard_at if peer not in waiting_on]:
            del self._heard_at[peer]

    def _patient_until(self, name: bytes, want: _Want) -> float:
        """When a source that was asked for a chunk, and has sent nothing since, is left."""
        state, source = self.state, want.source
        since = max(want.asked_at, self._heard_at.get(source, NEVER))
        neighbour, parent = state.neighbours.get(source), state.parents.get(source)
        if name in self._urgent and state.parents and parent is None and not self._is_past(source):
            return want.asked_at + SILENCE_MS  # it waits itself, maybe for whoever waits for us
        until = since + SILENCE_MS * self._patience * min(want.rounds + 1, PATIENCE_ROUNDS_MAX)
        if neighbour is None or want.rounds:
            return until
        heard_at = max(neighbour.advert_at, parent.heard_at if parent is not None else NEVER)
        return min(until, max(want.asked_at, heard_at) + SILENT_LINK_MS)

    def due(self) -> float:
        """Return when somebody is to be left, or asked again; inf for never."""
        now, due = self.state.now, inf
        for name, want in self._wants.items():
            if not want.source:
                due = min(due, want.not_before if want.not_before > now else inf)
            elif not want.storing:
                due = min(due, self._patient_until(name, want))
        return due

    def check_invariants(self) -> None:
        asked = sum(1 for want in self._wants.values() if want.source and not want.storing)
        assert asked <= OUTSTANDING_MAX, "too many chunks outstanding"
        assert self._kept_asks == sum(len(want.askers) for want in self._wants.values())
        assert self._kept_asks <= KEPT_ASKS_MAX, "too many asks kept"
        assert self._urgent.keys() <= self._wants.keys(), "an entry waits for a chunk that nobody fetches"
