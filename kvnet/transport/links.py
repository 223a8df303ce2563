"""All gossip links of one process: dialled, accepted, proven, shaped, and at most one per peer.

Two nodes that dial each other at once keep the connection that the smaller name dialled; a connection of a peer
that restarted, or that lost the one we still hold, replaces it. Both ends decide by what the handshake has
proven (`_refuse_if_crossed`), so both keep the same one. Nothing here knows what the messages mean.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Container
from functools import partial
from typing import Final, Protocol

from aiohttp import ClientError, ClientSession, web

from kvnet.core.events import UNSENT_BYTES_MAX
from kvnet.core.messages import BulkMessage, Chunk, Frames, Message, Page, decode, encode
from kvnet.errors import ConfigError, ProtocolError
from kvnet.transport.greeting import Greeted, answer_greeting, greet
from kvnet.transport.handshake import (
    NONCE_BYTES,
    Answer,
    HandshakeRefused,
    Identity,
    Purpose,
    Refusal,
)
from kvnet.transport.notices import Notices
from kvnet.transport.shaping import Shaper, Wire
from kvnet.transport.sockets import Connection

PATH: Final = "/peer/v1"
BULK_PATH: Final = "/peer/v1/bulk"
DIAL_TIMEOUT_S: Final = 5.0
HANDSHAKES_MAX: Final = 512
"""Connections that haven't proven anything yet; whoever comes beyond is turned away."""
WRITABLE_POLL_S: Final = 0.01
"""How often a full link is looked at while somebody waits for room on it."""

_log = logging.getLogger(__name__)


class LinkEvents(Protocol):
    """What links tell their owner, each in the order it happened."""

    def on_up(self, peer: str, rtt_ms: float) -> None: ...
    def on_lost(self, peer: str) -> None: ...
    def on_dial_failed(self, peer: str) -> None: ...
    def on_messages(self, peer: str, messages: list[Message]) -> None: ...
    def on_writable(self, peer: str) -> None: ...


class _Link:
    """One proven connection."""

    __slots__ = ("connection", "dialled", "id", "peer", "pending", "pending_bytes", "start_id", "wire")

    def __init__(self, greeted: Greeted, connection: Connection, *, dialled: bool) -> None:
        self.peer = greeted.peer
        self.start_id = greeted.start_id
        self.id = greeted.link_id
        self.dialled = dialled
        """By us."""
        self.connection = connection
        self.wire = greeted.wire
        self.pending: list[Message] = []
        self.pending_bytes = 0

    def unsent_bytes(self) -> int:
        return self.pending_bytes + self.wire.unsent_bytes() + self.connection.buffered_bytes()


