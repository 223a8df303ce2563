"""The race: one call, asked of the preferred edge and then of the next, until one answers.

A write is asked of one edge at a time. A read whose answer doesn't begin in time is asked of the next edge as
well, and the first answer counts; the other request is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from kvnet.client import trail
from kvnet.client.answers import Answer
from kvnet.client.directory import Edge
from kvnet.client.lines import Lines
from kvnet.client.pace import Pace
from kvnet.client.route import Route
from kvnet.client.trail import Attempt, Outcome, Why
from kvnet.client.watch import Watch
from kvnet.core.versions import Version
from kvnet.errors import RequestError

CONNECT_TIMEOUT_S: Final = 1.0
"""Longest wait for a connection before the next edge is asked."""
REFUSALS_MAX: Final = 4
"""Edges that may refuse one request. When the coordinator is down all of them do."""
UNREACHABLE: Final = 7010
"""The API's code for a service that isn't available."""
TOO_STALE: Final = 20002
STILL_BEHIND: Final = 20003
"""The API's codes for an edge that isn't as new as the request asks; it serves others well."""

Body = Callable[[], Any]
"""Makes the body afresh for each attempt: a multipart writer can be sent once."""


@dataclass(slots=True)
class Tally:
    """What became of the calls so far."""

    reads: int = 0
    hedged: int = 0
    """Reads that were asked of another edge because one was slow."""
    hedges_won: int = 0
    """Of these, those that the other one answered."""
    failed_over: int = 0
    """Calls, reads or writes, that were asked of another edge because one failed or refused."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What all calls of a client share."""

    lines: Lines
    route: Route
    watch: Watch
    pace: Pace
    tally: Tally
    positions: dict[Edge, Version]
    """How far each edge's replica was when it last answered. An edge needn't be told what it is known to have:
    it answers faster then, and its answer says whether it still has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked, whoever is asked."""

    method: str
    path: str
    body: Body
    headers: Mapping[str, str]
    is_write: bool
    streamed: bool = False
    """Whether the body of a success is left to be read."""
    floor: Version | None = None
    """What the replica must have that a read is answered from."""
    floor_headers: Mapping[str, str] = field(default_factory=dict)
    """Headers for an edge that isn't known to have it."""
    silence_s: float
    """Longest wait for the next bytes of an answer."""


