"""Torture beyond TCP: single messages are lost, repeated, late, said again much later, or changed.

No connection does that while it lives. The protocol promises nothing about time under it, but safety it does: what
is changed on the way is found out by the checksum of its message and costs the connection, as in the transport.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final, Protocol

from kvnet.core.messages import Chunk, Message, Page, decode, encode
from kvnet.errors import ProtocolError
from kvnet.simulator.network import Direction, Link
from kvnet.simulator.records import pack_page, unpack_page

if TYPE_CHECKING:
    from kvnet.simulator.world import World

REORDER_MS_MAX: Final = 1000.0


class Shares(Protocol):
    """How often which of these happens to a message."""

    @property
    def drop(self) -> float: ...
    @property
    def duplicate(self) -> float: ...
    @property
    def reorder(self) -> float: ...
    @property
    def replay(self) -> float: ...
    @property
    def corrupt(self) -> float: ...
    @property
    def replay_after_ms(self) -> tuple[float, float]: ...


class AlteredShares(Protocol):
    """How often a page or chunk is changed, and whether so that its checksum fits."""

    @property
    def pages(self) -> float: ...
    @property
    def chunks(self) -> float: ...
    @property
    def forged(self) -> bool: ...


class BulkTamperer:
    """Changes pages and chunks on their way, each under a checksum of its own that somebody must look at.

    A forged page lacks a record, and its checksum fits: only the digest of the whole replica tells.
    """

    def __init__(self, shares: AlteredShares, rng: Random) -> None:
        self.shares = shares
        self.rng = rng
        self.counts = {"altered": 0, "forged": 0, "chunks": 0}

    def tamper(self, direction: Direction, messages: list[Message]) -> list[Message]:
        """Return what the connection carries instead of these messages."""
        del direction
        return [self._changed(message) for message in messages]

    def _changed(self, message: Message) -> Message:
        match message:
            case Page() if self.rng.random() < self.shares.pages:
                found = unpack_page(message.body)
                if self.shares.forged and found:
                    self.counts["forged"] += 1
                    del found[self.rng.randrange(len(found))]
                    return message._replace(body=pack_page(found))
                self.counts["altered"] += 1
                return message._replace(body=self._with_another_bit(message.body))
            case Chunk() if self.rng.random() < self.shares.chunks:
                self.counts["chunks"] += 1
                return message._replace(data=self._with_another_bit(message.data))
            case _:
                return message

    def _with_another_bit(self, data: bytes) -> bytes:
        changed = bytearray(data)
        changed[self.rng.randrange(len(changed))] ^= 1 << self.rng.randrange(8)
        return bytes(changed)


class Tamperer:
    """Has its way with every message that is handed to a link."""

    def __init__(self, world: World, shares: Shares, rng: Random) -> None:
        self.world = world
        self.shares = shares
        self.rng = rng
        self.holed: dict[Link, None] = {}
        """Connections that lack a message: none does that and lives, so they end with the tampering."""
        self.counts = {"dropped": 0, "duplicated": 0, "reordered": 0, "replayed": 0, "corrupted": 0}

    def tamper(self, direction: Direction, messages: list[Message]) -> list[Message]:
        """Return what the connection carries instead of these messages."""
        carried: list[Message] = []
        shares, rng, world = self.shares, self.rng, self.world
        for message in messages:
            if rng.random() < shares.replay:
                self.counts["replayed"] += 1
                world.send_stray(direction, message, rng.uniform(*shares.replay_after_ms))
            if rng.random() < shares.drop:
                self.counts["dropped"] += 1
                self.holed[direction.link] = None
                continue
            if rng.random() < shares.reorder:
                self.counts["reordered"] += 1
                self.holed[direction.link] = None
                world.send_stray(direction, message, rng.uniform(0, REORDER_MS_MAX))
                continue
            carried.append(message)
            if rng.random() < shares.duplicate:
                self.counts["duplicated"] += 1
                carried.append(message)
        if carried and rng.random() < shares.corrupt:
            return self._corrupted(direction, carried)
        return carried

    def _corrupted(self, direction: Direction, messages: list[Message]) -> list[Message]:
        """Change a byte, and do what the transport does with the result: it ends the connection over it."""
        self.counts["corrupted"] += 1
        data = bytearray(encode(messages))
        data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
        try:
            return decode(bytes(data))
        except ProtocolError:
            self.world.at(self.world.now, self.world.close, direction.link)
            return []
