"""What the launcher tells the world in files: cluster.json for clients, truth.json for the monitor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from kvnet.topology.schema import Topology
from kvnet.topology.wan_state import WanState
from nodes.cluster import Identity, RunFolder
from nodes.roster import Roster
from nodes.truth import write_truth

PUBLISH_DELAY_S: Final = 0.05
"""Changes within this time are published together."""


class Bulletin:
    """Keeps both files true to the roster; a full disk delays them, it stops nothing."""

    def __init__(
        self,
        folder: RunFolder,
        topology: Topology,
        identity: Identity,
        roster: Roster,
        wan: Callable[[], WanState],
        on_problem: Callable[[str], None],
    ) -> None:
        """`wan` is asked for what ground truth says about the network between the nodes."""
        self._folder = folder
        self._topology = topology
        self._identity = identity
        self._roster = roster
        self._wan = wan
        self._on_problem = on_problem
        self._pending: asyncio.TimerHandle | None = None
        self._pids: dict[str, int | None] | None = None
        """As last written."""
        self._closed = False

    def publish_soon(self) -> None:
        """Have what has changed published within PUBLISH_DELAY_S."""
        if self._pending is None and not self._closed:
            self._pending = asyncio.get_running_loop().call_later(PUBLISH_DELAY_S, self.publish)

    def publish(self) -> None:
        """Write truth.json, and cluster.json when a pid is another one."""
        if self._pending:
            self._pending.cancel()
            self._pending = None
        pids = self._roster.pids()
        try:
            write_truth(self._folder.truth_file, self._roster.up_since_ms(), self._wan(), time.time() * 1000)
            if pids != self._pids:
                self._folder.write_cluster(self._topology, self._identity, pids)
                self._pids = pids
        except OSError as error:
            self._on_problem(f"{self._folder.path} can't be written ({error.strerror}): is its disk full?")

    def close(self) -> None:
        """Publish for the last time."""
        self._closed = True
        self.publish()
