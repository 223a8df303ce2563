"""A node for tests that takes and gives pages, on the simulator's disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvnet.core.events import (
    AbandonBootstrap,
    Applied,
    BeginBootstrap,
    BootstrapFailed,
    Bootstrapped,
    BulkReceived,
    BulkSend,
    Empty,
    Event,
    FinishBootstrap,
    PageStored,
    PageUnusable,
    SendPage,
    Started,
    StorePage,
)
from kvnet.core.frames import Frame
from kvnet.core.messages import BulkMessage, Page, PagesWanted
from kvnet.core.versions import Position
from kvnet.errors import Divergence, PageDamaged
from kvnet.simulator.disk import SimulatedDisk
from kvnet.simulator.journal import Kept
from tests.support.conversation import Conversation


def disk_of(
    history: Sequence[Frame], *, journal_bytes_max: int | None = None, verified: bool = True
) -> SimulatedDisk:
    """A disk to which this history was applied."""
    disk = SimulatedDisk(kept=Kept(journal_bytes_max))
    for frame in history:
        disk.apply([frame])
    if verified and history:
        disk.mark_verified()
    return disk


def pages_of(disk: SimulatedDisk, after: bytes = b"") -> list[Page]:
    """All pages behind a place, as this disk would give them now."""
    pages = [disk.read_page(after)]
    while pages[-1].until:
        pages.append(disk.read_page(pages[-1].until))
    return pages


class PagedConversation(Conversation):
    """A node that stores pages at once, and what it said over bulk links."""

    def __init__(self, name: str = "me", *, disk: SimulatedDisk | None = None, **more: Any) -> None:
        super().__init__(name, start=False, **more)
        self.disk = disk or SimulatedDisk()
        self.journal = self.disk.journal
        state = self.state
        state.journal = self.disk.port
        state.tip = state.applied = state.journal.position
        self.stores = True
        """Whether the disk has a page at once."""
        self.proves = True
        """Whether a proof ends at once."""
        self.unstored: list[Page] = []
        self._bulk: list[tuple[str, BulkMessage]] = []
        self._read: list[tuple[str, bytes]] = []
        self.hear(Started())

    def _commit(self) -> Applied:
        self.disk.apply(self.uncommitted)
        self.uncommitted.clear()
        return Applied(self.disk.port.position)

    def hear(self, event: Event) -> None:
        super().hear(event)
        ordered, led_to = self.effects, []
        for effect in ordered:
            self.effects = []
            match effect:
                case Empty():
                    self.disk.reset()
                    self.journal = self.disk.journal
                case BeginBootstrap(position):
                    self.disk.begin_successor(position)
                case AbandonBootstrap():
                    self.disk.abandon_successor()
                case StorePage(page):
                    self.unstored.append(page)
                    if self.stores:
                        self.store()
                case FinishBootstrap(until, digest):
                    if self.proves:
                        self.finish(until, digest)
                case BulkSend(peer, message):
                    self._bulk.append((peer, message))
                case SendPage(peer, after):
                    self._read.append((peer, after))
            led_to += self.effects
        self.effects = ordered + led_to

    def store(self) -> None:
        """The disk takes the next page."""
        page = self.unstored.pop(0)
        try:
            self.disk.store_page(page)
        except PageDamaged as damage:
            self.hear(PageUnusable(str(damage)))
        else:
            self.hear(PageStored(page.until))

    def finish(self, until: Position, digest: bytes) -> None:
        """The disk proves its successor and puts it in place."""
        try:
            position = self.disk.finish(until, digest)
        except Divergence as error:
            self.hear(BootstrapFailed(str(error)))
        else:
            self.journal = self.disk.journal
            self.hear(Bootstrapped(position))

    def receive_bulk(self, peer: str, *messages: BulkMessage) -> None:
        for message in messages:
            self.hear(BulkReceived(peer, message))

    def bulk(self, *kinds: type[BulkMessage]) -> list[tuple[str, BulkMessage]]:
        """Take out what it said over bulk links so far; only these kinds, if any are named."""
        said, self._bulk = self._bulk, []
        return [(peer, message) for peer, message in said if not kinds or isinstance(message, kinds)]

    def wanted(self) -> list[tuple[str, bytes]]:
        """Take out of whom it wanted pages so far, and behind which place."""
        return [(peer, message.after) for peer, message in self.bulk() if isinstance(message, PagesWanted)]

    def read(self) -> list[tuple[str, bytes]]:
        """Take out for whom it ordered pages to be read so far, and behind which place."""
        read, self._read = self._read, []
        return read
