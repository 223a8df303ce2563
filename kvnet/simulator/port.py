"""What the core reads of a simulated disk, as storage/port.py shows it the real one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvnet.core.events import BootstrapProgress
from kvnet.core.frames import Frame
from kvnet.core.versions import Position
from kvnet.simulator.journal import SimulatedJournal

if TYPE_CHECKING:
    from kvnet.simulator.disk import SimulatedDisk


class DiskJournal:
    """The journal that the core follows: the successor's while there is one, else the replica's."""

    __slots__ = ("_disk",)

    def __init__(self, disk: SimulatedDisk) -> None:
        self._disk = disk

    @property
    def _journal(self) -> SimulatedJournal:
        successor = self._disk.successor
        return self._disk.journal if successor is None else successor.journal

    @property
    def position(self) -> Position:
        return self._journal.position

    @property
    def horizon_seq(self) -> int:
        return self._journal.horizon_seq

    def frames_after(self, seq: int, bytes_max: int) -> list[Frame]:
        return self._journal.frames_after(seq, bytes_max)

    def holds(self, position: Position) -> bool:
        return self._journal.holds(position)

    def end_before(self, seq: int) -> Position | None:
        return self._journal.end_before(seq)

    @property
    def served(self) -> Position:
        return self._disk.position

    @property
    def verified(self) -> bool:
        return self._disk.verified

    @property
    def bootstrap(self) -> BootstrapProgress | None:
        successor = self._disk.successor
        return None if successor is None else successor.progress

    def lacking_chunks(self, hashes: Sequence[bytes]) -> list[bytes]:
        return self._disk.lacking_chunks(hashes)
