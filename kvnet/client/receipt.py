"""Receipts: how far a write had spread when its answer came, for those who wait for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kvnet.client.answers import Answer
from kvnet.core.versions import Version

Wait = str
"""`local`, a share of the PoPs such as `99%`, or `all`."""
LOCAL: Final = "local"
WAIT_MS_DEFAULT: Final = 10_000
"""Patience with a wait that was given no end: the bound for a write to be everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A durable write, and which PoPs had it in time."""

    version: Version
    complete: bool
    """Whether all that were waited for have it."""
    applied: int
    """PoPs that have it."""
    of: int
    """PoPs that there are."""
    missing: tuple[str, ...] = ()
    """Codes of those that don't have it, as far as they were told."""
    took_ms: Mapping[str, float] = field(default_factory=dict)
    """Milliseconds, as the network tells them."""


class Waiting:
    """What a write waits for; with None for nothing, and a version is its outcome."""

    def __init__(self, wait: Wait | None, timeout_ms: int | None) -> None:
        """Wait for so many, `timeout_ms` at most.

        Raises:
            ValueError: there is a time, and nothing to wait for.
        """
        if wait is None and timeout_ms is not None:
            raise ValueError("wait_timeout_ms says for how long: say with wait for what, 'local', '99%' or 'all'")
        self._wait = wait
        fields = {"KV-Wait": wait, "KV-Wait-Timeout-Ms": timeout_ms}
        self.headers = {name: str(value) for name, value in fields.items() if value is not None}
        patience_ms = 0 if wait is None else WAIT_MS_DEFAULT if timeout_ms is None else timeout_ms
        self.patience_s = patience_ms / 1000
        """What the answer may take beside the write itself."""

    def outcome(self, answer: Answer) -> Version | Receipt:
        """Return the version of a write, or its receipt if it was waited for.

        Raises:
            RequestError: it was refused, or this is no edge's answer.
        """
        result = answer.envelope()["result"]
        version = answer.version
        if self._wait is None:
            return version
        told = result if isinstance(result, dict) and "complete" in result else _here_alone(answer)
        return Receipt(
            version=version,
            complete=bool(told["complete"]),
            applied=int(told.get("applied", 0)),
            of=int(told.get("of", 0)),
            missing=tuple(told.get("missing") or ()),
            took_ms=dict(told.get("took_ms") or {}),
        )


def _here_alone(answer: Answer) -> dict[str, Any]:
    """Return what a plain answer tells: whether the PoP that was asked has the write."""
    pending = "KV-Pending" in answer.headers
    missing = [answer.pop] if pending else []
    return {"complete": not pending, "applied": 0 if pending else 1, "of": 1, "missing": missing}
