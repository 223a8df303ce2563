"""Expiry: what has a time to live is hidden from then on, at every node by its own time, and removed."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from kvnet.core.entries import Delete
from kvnet.core.frames import Frame
from kvnet.core.versions import Version
from kvnet.simulator.checking import Checker
from kvnet.simulator.disk import SimulatedDisk
from kvnet.simulator.node import SimulatedNode
from kvnet.simulator.world import ROOT, World

BRIEF: Final = b"brief-"
"""What keys begin with that only an expiry takes away: no client deletes them."""
REMOVED_MS: Final = 8000.0
"""In what time all that has expired is removed by a coordinator that nothing disturbs."""
INTERVALS_PER_S: Final = 3
"""Removals of so many intervals may share a second, its first and its last moment included."""


class ExpiredIsGone(Checker):
    """What a node has once hidden it never shows again; nothing but what has expired is removed, and all of it.

    A node may lose the time it has reached with the power, or with its disk; it begins anew then.
    """

    name = "expired is gone"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.hidden_count = 0
        """Records that were seen to be hidden and still there."""
        self.removed = 0
        self._hidden: dict[str, dict[tuple[bytes, bytes], Version]] = {}
        self._time_of: dict[str, tuple[SimulatedDisk, int]] = {}
        """By node: its disk, and how often that had lost its time."""
        self._removals: dict[str, deque[float]] = {}
        self._overdue_since: dict[tuple[bytes, bytes], tuple[Version, float]] = {}
        """At the coordinator: when a record that is still there was first seen to have expired."""

    def on_durable(self, node: SimulatedNode, frames: Sequence[Frame]) -> None:
        for frame in frames:
            for seq, entry in enumerate(frame.entries(), frame.first_seq):
                if isinstance(entry, Delete) and entry.key.startswith(BRIEF):
                    self._look_at_removal(node, frame, entry, seq)

    def _look_at_removal(self, node: SimulatedNode, frame: Frame, entry: Delete, seq: int) -> None:
        self.removed += 1
        gone = self.world.history.fold(frame.chain_before).get((entry.namespace, entry.key))
        now_s = node.replica_time_s()
        if gone is None or not 0 < gone.expires_at <= now_s:
            when = "which wasn't there" if gone is None else f"which expires at {gone.expires_at}"
            self.fail(f"{node.id} removed {entry.key!r}, {when}, at {now_s:.3f}", node=node.id, seq=seq)
        times = self._removals.setdefault(node.id, deque())
        times.append(self.world.now)
        while times[0] < self.world.now - 1000:
            times.popleft()
        if len(times) > INTERVALS_PER_S * self.world.desks[node.id].removals_at_once:
            self.fail(f"{node.id} removed {len(times)} records within a second", node=node.id, seq=seq)

    def look(self) -> None:
        for node in self.world.live():
            disk = node.disk
            if disk.expiring:
                self._look_at(node, node.replica_time_s())
        self._look_for_overdue()

    def _look_at(self, node: SimulatedNode, now_s: float) -> None:
        disk = node.disk
        known = disk, disk.clocks_lost
        if self._time_of.get(node.id) != known:
            self._time_of[node.id] = known
            self._hidden.pop(node.id, None)
        hidden = self._hidden.setdefault(node.id, {})
        for place, expires_at in disk.expiring.items():
            record = disk.get(*place)
            assert record is not None
            if expires_at <= now_s:
                self.hidden_count += hidden.get(place) != record.version
                hidden[place] = record.version
            elif hidden.get(place) == record.version:
                what = f"{place[1]!r} of {record.version}, which had expired"
                self.fail(f"{node.id} shows {what}", node=node.id, seq=record.version.seq)

    def _look_for_overdue(self) -> None:
        root = self.world.root
        if root.core is None:
            return
        now_s, before = root.replica_time_s(), self._overdue_since
        self._overdue_since = {}
        for place, expires_at in root.disk.expiring.items():
            record = root.disk.get(*place)
            if expires_at <= now_s and record is not None:
                since = before.get(place)
                is_known = since is not None and since[0] == record.version
                self._overdue_since[place] = since if is_known and since else (record.version, self.world.now)

    def finish(self) -> None:
        """Look what is left, once nothing has disturbed the coordinator for a while."""
        world = self.world
        world.look()
        for (_, key), (version, since) in self._overdue_since.items():
            if world.now - max(since, world.desk.opened_at) >= REMOVED_MS:
                what = f"{key!r} of {version} has expired and is still there"
                self.fail(f"{what} after {world.now - since:.0f} ms", node=ROOT, seq=version.seq)
