"""Large values for tests: their chunks, what their entries carry, and a node that is offered them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kvnet.core.events import (
    BulkReceived,
    BulkSend,
    ChunkStored,
    Event,
    OfferSettled,
    SendChunk,
    Started,
    StoreChunk,
)
from kvnet.core.manifest import CHUNK_BYTES
from kvnet.core.messages import BulkMessage, ChunkMissing, ChunksWanted
from kvnet.core.pieces import LargeValue, Pieces
from kvnet.core.versions import Position
from kvnet.simulator.journal import SimulatedJournal
from tests.support.conversation import Conversation


def large_value(chunks: int, *, mark: int = 0, last: int = CHUNK_BYTES) -> LargeValue:
    """A value of so many different chunks; another `mark` gives others, `last` is the bytes of the last one."""
    pieces = Pieces()
    for number in range(chunks):
        size = CHUNK_BYTES if number < chunks - 1 else last
        pieces.add((b"%d.%d " % (mark, number)).ljust(size, b"."))
    value = pieces.end()
    assert isinstance(value, LargeValue), "too short to be a large value"
    return value


def named(value: LargeValue) -> list[tuple[bytes, bytes]]:
    """Its chunks as a store takes them: (hash, data) each."""
    return list(zip(value.manifest.chunks, value.chunks, strict=True))


class _WithChunks:
    """A journal in memory, beside which chunks are kept; no successor is in the making."""

    bootstrap = None
    verified = True

    def __init__(self, journal: SimulatedJournal, chunks: set[bytes]) -> None:
        self._journal = journal
        self._chunks = chunks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    @property
    def served(self) -> Position:
        return self._journal.position

    def lacking_chunks(self, names: Sequence[bytes]) -> list[bytes]:
        return [each for each in dict.fromkeys(names) if each not in self._chunks]


class ChunkConversation(Conversation):
    """A node whose disk keeps chunks at once, and what it said over bulk links."""

    def __init__(self, name: str = "me", *, stored: Iterable[bytes] = (), **more: Any) -> None:
        super().__init__(name, start=False, **more)
        self.chunks = set(stored)
        self.stores = True
        """Whether the disk has a chunk at once."""
        self.state.journal = _WithChunks(self.journal, self.chunks)
        self._bulk: list[BulkSend | SendChunk] = []
        self._settled: list[bytes] = []
        self.hear(Started())

    def hear(self, event: Event) -> None:
        super().hear(event)
        effects = self.effects
        for effect in effects:
            match effect:
                case BulkSend() | SendChunk():
                    self._bulk.append(effect)
                case OfferSettled(id_):
                    self._settled.append(id_)
                case StoreChunk(name) if self.stores:
                    self.store(name)
        self.effects = effects

    def store(self, name: bytes, *, ok: bool = True) -> None:
        """The disk has taken a chunk, or found that it isn't what it is called."""
        if ok:
            self.chunks.add(name)
        self.hear(ChunkStored(name, ok))

    def receive_bulk(self, peer: str, *messages: BulkMessage) -> None:
        for message in messages:
            self.hear(BulkReceived(peer, message))

    def wanted(self) -> list[tuple[str, bytes]]:
        """Take out whom it asked for which chunks so far."""
        asked = [
            (effect.peer, name)
            for effect in self._bulk
            if isinstance(effect, BulkSend) and isinstance(effect.message, ChunksWanted)
            for name in effect.message.hashes
        ]
        self._bulk = [
            effect
            for effect in self._bulk
            if isinstance(effect, SendChunk) or not isinstance(effect.message, ChunksWanted)
        ]
        return asked

    def served(self) -> list[tuple[str, bytes]]:
        """Take out which chunks it gave to whom so far."""
        given = [(effect.peer, effect.hash) for effect in self._bulk if isinstance(effect, SendChunk)]
        self._bulk = [effect for effect in self._bulk if isinstance(effect, BulkSend)]
        return given

    def denied(self) -> list[tuple[str, bytes]]:
        """Take out whom it said so far that it has a chunk not."""
        answers = [effect for effect in self._bulk if isinstance(effect, BulkSend)]
        told = [(each.peer, each.message.hash) for each in answers if isinstance(each.message, ChunkMissing)]
        self._bulk = [
            effect
            for effect in self._bulk
            if isinstance(effect, SendChunk) or not isinstance(effect.message, ChunkMissing)
        ]
        return told

    def settled(self) -> list[bytes]:
        """Take out which offers it declared settled so far."""
        settled, self._settled = self._settled, []
        return settled
