"""The WAN model on the sending side: what is sent now reaches the socket when it would reach the other city.

One heap with the next delivery of every connection, one loop timer per process. Each side delays what it sends,
so a round trip has both delays. Where the model adds nothing, the bytes go straight through. What may be a little
late (`slack_ms`) goes with the first timer that others need, so that it wakes an idle process rarely.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from typing import Final, Protocol

from kvnet.topology.wan import LinkModel, Wan, WanState

IN_FLIGHT_FREE_BYTES: Final = 1024 * 1024
"""Bytes under way that don't count as unsent: what TCP's own windows would carry."""
QUEUE_BYTES_MAX: Final = 48 * 1024 * 1024
"""More than this is never queued for one connection: it dies instead. Whoever looks at `unsent_bytes` before it
sends stays far below, even with the largest frame."""
TICK_MS: Final = 1.0
"""Resolution of the loop's timers. A delivery at most half a tick early goes with the current one, so that
delays are right on average."""


SLACK_MS: Final = 40.0
"""How late something may be that nobody waits for."""


class Handle(Protocol):
    def cancel(self) -> None: ...


class Scheduled(Protocol):
    """What the shaper calls at its time."""

    scheduled_ms: float
    """When that is; inf while there is nothing to do. The shaper sets it."""

    @property
    def slack_ms(self) -> float:
        """How much later it may be, if another timer fires until then."""

    def on_due(self, until_ms: float) -> None:
        """Do what is due; `scheduled_ms` is inf again."""


def monotonic_ms() -> float:
    return time.monotonic() * 1000


class Wire:
    """One direction of one connection: bytes in now, bytes out at their time, in order."""

    __slots__ = (
        "_bytes",
        "_closed",
        "_deliver",
        "_finished",
        "_model",
        "_on_dead",
        "_queue",
        "_shaper",
        "scheduled_ms",
        "slack_ms",
    )

    def __init__(
        self,
        shaper: Shaper,
        model: LinkModel,
        deliver: Callable[[bytes], None],
        on_dead: Callable[[], None],
        slack_ms: float,
    ) -> None:
        self._shaper = shaper
        self._model = model
        self._deliver = deliver
        self._on_dead = on_dead
        self._finished: Callable[[], None] | None = None
        self._queue: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._closed = False
        self.scheduled_ms = inf
        """When the shaper looks at this wire next."""
        self.slack_ms = slack_ms

    def send(self, data: bytes) -> None:
        """Deliver `data` when the model says so; after the wire's end, never."""
        if self._closed or self._finished is not None:
            return
        now = self._shaper.now_ms()
        promised = self._model.send(now, len(data))
        if promised <= now and not self._queue:
            self._deliver(data)
            return
        self._queue.append((promised, data))
        self._bytes += len(data)
        if self._bytes > QUEUE_BYTES_MAX:
            self._die()
            return
        self._schedule()

    def finish(self, then: Callable[[], None]) -> None:
        """Take nothing more; call `then` once all that was sent is delivered."""
        if self._closed or self._finished is not None:
            return
        if self._queue:
            self._finished = then
        else:
            self.close()
            then()

    def close(self) -> None:
        """Forget what is under way."""
        self._closed = True
        self._queue.clear()
        self._bytes = 0
        self._shaper.forget(self)

    @property
    def queued_bytes(self) -> int:
        return self._bytes

    def unsent_bytes(self) -> int:
        """Bytes that a real network would not have taken yet."""
        if not self._bytes:
            return 0
        waiting = self._model.unsent_bytes(self._shaper.now_ms())
        return max(waiting, self._bytes - IN_FLIGHT_FREE_BYTES)

    def on_due(self, until_ms: float) -> None:
        """Deliver what is due; the shaper's part."""
        if self._model.dead_at_ms <= until_ms:
            self._die()
            return
        queue, due_ms = self._queue, self._model.due_ms
        while queue and due_ms(queue[0][0]) <= until_ms:
            _, data = queue.popleft()
            self._bytes -= len(data)
            self._deliver(data)
        if not queue and self._finished is not None:
            self.close()
            self._finished()
        elif not self._closed:
            self._schedule()

    def on_change(self, now_ms: float) -> None:
        """The WAN has changed; the shaper's part."""
        self._model.on_change(now_ms)
        self._schedule()

    def _schedule(self) -> None:
        due = self._model.due_ms(self._queue[0][0]) if self._queue else inf
        due = min(due, self._model.dead_at_ms)
        if due < self.scheduled_ms:
            self._shaper.schedule(self, due)

    def _die(self) -> None:
        self.close()
        self._on_dead()


