"""What an edge tells other processes that read its replica: the time, and how old its view is, at each change."""

from __future__ import annotations

from kvnet.core.events import Effect, Event
from kvnet.core.freshness import BeaconSeen, ReplicaClock
from kvnet.core.replica import Replica
from kvnet.core.state import NEVER
from kvnet.storage.serving import NO_OFFSET, BeaconView, ServingPage
from kvnet.storage.store import Store
from kvnet.transport.shaping import monotonic_ms


class Announcer:
    """Stands between driver and core, and keeps the serving page true to what the core has heard."""

    def __init__(
        self, core: Replica, store: Store, clock: ReplicaClock, page: ServingPage, start_id: bytes
    ) -> None:
        """Go on with the time that an earlier process of this boot has told: its readers have acted upon it."""
        self._core = core
        self._store = store
        self._clock = clock
        self._page = page
        self._beacon_at_ms = NEVER
        self._beacon: BeaconSeen | None = None
        offset_ms = page.offset_ms
        if offset_ms > NO_OFFSET:
            clock.on_beacon(offset_ms, 0.0)
        page.tell_time(offset_ms, clock.now_ms(monotonic_ms()))
        page.tell_start(start_id)

    @property
    def name(self) -> str:
        return self._core.name

    def handle(self, event: Event, now_ms: float) -> list[Effect]:
        """Have the core handle it; a beacon that came with it is told at once."""
        effects = self._core.handle(event, now_ms)
        if self._core.state.beacon_at != self._beacon_at_ms:
            self.tell()
        return effects

    def tell(self) -> None:
        """What is on the page is what this node would answer by."""
        state, store, page = self._core.state, self._store, self._page
        self._beacon_at_ms = state.beacon_at
        offset_ms = NO_OFFSET
        if state.beacon_at > NEVER:
            self._clock.on_beacon(state.beacon_time_ms, state.beacon_at)
            offset_ms = state.beacon_time_ms - state.beacon_at
        page.tell_time(offset_ms, self._clock.now_ms(monotonic_ms()))
        position = store.position
        self._beacon = state.beacon_seen(position.seq) or self._beacon
        beacon = state.beacon
        page.tell_view(
            BeaconView(position.epoch, position.seq, store.stamp, beacon.epoch, beacon.number, self._beacon)
        )
