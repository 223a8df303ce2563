"""The exchange: one request, asked of the preferred edge and then of the next, until one answers.

A read may be asked anywhere. A write may too, because every attempt carries the same request id: whoever takes it
second answers what became of the first. Only a client that gives up doesn't know whether its write took effect,
and then the error says so (`definite` is False).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp
from yarl import URL

from kvnet.client.answers import Answer
from kvnet.client.directory import API_BASE, Directory, Edge
from kvnet.client.probe import healthy
from kvnet.client.route import Route
from kvnet.errors import RequestError

CONNECT_TIMEOUT_S: Final = 1.0
"""Longest wait for a connection before the next edge is asked."""
READ_SILENCE_S: Final = 3.0
"""Longest wait for the next bytes of an answer to a read; more than the second an edge waits for a version."""
WRITE_SILENCE_S: Final = 7.0
"""The same for a write; more than the five seconds for which an edge looks for the coordinator."""
LARGE_PATIENCE_S: Final = 15.0
"""What is added to both for a large value, which is sent to all PoPs before its write is answered."""
REFUSALS_MAX: Final = 4
"""Edges that may answer 503 to one request. When the coordinator is down all of them do."""
RETURN_CHECK_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Times between two questions whether a failed edge is back; the last one repeats."""
UNREACHABLE: Final = 7010
"""The API's code for a service that isn't available."""

Body = Callable[[], Any]
"""Makes the body afresh for each attempt: a multipart writer can be sent once."""


class Exchange:
    """Sends requests over a pool of connections; the route remembers which edges are away."""

    def __init__(
        self, session: aiohttp.ClientSession, directory: Directory, route: Route, timeout_s: float
    ) -> None:
        self._session = session
        self._namespaces = f"/accounts/{directory.account_id}/storage/kv/namespaces"
        self._authorization = {"Authorization": f"Bearer {directory.token}"}
        self._route = route
        self._timeout_s = timeout_s
        self._request_ids = RequestIds()
        self._watches: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Stop looking after edges that are away; the session stays open."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)

    async def read(self, path: str, *, headers: Mapping[str, str] | None = None, streamed: bool = False) -> Answer:
        """Return the nearest edge's answer, whatever its status but 503.

        `path` is one below the account's namespaces, or one that begins with `/user/`. Of a `streamed` one the
        body is still to be read, if it is a success.

        Raises:
            RequestError: no edge answered in time.
        """
        return await self._send("GET", path, _no_body, headers or {}, is_write=False, streamed=streamed)

    async def ask(self, path: str, body: Body, *, headers: Mapping[str, str] | None = None) -> Answer:
        """As `read`, of a question that is too long for a query: POST."""
        return await self._send("POST", path, body, headers or {}, is_write=False)

    async def write(self, method: str, path: str, body: Body | None = None, *, large: bool = False) -> Answer:
        """Return the answer to a write that took effect at most once; a `large` one has more time.

        Raises:
            RequestError: no edge answered in time; `definite` tells whether the write can have taken effect.
        """
        headers = {"KV-Request-Id": self._request_ids.next()}
        patience_s = LARGE_PATIENCE_S if large else 0.0
        return await self._send(method, path, body or _no_body, headers, is_write=True, patience_s=patience_s)

    async def _send(
        self,
        method: str,
        path: str,
        body: Body,
        headers: Mapping[str, str],
        *,
        is_write: bool,
        patience_s: float = 0.0,
        streamed: bool = False,
    ) -> Answer:
        now = asyncio.get_running_loop().time
        deadline = now() + self._timeout_s + patience_s
        silence_s = WRITE_SILENCE_S + patience_s if is_write else READ_SILENCE_S
        patience = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S, sock_read=silence_s)
        definite = True
        refusals = 0
        trouble = RequestError(503, UNREACHABLE, "no time was given to ask an edge")
        for edge in self._route.candidates():
            if now() >= deadline or refusals == REFUSALS_MAX:
                break
            try:
                async with asyncio.timeout_at(deadline):
                    answer = await self._attempt(edge, method, path, body(), headers, patience, streamed=streamed)
            except (aiohttp.ClientError, TimeoutError) as error:
                if isinstance(error, aiohttp.ClientError):  # anything else is our own clock: not the edge's fault
                    self._leave(edge)
                never_sent = isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError))
                definite = definite and (never_sent or not is_write)
                if not refusals:  # an edge's own words say more than another one's silence
                    trouble = _nobody(edge, error)
                continue
            if answer.status != 503:
                if is_write and answer.status >= 500:
                    raise answer.error(definite=False)
                return answer
            refusals += 1
            trouble = answer.error()
            if is_write:
                definite = False  # the edge may have passed it on before it lost the coordinator
            else:
                self._leave(edge)
        trouble.definite = definite
        raise trouble

    async def _attempt(
        self,
        edge: Edge,
        method: str,
        path: str,
        body: Any,
        headers: Mapping[str, str],
        patience: aiohttp.ClientTimeout,
        *,
        streamed: bool,
    ) -> Answer:
        # encoded=True: a key's percent signs are the key's, and must arrive as they are
        below = path if path.startswith("/user/") else self._namespaces + path
        url = URL(f"{edge.url}{API_BASE}{below}", encoded=True)
        headers = {**self._authorization, **headers}
        response = await self._session.request(
            method, url, data=body, headers=headers, timeout=patience, allow_redirects=False
        )
        if streamed and response.status == 200:
            return Answer(edge, response.status, response.headers, b"", response)
        async with response:
            return Answer(edge, response.status, response.headers, await response.read())

    def _leave(self, edge: Edge) -> None:
        if self._route.leave(edge):
            watch = asyncio.create_task(self._watch(edge), name=f"watch {edge.code}")
            self._watches.add(watch)
            watch.add_done_callback(self._watches.discard)

    async def _watch(self, edge: Edge) -> None:
        """End when `edge` serves again and has its old place."""
        check = 0
        while True:
            await asyncio.sleep(RETURN_CHECK_S[min(check, len(RETURN_CHECK_S) - 1)])
            if await healthy(self._session, edge):
                self._route.rejoin(edge)
                return
            check += 1


class RequestIds:
    """Names for writes, unlike those of any other client: 96 random bits, then a counter, as hex digits."""

    def __init__(self) -> None:
        self._start = secrets.token_hex(12)
        self._count = 0

    def next(self) -> str:
        self._count += 1
        return f"{self._start}{self._count:016x}"


def _no_body() -> None:
    return None


def _nobody(edge: Edge, error: Exception) -> RequestError:
    reason = str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
    text = f"no edge answered, the last one tried was {edge.url}: {reason}; `kvnet ps` shows who is up"
    return RequestError(503, UNREACHABLE, text)
