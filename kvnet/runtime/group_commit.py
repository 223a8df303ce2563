"""Group commit: the coordinator's writes become durable, many by one fsync, before anybody hears of them.

A write that finds the disk idle is committed at once; those that come meanwhile share the next fsync, at most
`group_commit_ms` later. The fsync runs in a thread of its own, the only one that writes the store; the loop goes
on answering reads. Only after it are the clients answered and the frames given to the protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from kvnet.core.clock import SKEW_ALARM_MS
from kvnet.core.events import FramesCut
from kvnet.core.frames import FRAME_BYTES_TARGET, Frame
from kvnet.core.operations import Operation, PutLargeValue
from kvnet.core.versions import Position, Version
from kvnet.core.writer import Cut, ExpiringRecord, Ticket, Writer
from kvnet.errors import ProtocolError, RequestError, StorageFull
from kvnet.transport.notices import Notices
from kvnet.transport.shaping import monotonic_ms

DISK_FULL: Final = 20020
"""API code: the coordinator's disk is full."""
FULL_REST_S: Final = 0.5
"""How long a full disk is left alone; writes that come meanwhile wait and are then tried together."""
ERASE_INTERVAL_S: Final = 0.05
REMOVAL_INTERVAL_S: Final = 0.5
"""How often expired records are removed; those of one time share a frame, which every node takes."""
NOT_OPEN: Final = 20022
"""API code: the coordinator doesn't write, yet or at all."""

_log = logging.getLogger(__name__)


