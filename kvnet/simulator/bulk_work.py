"""What a simulated node does beside its turns: bulk links, pages, chunks, and the successor that they make.

As runtime/bulk.py and runtime/successor.py do it: one page is read, or stored, at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from kvnet.core.events import (
    AbandonBootstrap,
    BeginBootstrap,
    BootstrapFailed,
    Bootstrapped,
    BulkLost,
    BulkSend,
    ChunksLacking,
    ChunkStored,
    Effect,
    Event,
    FinishBootstrap,
    PageSent,
    PageStored,
    PageUnusable,
    SendChunk,
    SendPage,
    StoreChunk,
    StorePage,
)
from kvnet.core.messages import Chunk, ChunkMissing, Message, Page
from kvnet.core.replica import Replica
from kvnet.core.versions import Position
from kvnet.errors import ChunksMissing, Divergence, PageDamaged, ProtocolError, StorageDamaged, StorageFull
from kvnet.simulator.network import Link

if TYPE_CHECKING:
    from kvnet.simulator.node import SimulatedNode

FULL_RETRY_MS: Final = 100.0
PAGE_MS: Final = 2.0
"""How long it takes to read a page, or to store one."""


class BulkWork:
    """A node's bulk links, and what it works at for its successor."""

    __slots__ = ("_node", "_number", "_outbox", "_pages", "_proof", "_waiting", "dialling", "lacking", "links")

    def __init__(self, node: SimulatedNode) -> None:
        self._node = node
        self.links: dict[str, Link] = {}
        self._number = 0
        """Grows when what is being done for a successor is given up."""
        self.forget()

    def forget(self) -> None:
        """Nothing is under way: the process begins, or is gone."""
        self.dialling: dict[str, None] = {}
        self._outbox: dict[str, list[Message]] = {}
        self._waiting: dict[str, list[Message]] = {}
        """By peer whose bulk link is being dialled."""
        self._pages: list[Page] = []
        self._proof: tuple[Position, bytes] | None = None
        self.lacking: tuple[bytes, ...] = ()
        """The chunks that the next frame, or the proof, waits for."""

    def give_up(self) -> None:
        """What is done for a successor leads to nothing any more."""
        self._number += 1
        self._pages.clear()
        self._proof = None
        self.lacking = ()

    def carry_out(self, effect: Effect) -> None:
        node = self._node
        match effect:
            case BulkSend(peer, message):
                self._outbox.setdefault(peer, []).append(message)
            case SendChunk(peer, name):
                data = node.disk.chunks.data.get(name)
                answer = ChunkMissing(name) if data is None else Chunk(name, data)
                self._outbox.setdefault(peer, []).append(answer)
            case StoreChunk(name, data):
                self._store_chunk(name, data)
            case SendPage(peer, after):
                self._at(PAGE_MS, self._read_page, (node.core, peer, after))
            case BeginBootstrap(position):
                self.give_up()
                node.disk.begin_successor(position)
            case AbandonBootstrap():
                self.give_up()
                node.disk.abandon_successor()
            case StorePage(page):
                self._pages.append(page)
                if len(self._pages) == 1:
                    self._work_after(PAGE_MS)
            case FinishBootstrap(until, digest):
                self._proof = until, digest
                self._work_after(PAGE_MS)
            case _:
                raise AssertionError(f"an effect out of its place: {effect}")

    # -- links -----------------------------------------------------------------------------------------------

    def send(self) -> None:
        """Hand over what this turn has brought, over links that may have to be dialled first."""
        outbox, self._outbox = self._outbox, {}
        for peer, messages in outbox.items():
            if peer in self.links:
                self._node.world.send(self._node, peer, messages, bulk=True)
            else:
                self._waiting.setdefault(peer, []).extend(messages)
                self._node.world.dial(self._node, peer, bulk=True)

    def on_up(self, peer: str) -> None:
        waiting = self._waiting.pop(peer, [])
        if waiting:
            self._node.world.send(self._node, peer, waiting, bulk=True)

    def on_lost(self, peer: str) -> None:
        self._waiting.pop(peer, None)
        self._node.feed(BulkLost(peer))

    # -- pages and chunks ------------------------------------------------------------------------------------

    def _at(self, after_ms: float, action: Callable[[Any], None], argument: Any) -> None:
        self._node.world.at(self._node.world.now + after_ms, action, argument)

    def _read_page(self, read: tuple[Replica, str, bytes]) -> None:
        core, peer, after = read
        node = self._node
        if node.core is not core or node.put_off(self._read_page, read):
            return
        try:
            page = node.disk.read_page(after)
        except StorageDamaged:
            node.notice_damage()
            return
        self._outbox.setdefault(peer, []).append(page)
        node.turn([PageSent(peer, page.until)])

    def _work_after(self, ms: float) -> None:
        self._at(ms, self._work, (self._node.core, self._number))

    def _work(self, work: tuple[Replica, int]) -> None:
        """Store the next page, or prove what they came to."""
        core, number = work
        node = self._node
        if node.core is not core or number != self._number or node.put_off(self._work, work):
            return
        event: Event
        try:
            if self._pages:
                event = self._store_page()
            elif self._proof is not None and not self.lacking:
                event = Bootstrapped(node.disk.finish(*self._proof))
                self._proof = None
                node.clock.on_applied(node.disk.stamp)
                for tell in node.world.heard.adopted:
                    tell(node)
            else:
                return
        except StorageFull as error:
            node.reports.append((node.world.now, "storage_full", str(error)))
            self._work_after(FULL_RETRY_MS)
            return
        except ChunksMissing as missing:
            self.lacking = missing.hashes
            event = ChunksLacking(missing.hashes)
        except (Divergence, ProtocolError) as error:
            self._proof = None
            node.reports.append((node.world.now, "diverged", str(error)))
            event = BootstrapFailed(str(error))
        if self._pages:
            self._work_after(PAGE_MS)
        node.turn([event])

    def _store_page(self) -> Event:
        page = self._pages[0]
        try:
            self._node.disk.store_page(page)
        except PageDamaged as damage:
            del self._pages[0]
            return PageUnusable(str(damage))
        del self._pages[0]
        return PageStored(page.until)

    def _store_chunk(self, name: bytes, data: bytes) -> None:
        node = self._node
        try:
            ok = node.disk.put_chunk(name, data)
        except StorageFull as error:
            node.reports.append((node.world.now, "storage_full", str(error)))
            ok = False
        node.sync()
        node.hear_next(ChunkStored(name, ok))
        if ok and name in self.lacking:
            self.lacking = tuple(each for each in self.lacking if each != name)
            if not self.lacking and self._proof is not None:
                self._work_after(0.0)
