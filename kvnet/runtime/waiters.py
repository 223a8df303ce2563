"""Clients that wait until this replica has a version."""

from __future__ import annotations

import asyncio
from heapq import heapify, heappop, heappush
from typing import Final

from kvnet.core.versions import Position, Version

WAITERS_MAX: Final = 10_000
"""Waiting at once; whoever comes beyond is told at once that the replica isn't there yet."""


class Waiters:
    """Futures by the seq they wait for."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int, asyncio.Future[None]]] = []  # seq, epoch, tie, future
        self._count = 0
        self._live = 0

    async def wait(self, version: Version, position: Position, timeout_ms: float) -> bool:
        """Return whether the replica, now at `position`, has `version` before the time is over."""
        if _reached(position, version.epoch, version.seq):
            return True
        if timeout_ms <= 0 or self._live >= WAITERS_MAX:
            return False
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        self._live += 1
        heappush(self._heap, (version.seq, version.epoch, self._count, future))
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await future
        except TimeoutError:
            return False
        else:
            return True
        finally:
            self._live -= 1
            future.cancel()  # no-op once it has its result
            if len(self._heap) > 2 * self._live + 64:
                self._heap = [entry for entry in self._heap if not entry[3].done()]
                heapify(self._heap)

    def release(self, position: Position) -> None:
        """Wake all whose version the replica now has."""
        heap = self._heap
        while heap and (heap[0][3].done() or _reached(position, heap[0][1], heap[0][0])):
            future = heappop(heap)[3]
            if not future.done():
                future.set_result(None)


def _reached(position: Position, epoch: int, seq: int) -> bool:
    """Seqs never restart; a version of a later epoch isn't had by reaching its seq in an earlier one."""
    return position.seq >= seq and position.epoch >= epoch
