"""Writes that are answered when members have them: `KV-Wait`, and what the answer says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from aiohttp import web

from kvnet.api import codes, envelope
from kvnet.api.backend import Backend, WriteResult
from kvnet.api.conditions import version_headers
from kvnet.api.freshness import WAIT_MS_MAX, WAIT_TIMEOUT, read_milliseconds
from kvnet.core.spread import LOCAL, Share

WAIT: Final = "KV-Wait"
WAIT_MS_DEFAULT: Final = 10_000
"""In which every connected member has a write."""


class Waiting(NamedTuple):
    """What a write waits for beside being durable."""

    share: Share | None
    """Of the members; None for this replica alone."""
    timeout_ms: int


def read_waiting(headers: Mapping[str, str]) -> Waiting | None:
    """Return what a write is to wait for; None where nothing is said, and for this replica as long as ever.

    Raises:
        RequestError: that can't be read.
    """
    spelled = headers.get(WAIT)
    if spelled is None:
        return None
    try:
        share = None if spelled == LOCAL else Share.parse(spelled)
    except ValueError:
        what = "must be local, all, or a share of the PoPs such as 99%"
        raise codes.HEADER_INVALID.error(name=WAIT, what=what) from None
    return Waiting(share, read_milliseconds(headers, WAIT_TIMEOUT, WAIT_MS_DEFAULT, WAIT_MS_MAX))


async def answer_written(
    written: WriteResult, waiting: Waiting | None, backend: Backend, result: dict[str, Any] | str | None
) -> web.Response:
    """Return the answer to a durable write, when what it waits for has come true or its time is over."""
    pending = written.pending
    if waiting is not None and waiting.share is None:
        pending = pending and not await backend.wait_for(written.version, waiting.timeout_ms)
    elif waiting is not None and waiting.share is not None:
        spread = await backend.spread(written.version, waiting.share, waiting.timeout_ms)
        pending = pending and not await backend.wait_for(written.version, 0)
        assert not isinstance(result, str), "a text has no room for what has come of the waiting"
        result = {**(result or {}), **spread.to_wire()}
    response = envelope.success(result)
    response.headers.update(version_headers(written.version))
    if pending:
        response.headers["KV-Pending"] = "1"
    return response
