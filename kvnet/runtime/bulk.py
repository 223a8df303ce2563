"""The bulk lane: a second connection between two nodes, for pages and chunks, which then never delay a frame.

Dialled when there is something to say, closed when nobody has said anything for a while. A chunk is read from
the disk only when the link has room for it, so that what a node is asked for costs it a few hundred kilobytes
per link, whatever the number of chunks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from kvnet.core.events import BulkLost, BulkReceived, Event
from kvnet.core.messages import BulkMessage, Chunk, ChunkMissing, Message, Page
from kvnet.transport.links import LinkEvents

UNSENT_BYTES_MAX: Final = 512 * 1024
"""With more than this unsent on a link no further chunk is read for it."""
WAITING_BYTES_MAX: Final = 4 * 1024 * 1024
"""Said before the link stands; beyond it the dial has failed."""
ASKED_MAX: Final = 1024
"""Chunks that one peer may have asked for and not got."""
IDLE_S: Final = 30.0
LOOK_S: Final = 10.0
MESSAGE_BYTES: Final = 64
"""What a message without a payload is counted as."""


class BulkLinks(Protocol):
    """`transport.links.PeerLinks`, as far as it is known here."""

    @property
    def peers(self) -> list[str]: ...
    def listen(self, events: LinkEvents) -> None: ...
    def connect(self, peer: str) -> None: ...
    def disconnect(self, peer: str, why: str) -> None: ...
    def send(self, peer: str, message: Message) -> None: ...
    def flush(self) -> None: ...
    def unsent_bytes(self, peer: str) -> int: ...
    def await_writable(self, peer: str) -> None: ...


class BulkLane:
    """The bulk links of one node; all of it in the loop's thread."""

    def __init__(self, links: BulkLinks, read_chunk: Callable[[bytes], bytes | None]) -> None:
        self._links = links
        self._read_chunk = read_chunk
        self._feed: Callable[[Event], None] = _nobody_listens
        self._waiting: dict[str, list[BulkMessage]] = {}
        """By peer that is being dialled."""
        self._waiting_bytes: dict[str, int] = {}
        self._asked: dict[str, deque[bytes]] = {}
        """By peer, the chunks that it is to be sent."""
        self._active_at: dict[str, float] = {}
        self._look: asyncio.TimerHandle | None = None

    def listen(self, feed: Callable[[Event], None]) -> None:
        """Tell what comes from now on."""
        self._feed = feed
        self._links.listen(self)
        self._look = asyncio.get_running_loop().call_later(LOOK_S, self._close_idle)

    def stop(self) -> None:
        """Tell nothing more."""
        self._feed = _nobody_listens
        if self._look is not None:
            self._look.cancel()

    def send(self, peer: str, message: BulkMessage) -> None:
        """Say this to the peer after what was said before, over a link that is dialled if there is none.

        Leaves with the next `flush`.
        """
        if peer in self._active_at:
            self._active_at[peer] = self._now()
            self._links.send(peer, message)
            return
        waiting = self._waiting.setdefault(peer, [])
        size = self._waiting_bytes.get(peer, 0) + _size(message)
        if size > WAITING_BYTES_MAX:
            self._links.disconnect(peer, "too much to say before the link stands")
            return
        self._waiting_bytes[peer] = size
        waiting.append(message)
        self._links.connect(peer)

    def send_chunk(self, peer: str, name: bytes) -> None:
        """Send a chunk when the link has room, or say that it isn't here; a peer that is gone gets nothing."""
        if peer not in self._active_at:
            return
        asked = self._asked.setdefault(peer, deque())
        if len(asked) >= ASKED_MAX:
            self._links.send(peer, ChunkMissing(name))
            return
        asked.append(name)
        if len(asked) == 1:
            self._links.await_writable(peer)

    def flush(self) -> None:
        self._links.flush()

    @property
    def peers(self) -> list[str]:
        return self._links.peers

    # -- transport.links.LinkEvents --------------------------------------------------------------------------

    def on_up(self, peer: str, rtt_ms: float) -> None:
        del rtt_ms
        self._active_at[peer] = self._now()
        for message in self._forget_waiting(peer):
            self._links.send(peer, message)
        self._links.flush()

    def on_lost(self, peer: str) -> None:
        self._active_at.pop(peer, None)
        self._asked.pop(peer, None)
        self._forget_waiting(peer)
        self._feed(BulkLost(peer))

    def on_dial_failed(self, peer: str) -> None:
        self._forget_waiting(peer)
        self._feed(BulkLost(peer))

    def on_messages(self, peer: str, messages: list[Message]) -> None:
        self._active_at[peer] = self._now()
        for message in messages:
            assert isinstance(message, BulkMessage), "the links have looked"
            self._feed(BulkReceived(peer, message))

    def on_writable(self, peer: str) -> None:
        """Read the next chunks for a peer, one after another as long as there is room."""
        asked = self._asked.get(peer)
        if asked is None:
            return
        self._active_at[peer] = self._now()
        while asked and self._links.unsent_bytes(peer) < UNSENT_BYTES_MAX:
            name = asked.popleft()
            data = self._read_chunk(name)
            self._links.send(peer, ChunkMissing(name) if data is None else Chunk(name, data))
            self._links.flush()
        if asked:
            self._links.await_writable(peer)
        else:
            self._asked.pop(peer, None)

    def _forget_waiting(self, peer: str) -> list[BulkMessage]:
        self._waiting_bytes.pop(peer, None)
        return self._waiting.pop(peer, [])

    def _close_idle(self) -> None:
        self._look = asyncio.get_running_loop().call_later(LOOK_S, self._close_idle)
        since = self._now() - IDLE_S
        for peer, at in list(self._active_at.items()):
            if at < since and peer not in self._asked:
                self._links.disconnect(peer, "nobody has said anything for a while")

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _size(message: BulkMessage) -> int:
    match message:
        case Chunk(_, data):
            return len(data)
        case Page():
            return len(message.body)
        case _:
            return MESSAGE_BYTES


def _nobody_listens(event: Event) -> None:
    """What happens before `listen` and after `stop`."""
    del event