class Race:
    """One call, from its first request to its answer."""

    def __init__(self, ground: Ground, request: Request, timeout_s: float) -> None:
        self._ground = ground
        self._request = request
        self._now = asyncio.get_running_loop().time
        self._began = self._now()
        self._deadline = self._began + timeout_s
        self._edges = ground.route.candidates()
        self._next = 0
        self._running: dict[asyncio.Task[Answer], Attempt] = {}
        self._hedge_at: float | None = None
        """When the newest request is late; None while nobody else would be asked."""
        self._patience = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S, sock_read=request.silence_s)
        self._trusted: set[Edge] = set()
        """Edges that weren't asked for the floor, since they were known to have it."""
        self._definite = True
        self._refusals = 0
        self._trouble = RequestError(503, UNREACHABLE, "no time was given to ask an edge")
        self._call = trail.begin(request.method, request.path)

    async def run(self) -> Answer:
        """Return the first answer that is no refusal.

        Raises:
            RequestError: there was none in time.
        """
        self._ask(Why.FIRST)
        try:
            while self._running:
                done, _ = await asyncio.wait(
                    self._running, timeout=self._patience_s(), return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    answer = self._judged(task)
                    if answer is not None:
                        return self._taken(answer)
                if not done and self._now() >= self._deadline:
                    self._run_out()
                    break
                if not done:
                    self._hedge()
                elif not self._running:
                    self._ask(Why.FAILOVER)
        finally:
            await self._drop()
            self._count()
        self._trouble.definite = self._definite
        raise self._trouble

    def _ask(self, why: Why) -> None:
        """Ask the next edge, if there is one, and time."""
        now = self._now()
        self._hedge_at = None
        if self._next == len(self._edges) or self._refusals == REFUSALS_MAX or now >= self._deadline:
            return
        edge = self._edges[self._next]
        self._next += 1
        attempt = Attempt(edge, why, began_ms=(now - self._began) * 1000)
        self._call.attempts.append(attempt)
        self._running[asyncio.create_task(self._attempt(attempt))] = attempt
        hedge_ms = self._ground.pace.hedge_ms(edge)
        if hedge_ms is not None and not self._request.is_write and self._next < len(self._edges):
            self._hedge_at = now + hedge_ms / 1000

    def _patience_s(self) -> float:
        until = self._deadline if self._hedge_at is None else min(self._deadline, self._hedge_at)
        return max(0.0, until - self._now())

    def _hedge(self) -> None:
        """Ask another edge too, if the allowance has room for it, or whoever is asked turned out to be away."""
        ground, attempts = self._ground, list(self._running.values())
        if any(attempt.answering for attempt in attempts):
            self._hedge_at = None  # it isn't late, only long
            return
        edge = attempts[-1].edge
        if all(ground.route.is_away(attempt.edge) for attempt in attempts) or (
            len(attempts) == 1 and ground.pace.spend()
        ):
            self._ask(Why.HEDGE)
        else:
            self._hedge_at = self._now() + max(1.0, ground.pace.hedge_ms(edge) or 0.0) / 1000
        ground.watch.doubt(edge, ground.pace.doubt_ms(edge))

    def _judged(self, task: asyncio.Task[Answer]) -> Answer | None:
        """Return the answer of a request that has ended; None if it has failed or was refused.

        Raises:
            RequestError: a write that may have been made, which another edge mustn't be asked for.
        """
        attempt = self._running.pop(task)
        attempt.took_ms = (self._now() - self._began) * 1000 - attempt.began_ms
        is_write = self._request.is_write
        try:
            answer = task.result()
        except (aiohttp.ClientError, TimeoutError) as error:
            self._ground.watch.leave(attempt.edge)
            never_sent = isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError))
            self._definite = self._definite and (never_sent or not is_write)
            self._failed(attempt, error)
            return None
        if self._went_back(answer):
            self._edges.insert(self._next, attempt.edge)  # which is told this time how new it has to be
            attempt.outcome, attempt.error = Outcome.REFUSED, "its replica is older than it was"
            if answer.response is not None:
                answer.response.close()
            return None
        refusal = answer.error() if answer.status in {503, 504} else None
        if refusal is None or (answer.status == 504 and (is_write or refusal.code != STILL_BEHIND)):
            attempt.outcome = Outcome.ANSWERED
            if is_write and answer.status >= 500:
                raise answer.error(definite=False)
            return answer
        attempt.outcome, attempt.error = Outcome.REFUSED, refusal.message
        self._refusals += 1
        self._trouble = refusal
        if is_write:
            self._definite = False  # the edge may have passed it on before it lost the coordinator
        elif refusal.code not in {TOO_STALE, STILL_BEHIND}:
            self._ground.watch.leave(attempt.edge)
        return None

    def _went_back(self, answer: Answer) -> bool:
        """Whether an edge isn't as far any more as it was known to be: its replica was made anew meanwhile."""
        position = answer.position
        if position is None or answer.status not in {200, 404}:
            return False
        if not answer.relayed:  # the position of another node's replica says nothing of this edge's
            self._ground.positions[answer.edge] = position
        floor = self._request.floor
        return floor is not None and position < floor and answer.edge in self._trusted

    def _failed(self, attempt: Attempt, error: Exception) -> None:
        reason = str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
        attempt.outcome, attempt.error = Outcome.FAILED, reason
        if not self._refusals:  # an edge's own words say more than another one's silence
            last = f"the last one tried was {attempt.edge.url}: {reason}"
            text = f"no edge answered, {last}; `kvnet ps` shows who is up"
            self._trouble = RequestError(503, UNREACHABLE, text)

    def _run_out(self) -> None:
        """Give up at the call's own time, which is no edge's fault."""
        for attempt in self._running.values():
            self._definite = self._definite and not self._request.is_write
            self._failed(attempt, TimeoutError())

    def _taken(self, answer: Answer) -> Answer:
        self._call.took_ms = (self._now() - self._began) * 1000
        self._call.headers = answer.headers
        return answer

    async def _drop(self) -> None:
        """Cancel what still runs; a streamed answer that came at the same time is closed."""
        if not self._running:
            return
        for task in self._running:
            task.cancel()
        for late in await asyncio.gather(*self._running, return_exceptions=True):
            if isinstance(late, Answer) and late.response is not None:
                late.response.close()

    def _count(self) -> None:
        tally, call = self._ground.tally, self._call
        if not self._request.is_write:
            tally.reads += 1
            self._ground.pace.earn()
        tally.hedged += call.hedged
        tally.hedges_won += any(
            each.why is Why.HEDGE and each.outcome is Outcome.ANSWERED for each in call.attempts
        )
        tally.failed_over += call.failed_over

    async def _attempt(self, attempt: Attempt) -> Answer:
        request, edge = self._request, attempt.edge
        headers, floor = request.headers, request.floor
        if floor is not None:
            known = self._ground.positions.get(edge)
            if known is None or known < floor:
                headers = request.floor_headers
                self._trusted.discard(edge)
            else:
                self._trusted.add(edge)
        sent_at = self._now()
        response = await self._ground.lines.request(
            edge,
            request.method,
            request.path,
            data=request.body(),
            headers=headers,
            patience=self._patience,
        )
        attempt.answering = True
        if not request.is_write and response.status in {200, 404}:
            self._ground.pace.record(edge, (self._now() - sent_at) * 1000)
        if request.streamed and response.status == 200:
            return Answer(edge, response.status, response.headers, b"", response)
        async with response:
            return Answer(edge, response.status, response.headers, await response.read())
