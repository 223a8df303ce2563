"""How new a replica's view is: what answers say of it, and what requests ask of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Final, NamedTuple

from kvnet.api import codes
from kvnet.api.backend import Backend
from kvnet.api.query import read_integer
from kvnet.core.catalog import Scope
from kvnet.core.versions import Version
from kvnet.errors import RequestError

STALENESS_STEP_MS: Final = 500
"""Staleness is told in these steps, upwards: it stays an upper bound, and answers repeat between beacons."""
WAIT_MS_DEFAULT: Final = 1000
"""Long enough for the next beacon, which comes each half second."""
WAIT_MS_MAX: Final = 30_000
AT_LEAST: Final = "KV-At-Least"
MAX_STALENESS: Final = "KV-Max-Staleness-Ms"
WAIT_TIMEOUT: Final = "KV-Wait-Timeout-Ms"


class Wanted(NamedTuple):
    """How new a view a request asks for; None where it doesn't mind."""

    at_least: Version | None
    staleness_ms: int | None
    timeout_ms: int
    """How long this replica may take to become so."""


class Shortfall(NamedTuple):
    """What a request asks for and this replica isn't."""

    wanted: Wanted
    behind: bool
    """The version isn't there; otherwise the view may be too old."""

    def refusal(self, backend: Backend, *, asked: str = "nobody") -> RequestError:
        """Return the error; `asked` tells who else was asked for an answer."""
        wanted = self.wanted
        if self.behind:
            return codes.STILL_BEHIND.error(
                name=backend.name,
                position=backend.store.position.version,
                wanted=wanted.at_least,
                timeout_ms=wanted.timeout_ms,
                asked=asked,
            )
        staleness_ms = backend.staleness_ms()
        shown_ms = math.ceil(staleness_ms) if math.isfinite(staleness_ms) else "any number of"
        return codes.TOO_STALE.error(
            name=backend.name, staleness_ms=shown_ms, allowed_ms=wanted.staleness_ms, asked=asked
        )


def freshness_headers(backend: Backend) -> dict[str, str]:
    """Return position and staleness; nothing of the latter while there is no bound on it."""
    headers = {"KV-Position": str(backend.store.position.version)}
    staleness_ms = backend.staleness_ms()
    if math.isfinite(staleness_ms):
        headers["KV-Staleness-Ms"] = str(math.ceil(staleness_ms / STALENESS_STEP_MS) * STALENESS_STEP_MS)
    return headers


async def meet_freshness(headers: Mapping[str, str], scope: Scope, backend: Backend) -> Shortfall | None:
    """Wait until this replica is as new as the request asks: `KV-At-Least`, and for reads `KV-Max-Staleness-Ms`.

    Return what it lacks when the time is over, None if that is nothing.

    Raises:
        RequestError: a header can't be read.
    """
    if AT_LEAST not in headers and MAX_STALENESS not in headers:
        return None
    wanted = _read_wanted(headers, scope)
    loop = asyncio.get_running_loop()
    began = loop.time()
    if wanted.at_least is not None and not await backend.wait_for(wanted.at_least, wanted.timeout_ms):
        return Shortfall(wanted, behind=True)
    if wanted.staleness_ms is not None:
        left_ms = max(0.0, wanted.timeout_ms - (loop.time() - began) * 1000)
        if not await backend.wait_until_fresh(wanted.staleness_ms, left_ms):
            return Shortfall(wanted, behind=False)
    return None


def _read_wanted(headers: Mapping[str, str], scope: Scope) -> Wanted:
    at_least = allowed_ms = None
    if AT_LEAST in headers:
        try:
            at_least = Version.parse(headers[AT_LEAST])
        except ValueError:
            what = "must be <epoch>-<seq>, for example 1-42"
            raise codes.HEADER_INVALID.error(name=AT_LEAST, what=what) from None
    if scope is Scope.READ and MAX_STALENESS in headers:
        allowed_ms = read_milliseconds(headers, MAX_STALENESS, 0, None)
    timeout_ms = read_milliseconds(headers, WAIT_TIMEOUT, WAIT_MS_DEFAULT, WAIT_MS_MAX)
    return Wanted(at_least, allowed_ms, timeout_ms)


def read_milliseconds(headers: Mapping[str, str], name: str, default: int, most: int | None) -> int:
    """Return the header's number, `default` without it.

    Raises:
        RequestError: it is none, or too large.
    """
    text = headers.get(name)
    if text is None:
        return default
    number = read_integer(text)
    if number is None or number < 0 or (most is not None and number > most):
        allowed = "of at least 0" if most is None else f"from 0 to {most}"
        raise codes.HEADER_INVALID.error(name=name, what=f"must be an integer {allowed}")
    return number
