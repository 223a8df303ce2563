"""Ground truth: who is up and connected, from the launcher's truth.json and the state of the WAN in it.

    {"pops": {code: {"up_since_ms": float | null}}, "coordinator": {"up_since_ms": float | null},
     "wan": {…}, "written_ms": float}

`coordinator` may be missing: then its restarts are known from its feed. An empty `wan` is the topology's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from kvnet.errors import ConfigError
from kvnet.topology.fields import COORDINATOR
from kvnet.topology.wan_state import WanState

LOSS_MAX: Final = 0.2
"""A line that loses more packets than this connects nobody."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What the launcher knows at one time."""

    up_since_ms: Mapping[str, float]
    """By PoP; one that is down isn't in it."""
    wan: WanState
    written_ms: float
    tells_coordinator: bool = False
    """Whether it knows about the coordinator too."""
    coordinator_since_ms: float | None = None
    """None while the coordinator is down, or when nothing is told about it."""

    def connected(self) -> dict[str, float]:
        """Return since when each PoP is up that is reachable from the coordinator over PoPs that are up."""
        if self.tells_coordinator and self.coordinator_since_ms is None:
            return {}
        coordinator_since_ms = self.coordinator_since_ms or 0.0
        reachable = _reachable(list(self.up_since_ms), self.wan)
        return {pop: max(self.up_since_ms[pop], coordinator_since_ms) for pop in reachable}


class TruthSource(Protocol):
    """Where the monitor learns who is up."""

    def poll(self) -> Truth | None:
        """Return ground truth, or None when nothing has changed since the last call, or nobody tells."""


class TruthFile:
    """Reads truth.json whenever it was written anew."""

    def __init__(self, path: Path, configured: WanState) -> None:
        """`configured` is the WAN that an empty `wan` stands for."""
        self._path = path
        self._configured = configured
        self._seen: tuple[int, int] | None = None

    def poll(self) -> Truth | None:
        """Return what is written there now, or None when it is what it was, or no file.

        Raises:
            ConfigError: the file can't be read as ground truth; it is passed over until it is written again.
        """
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_ino)
            if seen == self._seen:
                return None
            data = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"{self._path} can't be read ({error.strerror})") from None
        self._seen = seen
        try:
            return parse_truth(json.loads(data), self._configured)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{self._path} is not ground truth ({error!r}): restart the launcher") from None


def parse_truth(document: Mapping[str, Any], configured: WanState) -> Truth:
    """Return what the launcher wrote.

    Raises:
        ConfigError, ValueError, KeyError, TypeError, AttributeError: it is something else.
    """
    up = {code: pop["up_since_ms"] for code, pop in document["pops"].items()}
    coordinator = document.get(COORDINATOR)
    since_ms = coordinator["up_since_ms"] if coordinator is not None else None
    return Truth(
        up_since_ms={str(code): float(since) for code, since in up.items() if since is not None},
        wan=WanState.from_dict(document["wan"]) if document.get("wan") else configured,
        written_ms=float(document["written_ms"]),
        tells_coordinator=coordinator is not None,
        coordinator_since_ms=None if since_ms is None else float(since_ms),
    )


def _reachable(pops: list[str], wan: WanState) -> list[str]:
    """Return those of `pops` that a chain of good lines joins to the coordinator, in their order."""
    if not wan.cuts and not wan.pairs:
        return pops if wan.loss <= LOSS_MAX else []
    found = [COORDINATOR]
    rest = dict.fromkeys(pops)
    for node in found:  # grows while it is walked
        near = [pop for pop in rest if _is_good(wan, node, pop) and _is_good(wan, pop, node)]
        for pop in near:
            del rest[pop]
        found += near
    return [pop for pop in pops if pop not in rest]


def _is_good(wan: WanState, sender: str, receiver: str) -> bool:
    """Whether this direction is open and loses few packets enough."""
    if wan.is_cut(sender, receiver):
        return False
    fault = wan.fault(sender, receiver)
    return (wan.loss if fault is None or fault.loss is None else fault.loss) <= LOSS_MAX