class CommittingStore(Protocol):
    """`storage.store.Store`, as far as group commit knows it."""

    @property
    def position(self) -> Position: ...
    def apply(
        self,
        frames: Sequence[Frame],
        requests: Sequence[tuple[bytes, Version, int]] = (),
        stale: Sequence[ExpiringRecord] = (),
    ) -> Position: ...
    def erase_some(self, budget: int = ...) -> bool: ...
    def index_some(self, budget: int = ...) -> bool: ...
    def due(self, now_s: int, limit: int) -> Sequence[ExpiringRecord]: ...


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class GroupCommit:
    """Takes writes, and answers each when it is durable."""

    def __init__(
        self,
        writer: Writer,
        store: CommittingStore,
        *,
        interval_ms: float,
        feed: Callable[[FramesCut], None],
        on_durable: Callable[[Sequence[Frame], float], None],
        broken: Callable[[BaseException], None],
        time_ms: Callable[[], float] = _wall_ms,
        removals_per_second: int = 0,
    ) -> None:
        """`on_durable` hears of each commit's frames with the wall time of its fsync, before anybody else.

        `time_ms` is what reads go by when they look for what has expired, and never goes back. So many expired
        records a second are removed at most; 0 leaves them.
        """
        self._writer = writer
        self._store = store
        self._interval_s = interval_ms / 1000
        self._feed = feed
        self._on_durable = on_durable
        self._broken = broken
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._committing: asyncio.Task[None] | None = None
        self._due: asyncio.Handle | None = None
        self._committed_at = 0.0
        self._closed = False
        self._refusal: RequestError | None = None
        self._time_ms = time_ms
        self._more_to_erase = False
        self._erasing: asyncio.TimerHandle | None = None
        self._removals_per_second = removals_per_second
        self._removal_interval_s = max(REMOVAL_INTERVAL_S, 1 / removals_per_second) if removals_per_second else 0.0
        self._removing: asyncio.TimerHandle | None = None
        self._removals_due = False
        """Removals were sequenced, and no commit has begun that takes them."""
        self._notices = Notices(_log)

    async def write(self, operations: Sequence[Operation], request_id: bytes | None) -> Version:
        """Sequence these, all or none, and return their version once it is durable.

        Raises:
            RequestError: refused, or the disk is full (nothing was written).
        """
        if self._closed:
            raise self._stopping()
        ticket = self._writer.submit(operations, request_id, monotonic_ms(), int(self._time_ms()))
        self.commit_soon()
        await self.durable(ticket.durable_at)
        return ticket.version

    def check(self, operation: PutLargeValue, request_id: bytes | None) -> Ticket | None:
        """Return the answer to a large value that needs no entry, None for one that does.

        Raises:
            RequestError: it would be refused.
        """
        if self._closed:
            raise self._stopping()
        return self._writer.check(operation, request_id, monotonic_ms(), int(self._time_ms()))

    async def run(self, task: Callable[[], None]) -> None:
        """Have the committing thread do this between two commits; nobody else may write the store.

        Raises:
            RequestError: it takes nothing more, or the disk failed.
            StorageFull, ProtocolError: the task's.
        """
        if self._closed:
            raise self._stopping()
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, task)
        except (StorageFull, ProtocolError):
            raise
        except Exception as error:
            self._fail(error)
            raise RequestError(503, NOT_OPEN, "The coordinator's disk failed") from error

    def _stopping(self) -> RequestError:
        text = "The coordinator is stopping; try again"
        return self._refusal or RequestError(503, NOT_OPEN, text, headers={"Retry-After": "1"})

    async def durable(self, seq: int) -> None:
        """Return once everything up to `seq` is durable.

        Raises:
            RequestError: the disk is full; what was not durable is undone.
        """
        if seq <= self._store.position.seq:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((seq, future))
        await future

    def commit_soon(self) -> None:
        """See to it that what is pending gets committed."""
        if self._committing is not None or not self._writer.has_pending or self._closed:
            return
        loop = asyncio.get_running_loop()
        wait_s = self._committed_at + self._interval_s - loop.time()
        full = self._writer.pending_bytes >= FRAME_BYTES_TARGET and wait_s <= self._interval_s
        if self._due is not None:
            if not full:
                return
            self._due.cancel()
        # At the end of this loop turn at the earliest: whatever else came in with it shares the fsync.
        if full or wait_s <= 0:
            self._due = loop.call_soon(self._begin)
        else:
            self._due = loop.call_later(wait_s, self._begin)

    def _begin(self) -> None:
        self._due = None
        if self._committing is None:
            self._committing = asyncio.get_running_loop().create_task(self._commit())
            self._committing.add_done_callback(self._on_end)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        """A commit that broke leaves nobody waiting, and ends the node."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    async def _commit(self) -> None:
        wall_ms = _wall_ms()
        cut = self._writer.cut(wall_ms)
        self._removals_due = False
        loop = asyncio.get_running_loop()
        rest_s = 0.0
        try:
            durable_ms = await loop.run_in_executor(self._thread, self._write, cut)
        except StorageFull as error:
            self._writer.rejected()
            self._removals_due = False
            rest_s = FULL_REST_S
            self._notices.say("storage_full", "", f"writes are refused: {error}", level=logging.ERROR)
            self._fail_waiting(
                RequestError(507, DISK_FULL, "The coordinator's disk is full; nothing was written, reads go on")
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, no later write may be acknowledged on top of it
            self._fail(error)
            return
        else:
            self._writer.committed(cut)
            if cut.frames:
                self._on_durable(cut.frames, durable_ms)
                self._feed(FramesCut(tuple(cut.frames)))
            self._answer_waiting()
            if self._refusal is not None:
                self._fail_waiting(self._refusal)
            ahead_ms = self._writer.clock_ahead_ms(wall_ms)
            if ahead_ms > SKEW_ALARM_MS:
                text = f"the wall clock is {ahead_ms} ms behind our stamps: it was set back"
                self._notices.say("clock", "", text, level=logging.ERROR)
        self._committed_at = loop.time() + rest_s
        self._committing = None
        self._erase_later()
        self._remove_later(rest_s)
        self.commit_soon()

    def _write(self, cut: Cut) -> float:
        """In the committing thread: return the wall time at which all was durable."""
        self._store.apply(cut.frames, cut.requests, cut.stale)
        durable_ms = time.time() * 1000
        self._bite()
        return durable_ms

    def _bite(self) -> None:
        """In the committing thread: erase some of what deleted namespaces left, and index some of what expires."""
        with contextlib.suppress(StorageFull):  # it needs room too, and can wait
            more = self._store.erase_some()
            if self._removals_per_second:
                more = self._store.index_some() or more
            self._more_to_erase = more

    def _erase(self) -> None:
        self._erasing = None
        if not self._closed:
            self._thread.submit(self._bite)
            self._erase_later()

    def _erase_later(self) -> None:
        """Come back for the rest, also when nobody writes."""
        if self._more_to_erase and self._erasing is None:
            self._erasing = asyncio.get_running_loop().call_later(ERASE_INTERVAL_S, self._erase)

    def _remove(self) -> None:
        """Sequence the removal of what has expired, a limited number at a time."""
        self._removing = None
        if self._closed:
            return
        limit = max(1, int(self._removals_per_second * self._removal_interval_s))
        now_s = self._time_ms() / 1000
        try:
            rows = self._store.due(int(now_s), limit)
        except Exception as error:  # noqa: BLE001 - the disk can't be read
            self._fail(error)
            return
        if rows:
            self._writer.expire(rows, now_s)
            self._removals_due = self._writer.has_pending
            self.commit_soon()
        if not self._removals_due:
            self._remove_later(0.0)

    def _remove_later(self, rest_s: float) -> None:
        """Remove what has expired, an interval from now; not before those removed last are durable, or undone.

        Until then their rows are still what is found first. A full disk is left alone for longer.
        """
        if self._removals_per_second and self._removing is None and not (self._removals_due or self._closed):
            delay_s = max(self._removal_interval_s, rest_s)
            self._removing = asyncio.get_running_loop().call_later(delay_s, self._remove)

    def _answer_waiting(self) -> None:
        durable = self._store.position.seq
        while self._waiting and self._waiting[0][0] <= durable:
            future = self._waiting.popleft()[1]
            if not future.done():
                future.set_result(None)

    def refuse(self, why: str) -> None:
        """Take nothing more; what is on its way to the disk is answered, all else is told why."""
        self._closed = True
        self._refusal = RequestError(503, NOT_OPEN, why, headers={"Retry-After": "1"})
        for handle in (self._due, self._erasing, self._removing):
            if handle is not None:
                handle.cancel()
        if self._committing is None:
            self._fail_waiting(self._refusal)

    @property
    def refuses(self) -> bool:
        return self._refusal is not None

    def _fail(self, error: BaseException) -> None:
        """Take nothing more, and have the node end."""
        self._closed = True
        self._fail_waiting(RequestError(503, NOT_OPEN, "The coordinator's disk failed", definite=False))
        self._broken(error)

    def _fail_waiting(self, error: RequestError) -> None:
        """Tell all who wait for what was undone; seqs are given out again, so nobody may keep waiting."""
        waiting, self._waiting = self._waiting, deque()
        for _, future in waiting:
            if not future.done():
                future.set_exception(error)

    async def close(self) -> None:
        """Make durable what was accepted, answer it, and take nothing more."""
        self._closed = True
        for handle in (self._due, self._erasing, self._removing):
            if handle is not None:
                handle.cancel()
        await self._settle()
        if self._writer.has_pending and not self.refuses:
            self._begin()
            await self._settle()
        self._thread.shutdown()

    async def _settle(self) -> None:
        if self._committing is not None:
            await asyncio.wait([self._committing])  # what it raised has ended the node already