class PeerLinks:
    """The links of this process, and `core.events.LinkPort`."""

    def __init__(
        self,
        me: Identity,
        session: ClientSession,
        shaper: Shaper,
        *,
        url_of: Callable[[str], str],
        known: Container[str],
        purpose: Purpose = Purpose.GOSSIP,
    ) -> None:
        """`url_of` gives a node's url without a trailing slash (ConfigError for an unknown one); `known` are
        the nodes that may link with this one. The session stays the caller's. Over links for BULK go bulk
        messages, over others none.
        """
        self._purpose = purpose
        self._path = BULK_PATH if purpose is Purpose.BULK else PATH
        self._me = me
        self._session = session
        self._shaper = shaper
        self._url_of = url_of
        self._known = known
        self._events: LinkEvents | None = None
        self._links: dict[str, _Link] = {}
        self._dials: dict[str, asyncio.Task[None]] = {}
        self._previous: dict[str, bytes] = {}  # the id of the last link that stood, by peer
        self._dirty: dict[_Link, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # of dialled links, from the dial to the end
        self._accepted: set[Connection] = set()
        self._proving = 0
        self._awaited: dict[str, None] = {}
        self._poll: asyncio.TimerHandle | None = None
        self._closing = False
        self._notices = Notices(_log)
        self.counters: Counter[str] = Counter()
        """messages_sent, messages_received, control_messages_sent (WebSocket messages: one per loop turn and
        link), messages_malformed, links_up, links_lost, dials_failed, refused_<reason>."""

    def listen(self, events: LinkEvents) -> None:
        """Tell `events` from now on; before any other call."""
        self._events = events

    # -- what the driver does --------------------------------------------------------------------------------

    @property
    def _is_bulk(self) -> bool:
        return self._purpose is Purpose.BULK

    @property
    def peers(self) -> list[str]:
        """The peers with a link."""
        return list(self._links)

    def connect(self, peer: str) -> None:
        """Ends in `on_up` or `on_dial_failed`; does nothing while a link is up or being dialled."""
        if peer in self._links or peer in self._dials or self._closing:
            return
        task = asyncio.get_running_loop().create_task(self._dial(peer))
        self._dials[peer] = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def disconnect(self, peer: str, why: str) -> None:
        """End the link once what was sent has arrived; `on_lost` (or `on_dial_failed`) comes at once."""
        self._notices.say("disconnect", peer, f"{peer}: {why}", level=logging.DEBUG)
        link = self._links.get(peer)
        if link is not None:
            self.flush()
            link.wire.finish(link.connection.close)
            self._lose(link)
        elif (dial := self._dials.pop(peer, None)) is not None:
            dial.cancel()
            self._tell.on_dial_failed(peer)

    def send(self, peer: str, message: Message) -> None:
        """Collect a message for the next `flush`; without a link it is dropped, as it would be in the wire."""
        link = self._links.get(peer)
        if link is None:
            return
        link.pending.append(message)
        if type(message) is Frames:
            link.pending_bytes += sum(map(len, message.frames))
        elif type(message) is Chunk:
            link.pending_bytes += len(message.data)
        elif type(message) is Page:
            link.pending_bytes += len(message.body)
        self._dirty[link] = None

    def flush(self) -> None:
        """Hand everything collected to the wires, one WebSocket message per link."""
        said: list[Message] = []
        data = b""
        control = 0
        for link in self._dirty:
            pending = link.pending
            if not _same(pending, said):  # a relay says the same to all its children
                said, data = pending, encode(pending)
            if not link.pending_bytes:
                control += 1
            link.pending = []
            link.pending_bytes = 0
            link.wire.send(data)
        self.counters["messages_sent"] += len(self._dirty)
        self.counters["control_messages_sent"] += control
        self._dirty.clear()

    def unsent_bytes(self, peer: str) -> int:
        """Bytes handed over for this peer and not yet taken by the network; 0 for an unknown peer."""
        link = self._links.get(peer)
        return 0 if link is None else link.unsent_bytes()

    def await_writable(self, peer: str) -> None:
        """Call `on_writable` once in a later loop turn, when less than UNSENT_BYTES_MAX is unsent there."""
        self._awaited[peer] = None
        if self._poll is None:
            self._poll = asyncio.get_running_loop().call_later(0, self._look_for_room)

    async def close(self) -> None:
        """Close all links without a word to `events`; what is unsent is lost."""
        self._closing = True
        self._events = None
        if self._poll is not None:
            self._poll.cancel()
        for dial in self._tasks:
            dial.cancel()
        for link in list(self._links.values()):
            link.wire.close()
            link.connection.close()
        for connection in self._accepted:
            connection.close()
        self._links.clear()
        self._dirty.clear()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- dialling --------------------------------------------------------------------------------------------

    async def _dial(self, peer: str) -> None:
        """Make a link and read from it to its end."""
        wire: Wire | None = None
        connection: Connection | None = None
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                connection = await Connection.dial(self._session, self._url_of(peer) + self._path)
                wire = self._shaper.open(peer, connection.write, connection.abort)
                try:
                    previous = self._previous.get(peer, b"")
                    greeted = await greet(self._me, peer, self._purpose, connection, wire, previous)
                except HandshakeRefused as refused:
                    if refused.reason is Refusal.DUPLICATE and peer < self._me.name:
                        # It is dialling us as well and its name goes first: `_adopt` will cancel us.
                        await asyncio.sleep(DIAL_TIMEOUT_S)
                    raise
            await self._serve(self._adopt(greeted, connection, dialled=True))
        except HandshakeRefused as refused:
            self._count_refusal(peer, refused)
            self._fail(peer)
        except (OSError, ClientError, ConfigError, TimeoutError) as error:
            line = f"{peer}: {type(error).__name__} {error}"
            self._notices.say("dial-failed", peer, line, level=logging.INFO)
            self._fail(peer)
        finally:
            if connection is not None and (wire is None or self._closing):
                connection.close()
            elif connection is not None and wire is not None:
                wire.finish(connection.close)

    def _fail(self, peer: str) -> None:
        if self._dials.get(peer) is asyncio.current_task():
            del self._dials[peer]
            self.counters["dials_failed"] += 1
            self._tell.on_dial_failed(peer)

    # -- accepting -------------------------------------------------------------------------------------------

    async def accept(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one incoming connection to its end."""
        if self._closing or self._proving >= HANDSHAKES_MAX:
            return web.Response(status=503, text="no room for another link: try again later\n")
        try:
            connection, response = await Connection.accept(request)
        except web.HTTPBadRequest as error:
            return web.Response(status=error.status, text=f"this address takes WebSockets only: {error.text}\n")
        self._accepted.add(connection)
        try:
            greeted = await self._prove(connection)
            if not self._closing:
                await self._serve(self._adopt(greeted, connection, dialled=False))
        except HandshakeRefused:
            pass  # counted, and told to the dialler
        except (OSError, TimeoutError) as error:
            _log.debug("a connection ended before it was a link: %s", error)
        finally:
            self._accepted.discard(connection)
            connection.close()
        return response

    async def _prove(self, connection: Connection) -> Greeted:
        answer = Answer(self._me, self._known, self._purpose, os.urandom(NONCE_BYTES))
        self._proving += 1
        try:
            async with asyncio.timeout(DIAL_TIMEOUT_S):
                return await answer_greeting(
                    answer,
                    connection,
                    lambda peer: self._shaper.open(peer, connection.write, connection.abort),
                    self._refuse_if_crossed,
                )
        except HandshakeRefused as refused:
            self._count_refusal(answer.peer or "unknown", refused)
            raise
        finally:
            self._proving -= 1

    def _refuse_if_crossed(self, answer: Answer) -> None:
        """Refuse a connection that one of ours outranks; its dialler, deciding alike, will keep ours.

        A link that we dialled was welcomed by the peer before it was up here. So a dialler of the same start that
        doesn't name it as its previous one had sent its hello before: the two have crossed. One that names it
        has lost it.

        Raises:
            HandshakeRefused: DUPLICATE.
        """
        link = self._links.get(answer.peer)
        if link is None:
            crossed = answer.peer in self._dials and self._me.name < answer.peer
        else:
            crossed = link.dialled and link.start_id == answer.peer_start_id and link.id != answer.previous
        if crossed:
            raise HandshakeRefused(Refusal.DUPLICATE)

    # -- links that stand ------------------------------------------------------------------------------------

    @property
    def _tell(self) -> LinkEvents:
        assert self._events is not None, "listen() comes first"
        return self._events

    def _adopt(self, greeted: Greeted, connection: Connection, *, dialled: bool) -> _Link:
        """The link of this peer is this connection from now on."""
        link = _Link(greeted, connection, dialled=dialled)
        peer = link.peer
        old = self._links.get(peer)
        if old is not None:
            old.wire.close()
            old.connection.abort()
            self._lose(old)
        dial = self._dials.pop(peer, None)
        if dial is not None and dial is not asyncio.current_task():
            dial.cancel()
        self._links[peer] = link
        self._previous[peer] = link.id
        self.counters["links_up"] += 1
        self._tell.on_up(peer, greeted.rtt_ms)
        return link

    async def _serve(self, link: _Link) -> None:
        """Pass on what the peer says until the connection ends."""
        await link.connection.pass_on(partial(self._on_data, link))
        self._end(link)

    def _on_data(self, link: _Link, data: bytes) -> None:
        """Take one WebSocket message of this link."""
        peer = link.peer
        if self._links.get(peer) is not link:
            return  # no longer the link; what still arrives is dropped until its connection ends
        try:
            messages = decode(data)
            if any(isinstance(message, BulkMessage) is not self._is_bulk for message in messages):
                raise ProtocolError("a message that belongs on the other link")  # noqa: TRY301
        except ProtocolError as error:
            self.counters["messages_malformed"] += 1
            self._notices.say("malformed", peer, f"{peer}: {error}")
            self._end(link)
            return
        self.counters["messages_received"] += 1
        self._tell.on_messages(peer, messages)

    def _end(self, link: _Link) -> None:
        """Close and lose this link, unless it isn't one any more."""
        if self._links.get(link.peer) is link:
            link.wire.close()
            link.connection.close()
            self._lose(link)

    def _lose(self, link: _Link) -> None:
        if self._links.pop(link.peer, None) is not None:
            self._dirty.pop(link, None)
            self._awaited.pop(link.peer, None)
            self.counters["links_lost"] += 1
            self._tell.on_lost(link.peer)

    def _look_for_room(self) -> None:
        self._poll = None
        for peer in list(self._awaited):
            if self.unsent_bytes(peer) < UNSENT_BYTES_MAX:
                self._awaited.pop(peer, None)
                if peer in self._links:
                    self._tell.on_writable(peer)
        if self._awaited and self._poll is None:
            self._poll = asyncio.get_running_loop().call_later(WRITABLE_POLL_S, self._look_for_room)

    def _count_refusal(self, peer: str, refused: HandshakeRefused) -> None:
        self.counters[f"refused_{refused.reason}"] += 1
        if refused.reason is not Refusal.DUPLICATE:
            by = "refused by it" if refused.told else "refused"
            self._notices.say(f"handshake-{refused.reason}", peer, f"{peer}: {by}: {refused}")


def _same(some: list[Message], others: list[Message]) -> bool:
    """Whether both encode alike; as tuples, messages of different kinds may be equal."""
    return some == others and list(map(type, some)) == list(map(type, others))
