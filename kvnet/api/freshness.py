"""How new a replica's view is: what answers say of it, and what requests ask of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from kvnet.api import codes
from kvnet.api.backend import Backend
from kvnet.api.query import read_integer
from kvnet.core.catalog import Scope
from kvnet.core.versions import Version

STALENESS_STEP_MS: Final = 500
"""Staleness is told in these steps, upwards: it stays an upper bound, and answers repeat between beacons."""
WAIT_MS_DEFAULT: Final = 1000
WAIT_MS_MAX: Final = 30_000


def freshness_headers(backend: Backend) -> dict[str, str]:
    """Return position and staleness; nothing of the latter while there is no bound on it."""
    headers = {"KV-Position": str(backend.store.position.version)}
    staleness_ms = backend.staleness_ms()
    if math.isfinite(staleness_ms):
        headers["KV-Staleness-Ms"] = str(math.ceil(staleness_ms / STALENESS_STEP_MS) * STALENESS_STEP_MS)
    return headers


async def meet_freshness(headers: Mapping[str, str], scope: Scope, backend: Backend) -> None:
    """Wait until this replica is as new as the request asks: `KV-At-Least`, and for reads `KV-Max-Staleness-Ms`.

    Raises:
        RequestError: it isn't and didn't become so in time, or a header can't be read.
    """
    at_least = headers.get("KV-At-Least")
    if at_least is not None:
        try:
            wanted = Version.parse(at_least)
        except ValueError:
            what = "must be <epoch>-<seq>, for example 1-42"
            raise codes.HEADER_INVALID.error(name="KV-At-Least", what=what) from None
        timeout_ms = _milliseconds(headers, "KV-Wait-Timeout-Ms", WAIT_MS_DEFAULT, WAIT_MS_MAX)
        if not await backend.wait_for(wanted, timeout_ms):
            raise codes.STILL_BEHIND.error(
                name=backend.name, position=backend.store.position.version, wanted=wanted, timeout_ms=timeout_ms
            )
    if scope is Scope.READ and "KV-Max-Staleness-Ms" in headers:
        allowed_ms = _milliseconds(headers, "KV-Max-Staleness-Ms", 0, None)
        staleness_ms = backend.staleness_ms()
        if staleness_ms > allowed_ms:
            shown_ms = math.ceil(staleness_ms) if math.isfinite(staleness_ms) else "any number of"
            raise codes.TOO_STALE.error(name=backend.name, staleness_ms=shown_ms, allowed_ms=allowed_ms)


def _milliseconds(headers: Mapping[str, str], name: str, default: int, most: int | None) -> int:
    text = headers.get(name)
    if text is None:
        return default
    number = read_integer(text)
    if number is None or number < 0 or (most is not None and number > most):
        allowed = "of at least 0" if most is None else f"from 0 to {most}"
        raise codes.HEADER_INVALID.error(name=name, what=f"must be an integer {allowed}")
    return number
