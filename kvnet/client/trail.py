"""The trail: which edges a program's calls asked, why, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum

from kvnet.client.directory import Edge


class Why(StrEnum):
    """Why an edge was asked."""

    FIRST = "first"
    FAILOVER = "failover"
    """Those before it failed or refused."""
    HEDGE = "hedge"
    """The one before it was slow."""


class Outcome(StrEnum):
    """What became of it."""

    ANSWERED = "answered"
    REFUSED = "refused"
    FAILED = "failed"
    DROPPED = "dropped"
    """Another edge was faster, or the time was over."""


@dataclass(slots=True)
class Attempt:
    """One request to one edge."""

    edge: Edge
    why: Why
    outcome: Outcome = Outcome.DROPPED
    error: str = ""
    """What it failed with; empty if it didn't."""
    began_ms: float = 0.0
    """Since the call began."""
    took_ms: float | None = None
    """Until the answer was there, or the failure; None when nobody waited for it."""
    answering: bool = False
    """Whether the answer has begun."""


@dataclass(slots=True)
class Call:
    """One call: what it asked for, whom, and which answer it took."""

    method: str
    path: str
    attempts: list[Attempt] = field(default_factory=list)
    took_ms: float | None = None
    """None while it goes on, and for one that failed."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the answer."""

    @property
    def hedged(self) -> bool:
        """Whether another edge was asked because one was slow."""
        return any(attempt.why is Why.HEDGE for attempt in self.attempts)

    @property
    def failed_over(self) -> bool:
        """Whether another edge was asked because one failed or refused."""
        return any(attempt.why is Why.FAILOVER for attempt in self.attempts)

    @property
    def answered_by(self) -> Edge | None:
        """The edge that was asked and whose answer was taken."""
        return next((each.edge for each in self.attempts if each.outcome is Outcome.ANSWERED), None)


_recorded: ContextVar[list[Call] | None] = ContextVar("kvnet_trail", default=None)


@contextmanager
def trail() -> Iterator[list[Call]]:
    """Yield a list that every call made inside is added to, in the order in which they begin."""
    calls: list[Call] = []
    token = _recorded.set(calls)
    try:
        yield calls
    finally:
        _recorded.reset(token)


def begin(method: str, path: str) -> Call:
    """Return the record of a call that begins now."""
    call = Call(method, path)
    calls = _recorded.get()
    if calls is not None:
        calls.append(call)
    return call
