"""Reads on their way: an edge that isn't as fresh as a client asks has another node answer, and passes that on.

    POST /peer/v1/read, signed      the question, as the HTTP side writes and reads it; a HEAD where that is one
    the answer, with KV-Position    the client's, as it is
    without it, or from 500 on      this node can't answer: the next one is asked

The coordinator is asked first, whose view is never old and who has every version; if it can't be reached,
neighbours that promised to be fresh enough. Who is asked asks nobody. The way feels the pair's delay and its cuts,
but no packet loss. A short answer is read whole before it is passed on, so that one that is cut short is nobody's;
a longer one streams through, and ends early where it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterator, Mapping
from contextlib import ExitStack
from hashlib import sha256
from io import BytesIO
from typing import Final

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, ServerDisconnectedError, web

from kvnet.core.state import Neighbour, NodeState
from kvnet.core.versions import Version
from kvnet.errors import RequestError
from kvnet.runtime.forwarding import DIGEST_HEADER
from kvnet.topology.wan import Wan
from kvnet.transport.handshake import Identity
from kvnet.transport.signing import HEADER, BodyDigest, check, sign

PATH: Final = "/peer/v1/read"
UNDER_WAY_MAX: Final = 64
"""Reads that a node relays at once; each holds a connection with its buffers, or `WHOLE_BYTES_MAX`."""
ANSWERED_MAX: Final = 256
"""Reads that a node answers for others at once."""
NEIGHBOURS_ASKED_MAX: Final = 2
CONNECT_TIMEOUT_S: Final = 2.0
SILENCE_TIMEOUT_S: Final = 3.0
"""How long nothing may come of an answer."""
RELAY_TIMEOUT_S: Final = 60.0
"""How long a relay may take as a whole, also for a client that reads slowly."""
WHOLE_BYTES_MAX: Final = 64 * 1024
TOO_MANY: Final = 20012
"""API code: this node answers too many of others' reads."""

_OF_THE_CONNECTION: Final = frozenset(
    {"connection", "content-length", "date", "keep-alive", "server", "trailer", "transfer-encoding", "upgrade"}
)


class _NoAnswer(Exception):
    """A node that was asked gave no answer; the text says why."""

    def __init__(self, why: str, *, final: bool = False) -> None:
        """With a `final` one nobody else needs to be asked."""
        super().__init__(why)
        self.final = final


class RelayedAnswer:
    """An answer that another node has begun to give. Close it."""

    def __init__(self, response: ClientResponse, whole: bytes | None, is_cut: Callable[[], bool]) -> None:
        """`whole` is the body if it was read; `is_cut` tells whether more of it can come."""
        self.status = response.status
        self.reason = response.reason or ""
        self.headers: Mapping[str, str] = {
            name: value for name, value in response.headers.items() if name.lower() not in _OF_THE_CONNECTION
        }
        self.size = response.content_length
        self._response = response
        self._whole = whole
        self._is_cut = is_cut
        self.held = ExitStack()
        """What is given back when it is closed."""

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes.

        Raises:
            ConnectionAbortedError: it ended early.
        """
        if self._whole is not None:
            yield self._whole
            return
        try:
            async for part in self._response.content.iter_any():
                if self._is_cut():
                    raise ConnectionAbortedError("the way was cut while an answer was relayed")
                yield part
        except (ClientError, TimeoutError) as error:
            raise ConnectionAbortedError(f"a relayed answer ended early: {error}") from error

    def close(self) -> None:
        if self._whole is None:
            self._response.close()
        self.held.close()


class Relayer:
    """A node's way to have reads answered by others."""

    def __init__(
        self,
        me: Identity,
        session: ClientSession,
        wan: Wan,
        state: NodeState,
        *,
        coordinator: str,
        url_of: Callable[[str], str],
    ) -> None:
        self._me = me
        self._session = session
        self._wan = wan
        self._state = state
        self._coordinator = coordinator
        self._url_of = url_of
        self._under_way = 0
        self._relayed = 0
        self._in_vain = 0

    def status(self) -> dict[str, int]:
        """What `/status` tells; reads are counted since the start."""
        return {"under_way": self._under_way, "relayed": self._relayed, "in_vain": self._in_vain}

    async def ask(
        self, question: bytes, *, head_only: bool, at_least: Version | None, staleness_ms: float | None
    ) -> RelayedAnswer | str:
        """Return the first answer, or in a few words who was asked and why none of them gave one."""
        if self._under_way >= UNDER_WAY_MAX:
            self._in_vain += 1
            return f"nobody, {UNDER_WAY_MAX} reads are being relayed already"
        with ExitStack() as held:
            self._under_way += 1
            held.callback(self._leave)
            asked: list[str] = []
            for node in self._whom(at_least, staleness_ms):
                try:
                    answer = await self._attempt(node, question, "HEAD" if head_only else "POST")
                except _NoAnswer as error:
                    asked.append(f"{node} ({error})")
                    if error.final:
                        break
                else:
                    self._relayed += 1
                    answer.held = held.pop_all()
                    return answer
            self._in_vain += 1
        return ", ".join(asked)

    def _leave(self) -> None:
        self._under_way -= 1

    def _whom(self, at_least: Version | None, staleness_ms: float | None) -> Iterator[str]:
        """Yield the coordinator, then the nearest neighbours that promised what is wanted."""
        yield self._coordinator
        wan, me = self._wan, self._me.name
        promising = [
            neighbour
            for neighbour in self._state.neighbours.values()
            if neighbour.name != self._coordinator
            and not wan.is_cut(me, neighbour.name)
            and not wan.is_cut(neighbour.name, me)
            and promises(self._state, neighbour, at_least, staleness_ms)
        ]
        promising.sort(key=lambda neighbour: (neighbour.rtt_ms, neighbour.name))
        yield from (neighbour.name for neighbour in promising[:NEIGHBOURS_ASKED_MAX])

    async def _attempt(self, node: str, question: bytes, method: str) -> RelayedAnswer:
        """Return one node's answer, on its way or whole.

        Raises:
            _NoAnswer: there is none.
        """
        me, wan = self._me.name, self._wan
        if wan.is_cut(me, node):
            raise _NoAnswer("cut off")
        await asyncio.sleep(wan.one_way_ms(me, node) / 1000)
        try:
            try:
                response = await self._send(node, question, method)
            except ServerDisconnectedError:  # a connection kept from before its restart
                response = await self._send(node, question, method)
        except TimeoutError:
            raise _NoAnswer("no answer in time") from None
        except (OSError, ClientError):
            raise _NoAnswer("down") from None
        with ExitStack() as unused:
            unused.callback(response.close)
            if not wan.is_cut(node, me):
                await asyncio.sleep(wan.one_way_ms(node, me) / 1000)
            if wan.is_cut(node, me):
                raise _NoAnswer("the way back is cut")
            self._require_answer(node, response)
            whole: bytes | None = None
            size = response.content_length
            if method == "HEAD" or response.status == 304 or (size is not None and size <= WHOLE_BYTES_MAX):
                try:
                    whole = await response.read()
                except (OSError, ClientError):  # TimeoutError is one
                    raise _NoAnswer("its answer was cut short") from None
            unused.pop_all()
        return RelayedAnswer(response, whole, lambda: wan.is_cut(node, me))

    async def _send(self, node: str, question: bytes, method: str) -> ClientResponse:
        """Return the head of what comes back. The body stays compressed if it is: it is the client's to read."""
        timeout = ClientTimeout(total=RELAY_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_TIMEOUT_S)
        return await self._session.request(
            method,
            self._url_of(node) + PATH,
            data=BytesIO(question),  # aiohttp would warn of a long one sent in one piece
            headers={HEADER: sign(self._me, method, PATH, question), DIGEST_HEADER: sha256(question).hexdigest()},
            timeout=timeout,
            allow_redirects=False,
            auto_decompress=False,
            skip_auto_headers=("Accept-Encoding", "User-Agent"),
        )

    def _require_answer(self, node: str, response: ClientResponse) -> None:
        """Return if this is what the client shall see.

        Raises:
            _NoAnswer: it isn't.
        """
        position = response.headers.get("KV-Position")
        if position is None:
            raise _NoAnswer(f"answers {response.status}")
        if response.status >= 500:
            staleness_ms = response.headers.get("KV-Staleness-Ms")
            age = "" if not staleness_ms or staleness_ms == "0" else f", may be {staleness_ms} ms behind"
            raise _NoAnswer(f"stands at {position}{age}", final=node == self._coordinator)


