"""The driver's part in a bootstrap: pages given and taken, and the proof, in bites that readers don't feel.

One page is read, or stored, or one bite replayed at a time, and then the loop turns; reading pages for others
rests for twice as long as it took, so that it never has more than a third of the loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from kvnet.core.events import (
    BootstrapFailed,
    Bootstrapped,
    ChunksLacking,
    Event,
    PageSent,
    PageStored,
    PageUnusable,
)
from kvnet.core.messages import Page
from kvnet.core.versions import Position
from kvnet.errors import ChunksMissing, Divergence, PageDamaged, ProtocolError, StorageDamaged, StorageFull
from kvnet.runtime.bulk import BulkLane

READING_SHARE: Final = 3
"""One part reading pages for others, of so many parts of the loop's time."""
FULL_RETRY_S: Final = 0.5


class PagedStore(Protocol):
    """`storage.store.Store`, as far as it is known here."""

    @property
    def position(self) -> Position: ...
    def read_page(self, after: bytes) -> Page: ...
    def begin_successor(self, position: Position) -> None: ...
    def store_page(self, page: Page) -> None: ...
    def abandon_successor(self) -> None: ...
    def replay_some(self, until: Position, digest: bytes) -> Position | None: ...
    def sync_successor(self) -> None: ...


class SuccessorWork:
    """Pages on their way out and in, and the successor's proof."""

    def __init__(
        self,
        store: PagedStore,
        bulk: BulkLane,
        *,
        feed: Callable[[Event], None],
        adopted: Callable[[Position], None],
        damaged: Callable[[StorageDamaged], None],
        report: Callable[[str, str], None],
        broken: Callable[[BaseException], None],
    ) -> None:
        """`adopted` hears that readers see another replica, before the core does."""
        self._store = store
        self._bulk = bulk
        self._feed = feed
        self._adopted = adopted
        self._damaged = damaged
        self._report = report
        self._broken = broken
        self._reads: deque[tuple[str, bytes]] = deque()
        self._pages: deque[Page] = deque()
        self._proof: tuple[Position, bytes] | None = None
        self._waits_for_chunks = False
        self._reading: asyncio.TimerHandle | None = None
        self._rests_until = 0.0
        self._working: asyncio.TimerHandle | None = None
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True
        for handle in (self._reading, self._working):
            if handle is not None:
                handle.cancel()

    # -- for others ------------------------------------------------------------------------------------------

    def send_page(self, peer: str, after: bytes) -> None:
        """Read the page behind this place and send it, when it is its turn."""
        self._reads.append((peer, after))
        self._read_soon()

    def _read_soon(self) -> None:
        if self._reading is None and self._reads and not self._stopped:
            rest_s = self._rests_until - time.perf_counter()
            self._reading = asyncio.get_running_loop().call_later(max(0.0, rest_s), self._read_one)

    def _read_one(self) -> None:
        peer, after = self._reads.popleft()
        begun = time.perf_counter()
        try:
            page = self._store.read_page(after)
        except StorageDamaged as damage:
            self._reads.clear()
            self._reading = None
            self._damaged(damage)
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the node must not go on with half an effect
            self._broken(error)
            return
        self._bulk.send(peer, page)
        self._bulk.flush()
        self._feed(PageSent(peer, page.until))  # most often it asks for the next one
        ended = time.perf_counter()
        self._rests_until = ended + (ended - begun) * (READING_SHARE - 1)
        self._reading = None
        self._read_soon()

    # -- for ourselves ---------------------------------------------------------------------------------------

    def begin(self, position: Position) -> None:
        self._forget()
        try:
            self._store.begin_successor(position)
        except StorageFull as error:
            self._report("storage_full", f"a replica can't be made anew: {error}")
            self._feed(BootstrapFailed(str(error)))

    def store_page(self, page: Page) -> None:
        self._pages.append(page)
        self._work_soon()

    def finish(self, until: Position, digest: bytes) -> None:
        """Prove it, as soon as what is there is on the disk: little is then left for the moment of the swap."""
        self._proof = proof = (until, digest)
        self._waits_for_chunks = False
        syncing = asyncio.get_running_loop().run_in_executor(None, self._store.sync_successor)
        syncing.add_done_callback(partial(self._on_synced, proof))

    def _on_synced(self, proof: tuple[Position, bytes], syncing: asyncio.Future[None]) -> None:
        error = None if syncing.cancelled() else syncing.exception()
        if self._proof is not proof:
            return  # given up meanwhile, and whatever went wrong with it
        if isinstance(error, StorageFull):
            self._report("storage_full", f"a replica in the making waits: {error}")
            self._work_soon(FULL_RETRY_S)
        elif error is not None:
            self._broken(error)
        else:
            self._work_soon()

    def abandon(self) -> None:
        self._forget()
        try:
            self._store.abandon_successor()
        except StorageFull as error:  # the next one takes its place
            self._report("storage_full", f"a replica in the making stays on the disk: {error}")

    def emptied(self) -> None:
        """The store has thrown everything away."""
        self._forget()

    def chunks_came(self) -> None:
        if self._waits_for_chunks:
            self._waits_for_chunks = False
            self._work_soon()

    def _forget(self) -> None:
        self._pages.clear()
        self._proof = None
        self._waits_for_chunks = False
        if self._working is not None:
            self._working.cancel()
            self._working = None

    def _work_soon(self, delay_s: float = 0.0) -> None:
        if self._working is None and not self._stopped:
            self._working = asyncio.get_running_loop().call_later(delay_s, self._work)

    def _work(self) -> None:
        self._working = None
        try:
            if self._pages:
                self._store_one(self._pages[0])
            elif self._proof is not None and not self._waits_for_chunks:
                self._replay(*self._proof)
        except StorageFull as error:
            self._report("storage_full", f"a replica in the making waits: {error}")
            self._work_soon(FULL_RETRY_S)
        except Exception as error:  # noqa: BLE001 - as above
            self._broken(error)

    def _store_one(self, page: Page) -> None:
        event: Event
        try:
            self._store.store_page(page)
            event = PageStored(page.until)
        except PageDamaged as damage:
            event = PageUnusable(str(damage))
        self._pages.popleft()
        self._work_soon()
        self._feed(event)

    def _replay(self, until: Position, digest: bytes) -> None:
        try:
            position = self._store.replay_some(until, digest)
        except ChunksMissing as missing:
            self._waits_for_chunks = True
            self._feed(ChunksLacking(missing.hashes))
            return
        except (Divergence, ProtocolError) as error:
            self._proof = None
            self._feed(BootstrapFailed(str(error)))
            return
        if position is None:
            self._work_soon()
            return
        self._proof = None
        self._adopted(position)
        self._feed(Bootstrapped(position))