class Shaper:
    """All wires of one process.

    `call_later` takes seconds and a callback; the loop's own by default.
    """

    def __init__(
        self,
        wan: Wan,
        name: str,
        rng: random.Random,
        *,
        now_ms: Callable[[], float] = monotonic_ms,
        call_later: Callable[[float, Callable[[], None]], Handle] | None = None,
    ) -> None:
        self.wan = wan
        self.now_ms = now_ms
        self._name = name
        self._rng = rng
        self._call_later = call_later
        self._wires: dict[Wire, None] = {}
        self._heap: list[tuple[float, int, Scheduled]] = []
        self._patient: dict[Scheduled, None] = {}  # what has slack stands here, not in the heap
        self._pushes = 0
        self._timer: Handle | None = None
        self._timer_ms = inf

    def open(
        self,
        peer: str,
        deliver: Callable[[bytes], None],
        on_dead: Callable[[], None],
        *,
        lossy: bool = True,
        slack_ms: float = 0.0,
    ) -> Wire:
        """Return the sending direction of a new connection to `peer`.

        `deliver` gets each message at its time; `on_dead` is called once if the model's connection dies, and
        nothing is delivered after it. Neither is called after `close`. `lossy` is False for what isn't gossip:
        it feels delay and cuts alone. `slack_ms` is how much later than the model says it may be delivered.

        Raises:
            ConfigError: no such node.
        """
        wire = Wire(self, self.wan.link(self._name, peer, self._rng, lossy=lossy), deliver, on_dead, slack_ms)
        self._wires[wire] = None
        return wire

    def apply_wan_state(self, state: WanState) -> None:
        """Put another state of the WAN in force, also for what is under way.

        Raises:
            ConfigError: it names a node that doesn't exist; nothing has changed.
        """
        self.wan.apply(state)
        now = self.now_ms()
        for wire in list(self._wires):
            wire.on_change(now)

    def close(self) -> None:
        """Forget everything that is under way."""
        for wire in list(self._wires):
            wire.close()
        self._heap.clear()
        self._patient.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- the wires' part, and the feed's ---------------------------------------------------------------------

    def schedule(self, what: Scheduled, at_ms: float) -> None:
        """Call this then; an earlier time replaces a later one."""
        what.scheduled_ms = at_ms
        if what.slack_ms:
            self._patient[what] = None
            at_ms += what.slack_ms
        else:
            self._pushes += 1
            heappush(self._heap, (at_ms, self._pushes, what))
        if at_ms < self._timer_ms - TICK_MS / 2:
            self._arm(at_ms)

    def cancel(self, what: Scheduled) -> None:
        """Don't call this any more, until it is scheduled again."""
        what.scheduled_ms = inf  # its entries in the heap are passed over
        self._patient.pop(what, None)

    def forget(self, wire: Wire) -> None:
        self._wires.pop(wire, None)
        self.cancel(wire)

    def _arm(self, at_ms: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        call_later = self._call_later or asyncio.get_running_loop().call_later
        ticks = max(0, round((at_ms - self.now_ms()) / TICK_MS))
        self._timer = call_later(ticks * TICK_MS / 1000, self._on_timer)
        self._timer_ms = at_ms

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_ms = -inf  # what is scheduled meanwhile arms no timer of its own
        until = self.now_ms() + TICK_MS / 2
        try:
            self._call_due(until)
        finally:  # one delivery that raises must not silence all others
            self._arm_next()

    def _call_due(self, until: float) -> None:
        heap, patient = self._heap, self._patient
        while heap and heap[0][0] <= until:
            at_ms, _, what = heappop(heap)
            if what.scheduled_ms == at_ms:
                what.scheduled_ms = inf
                what.on_due(until)
        for what in [what for what in patient if what.scheduled_ms <= until]:
            if what in patient:  # one before it may have cancelled it
                del patient[what]
                what.scheduled_ms = inf
                what.on_due(until)

    def _arm_next(self) -> None:
        heap, patient = self._heap, self._patient
        while heap and heap[0][2].scheduled_ms != heap[0][0]:
            heappop(heap)  # overtaken by an earlier look, or its wire is gone
        self._timer_ms = inf
        next_ms = min((what.scheduled_ms + what.slack_ms for what in patient), default=inf)
        if heap:
            next_ms = min(next_ms, heap[0][0])
        if next_ms < inf:
            self._arm(next_ms)
