"""What a node is given when it starts, and how it tells its launcher how far it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kvnet.core.versions import Version
from kvnet.topology.schema import Topology
from kvnet.topology.wan_state import WanState

MESSAGE_CHARACTERS_MAX: Final = 1000
"""A line below the 4,096 bytes that a pipe takes in one piece."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeContext:
    """One node's place in the network and on this host; the same under a launcher and alone."""

    name: str
    """`coordinator`, `monitor`, or the PoP's code."""
    topology: Topology
    data: Path
    """The run folder."""
    folder: Path
    """This node's own folder in it; it exists."""
    secret: bytes
    """What the cluster's nodes prove to each other that they know."""
    account_id: str
    """32 hex digits; empty at a node alone on its host, which learns it from the catalogue."""
    tokens: Mapping[str, str] | None = None
    """Bearer token by scope (`admin`, `write`, `read`); None at nodes that need none."""
    wan_state: WanState | None = None
    """What disturbs the simulated network at this start; None as the topology has it."""
    log_level: str = "info"
    accept_loss: bool = False
    """The coordinator may open a new epoch although the network is ahead of it."""
    recover: bool = False
    """The coordinator may start from an empty disk although the network has data."""
    ready_fd: int | None = None
    """Pipe to the launcher; None when nobody listens."""

    def say_ready(self) -> None:
        """Tell the launcher that this node listens."""
        self._say("ready")

    def say_formed(self, version: Version) -> None:
        """Tell the launcher that this node takes part.

        An edge has a parent and holds the catalogue at `version`, the head that the first beacon named; the
        coordinator's head was `version` when it opened for writes.
        """
        self._say(f"formed {version}")

    def say_failed(self, message: str) -> None:
        """Tell the launcher why this node can't start; the process ends with 1 or 2 after it."""
        self._say("failed " + " ".join(message.split())[:MESSAGE_CHARACTERS_MAX])

    def _say(self, line: str) -> None:
        if self.ready_fd is not None:
            os.write(self.ready_fd, line.encode() + b"\n")
