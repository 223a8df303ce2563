"""Sessions: what one line of thought has written and seen, and how new an answer it asks for.

All writes of a network stand in one order, and a replica is a prefix of it. So one version says it all: whoever
has it has every write of this session in every namespace, and everything that its reads have shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from kvnet.core.versions import Version

Consistency = Literal["session", "eventual"]


@dataclass(frozen=True, slots=True)
class Freshness:
    """What one read asks for; None where it doesn't mind."""

    at_least: Version | None = None
    max_staleness_ms: int | None = None
    wait_timeout_ms: int | None = None

    def headers(self, floor: Version | None) -> dict[str, str]:
        """Return it as headers; `floor` is the version that the session must find anyway."""
        headers = {}
        if self.at_least is not None or floor is not None:
            headers["KV-At-Least"] = str(max(self.at_least or NOTHING, floor or NOTHING))
        if self.max_staleness_ms is not None:
            headers["KV-Max-Staleness-Ms"] = str(self.max_staleness_ms)
        if self.wait_timeout_ms is not None:
            headers["KV-Wait-Timeout-Ms"] = str(self.wait_timeout_ms)
        return headers


ANY: Final = Freshness()
NOTHING: Final = Version(0, 0)


class Session:
    """The newest version that the session depends on, and nothing else."""

    def __init__(self, version: Version | None = None) -> None:
        self.version = version
        """None before the first answer."""

    def saw(self, headers: Mapping[str, str]) -> None:
        """Take over what an answer shows.

        A found value is as new as its version: a replica that has that version has this value or a later one. What
        isn't there, and what a list leaves out, is only known as of the replica's position.
        """
        text = headers.get("KV-Version") or headers.get("KV-Position")
        if text is None:
            return
        try:
            version = Version.parse(text)
        except ValueError:
            return  # nobody's version that we know: whoever needs it says so
        if self.version is None or version > self.version:
            self.version = version