def promises(state: NodeState, neighbour: Neighbour, at_least: Version | None, staleness_ms: float | None) -> bool:
    """Whether a neighbour's last advert tells of more than this node can show, and of all that is wanted.

    A parent has sent what we have received: that counts where it waits here, as for a full disk.
    """
    advert = neighbour.advert
    is_parent = neighbour.name in state.parents
    if at_least is not None:
        received = is_parent and state.tip.version >= at_least
        if not received and (advert is None or advert.position.version < at_least):
            return False
    if staleness_ms is not None:
        received = is_parent and state.beacon > state.advertised_beacon()
        return received or (advert is not None and advert.beacon > state.advertised_beacon())
    return True


class RelayDesk:
    """The side that answers: takes signed questions and hands them to `answer`."""

    def __init__(
        self,
        me: Identity,
        known: Container[str],
        answer: Callable[[web.BaseRequest, bytes], Awaitable[web.Response]],
        *,
        question_bytes_max: int,
    ) -> None:
        self._me = me
        self._known = known
        self._answer = answer
        self._question_bytes_max = question_bytes_max
        self._under_way = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one read of another node's client.

        Raises:
            RequestError: it isn't signed, too long, or one too many. Nothing unsigned is read.
        """
        if self._under_way >= ANSWERED_MAX:
            text = f"{self._me.name} answers {ANSWERED_MAX} reads of other nodes; try again in a second"
            raise RequestError(503, TOO_MANY, text, headers={"Retry-After": "1"})
        told = BodyDigest(request.headers.get(DIGEST_HEADER, ""))
        check(self._me, self._known, request.headers.get(HEADER), request.method, PATH, told)
        with ExitStack() as held:
            self._under_way += 1
            held.callback(self._leave)
            question = await self._read(request)
            if sha256(question).hexdigest() != told.hex:
                raise RequestError(400, 10012, "invalid request body: not the one that was signed")
            response = await self._answer(request, question)
            # Sent here and not by whoever called: a connection at rest holds on to its last answer.
            try:
                await response.prepare(request)
                await response.write_eof()
            except ConnectionError:
                if request.transport is not None:
                    request.transport.abort()
        return response

    def _leave(self) -> None:
        self._under_way -= 1

    async def _read(self, request: web.BaseRequest) -> bytes:
        question = bytearray()
        async for part in request.content.iter_any():
            question += part
            if len(question) > self._question_bytes_max:
                raise RequestError(413, 10001, f"a relayed read of more than {self._question_bytes_max} bytes")
        return bytes(question)
