"""Virtual time: one heap of things to happen, in the order of their times and of being ordered."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any


class Timeline:
    """What happens next; time goes on from one thing to the other."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[Any], object], Any]] = []
        self._order = 0

    def at(self, time_ms: float, action: Callable[[Any], object], argument: Any) -> None:
        """Have `action(argument)` happen then, after all that was ordered for that time before."""
        self._order += 1
        heappush(self._heap, (time_ms, self._order, action, argument))

    def run_until(self, time_ms: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= time_ms:
            self.now, _, action, argument = heappop(heap)
            action(argument)
        self.now = max(self.now, time_ms)

    def run_while(self, condition: Callable[[], bool], limit_ms: float) -> bool:
        """Run until the condition fails; return False if it still held after `limit_ms`."""
        end = self.now + limit_ms
        while condition():
            if not self._heap or self._heap[0][0] > end:
                return False
            self.run_until(self._heap[0][0])
        return True
