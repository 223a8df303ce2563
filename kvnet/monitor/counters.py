"""The nodes' own counters, added up over their restarts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

COUNTED: Final = (
    "frame_bytes_received",
    "frame_bytes_sent",
    "frames_received",
    "frames_duplicate",
    "messages_sent",
    "messages_received",
    "control_messages_sent",
    "asks",
    "ladder_asks",
)
"""What only grows while a node runs."""

Snapshot = Mapping[str, Mapping[str, int]]
"""Totals by node."""


class NodeCounters:
    """One node's totals over all lives that the monitor knows of, the first one from its begin."""

    def __init__(self) -> None:
        self._before: Counter[str] = Counter()
        self._now: dict[str, int] = {}
        self.parent: str | None = None
        """Where it takes the stream from; None for the coordinator, or without one."""

    def restarted(self) -> None:
        """The next `update` counts from zero again."""
        self._before.update(self._now)
        self._now = {}
        self.parent = None

    def update(self, told: Mapping[str, Any]) -> None:
        """Take what the node has counted since its start; names that aren't counters are passed over."""
        self._now = {name: value for name in COUNTED if isinstance(value := told.get(name), int)}
        parent = told.get("parent")
        self.parent = parent if isinstance(parent, str) else None

    def totals(self) -> dict[str, int]:
        return {name: self._before[name] + self._now.get(name, 0) for name in COUNTED}


def growth(since: Snapshot, now: Snapshot) -> dict[str, Counter[str]]:
    """Return by node how much each counter grew; a node that is new grew from zero."""
    grown = {}
    for node, totals in now.items():
        before = since.get(node, {})
        grown[node] = Counter({name: total - before.get(name, 0) for name, total in totals.items()})
    return grown
