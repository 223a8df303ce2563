"""The exchange: reads, questions and writes, as one session sends them.

A read may be asked anywhere. A write may too, because every attempt carries the same request id: whoever takes it
second answers what became of the first. Only a client that gives up doesn't know whether its write took effect,
and then the error says so (`definite` is False).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from copy import copy
from typing import Any, Final, Self

import aiohttp

from kvnet.client.answers import Answer
from kvnet.client.directory import API_BASE, Directory, Edge
from kvnet.client.race import UNREACHABLE, Body, Ground, Race, Request
from kvnet.client.session import ANY, Freshness, Session
from kvnet.errors import RequestError

READ_SILENCE_S: Final = 3.0
"""Longest wait for the next bytes of an answer to a read; more than the second an edge waits for a version."""
WRITE_SILENCE_S: Final = 7.0
"""The same for a write; more than the five seconds for which an edge looks for the coordinator."""
LARGE_PATIENCE_S: Final = 15.0
"""What is added to both for a large value, which is sent to all PoPs before its write is answered."""


class Exchange:
    """Sends requests, and remembers for its session what the answers have shown."""

    def __init__(self, ground: Ground, directory: Directory, timeout_s: float, session: Session | None) -> None:
        """Without a session no read asks for more than it is told to."""
        self._ground = ground
        self._namespaces = f"/accounts/{directory.account_id}/storage/kv/namespaces"
        self._authorization = {"Authorization": f"Bearer {directory.token}"}
        self._timeout_s = timeout_s
        self._request_ids = RequestIds()
        self.session = session
        """What its answers have shown."""

    def in_session(self, session: Session | None) -> Self:
        """Return the same exchange for another session."""
        other = copy(self)
        other.session = session
        return other

    async def read(self, path: str, fresh: Freshness = ANY, *, streamed: bool = False) -> Answer:
        """Return the nearest edge's answer, whatever its status, if it is no refusal.

        `path` is one below the account's namespaces, or one that begins with `/user/`. Of a `streamed` one the
        body is still to be read, if it is a success.

        Raises:
            RequestError: no edge answered in time, or none is as new as it has to be.
        """
        return await self._read("GET", path, _no_body, fresh, streamed=streamed)

    async def ask(self, path: str, body: Body, fresh: Freshness = ANY) -> Answer:
        """As `read`, of a question that is too long for a query: POST."""
        return await self._read("POST", path, body, fresh)

    async def write(
        self,
        method: str,
        path: str,
        body: Body | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        patience_s: float = 0.0,
    ) -> Answer:
        """Return the answer to a write that took effect at most once; `patience_s` more than others may it take.

        Raises:
            RequestError: no edge answered in time; `definite` tells whether the write can have taken effect.
        """
        request = Request(
            method=method,
            path=self._below(path),
            body=body or _no_body,
            headers={**self._authorization, "KV-Request-Id": self._request_ids.next(), **(headers or {})},
            is_write=True,
            silence_s=WRITE_SILENCE_S + patience_s,
        )
        answer = await Race(self._ground, request, self._timeout_s + patience_s).run()
        if self.session is not None and answer.status == 200:
            self.session.saw(answer.headers)
        return answer

    async def status(self, edge: Edge) -> dict[str, Any]:
        """Return what one edge tells of itself.

        Raises:
            RequestError: it doesn't answer, or the token is refused.
        """
        patience = aiohttp.ClientTimeout(total=READ_SILENCE_S)
        try:
            async with await self._ground.lines.request(
                edge, "GET", "/status", headers=self._authorization, patience=patience
            ) as response:
                return Answer(edge, response.status, response.headers, await response.read()).document()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RequestError(503, UNREACHABLE, f"{edge.url} doesn't tell how it is: {error}") from None

    async def _read(
        self, method: str, path: str, body: Body, fresh: Freshness, *, streamed: bool = False
    ) -> Answer:
        session = self.session
        floor = None if session is None else session.version
        wait_s = (fresh.wait_timeout_ms or 0) / 1000
        request = Request(
            method=method,
            path=self._below(path),
            body=body,
            headers={**self._authorization, **fresh.headers(None)},
            is_write=False,
            floor=floor,
            floor_headers={} if floor is None else {**self._authorization, **fresh.headers(floor)},
            streamed=streamed,
            silence_s=READ_SILENCE_S + wait_s,
        )
        answer = await Race(self._ground, request, self._timeout_s + wait_s).run()
        if session is not None and answer.status in {200, 404}:
            session.saw(answer.headers)
        return answer

    def _below(self, path: str) -> str:
        return API_BASE + (path if path.startswith("/user/") else self._namespaces + path)


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
