"""The coordinator's desk in a simulated world: the unchanged writer, and group commit over a simulated disk.

As runtime/group_commit.py does it: a write that finds the disk idle is committed at once; those that come
meanwhile share the next fsync, at most `group_commit_ms` later. A write is acknowledged, and its frame given to
the protocol, only after the fsync.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import StrEnum
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from kvnet.core.catalog import Namespace
from kvnet.core.events import ChunksReady, FramesCut
from kvnet.core.manifest import Manifest
from kvnet.core.operations import Operation, PutLargeValue
from kvnet.core.pieces import BUSY, UNDER_WAY_MAX
from kvnet.core.replica import Replica
from kvnet.core.versions import Version
from kvnet.core.writer import Cut, Ticket, Writer
from kvnet.errors import ChunksMissing, RequestError, StorageFull
from kvnet.limits import Limits
from kvnet.simulator.node import SimulatedNode

if TYPE_CHECKING:
    from kvnet.simulator.world import World

NAMESPACE: Final = bytes.fromhex("5eed" * 8)
"""The namespace that simulated writes go to."""
FULL_REST_MS: Final = 500.0
REMOVAL_INTERVAL_MS: Final = 500.0
"""How often expired records are removed, as runtime/group_commit.py does."""
COMPLETED_SHARE: Final = 0.5
"""How often a transaction under way is complete when its process dies."""

Answer = Callable[[bool], None]
"""Hears True once the write is durable, False when nothing of it was written."""


class CrashPoint(StrEnum):
    """Where in a commit a coordinator is killed."""

    APPEND = "append"
    """Sequenced, and nothing written."""
    FSYNC = "fsync"
    """The disk is busy with it; it may turn out to be there or not."""
    SEND = "send"
    """Durable, and nobody told."""


class _Offered(NamedTuple):
    """A large value whose chunks are on their way."""

    operation: PutLargeValue
    request_id: bytes
    promised: Callable[[Version], None]
    answer: Answer


class Desk:
    """One coordinator's writing, from its epoch to its end."""

    def __init__(self, world: World, node: SimulatedNode, epoch: int, limits: Limits) -> None:
        core = node.core
        assert core is not None
        self.world = world
        self.node = node
        self.core: Replica = core
        self.opened_at = world.now
        self.writer = Writer(node.disk, limits)
        self.fsync_ms: Callable[[], float] = lambda: 0.0
        """How long the next fsync takes."""
        self.crash_at: CrashPoint | None = None
        self.is_closed = False
        """Its core has ordered that nothing more be written."""
        self._waiting: list[tuple[int, Answer]] = []
        self._offered: dict[bytes, _Offered] = {}
        """Large values whose chunks are on their way, by the offer's id."""
        self._committing: Cut | None = None
        """What the disk is busy with."""
        self._committed_at = -inf
        self._due = inf
        per_s = world.removals_per_s
        self._removal_ms = max(REMOVAL_INTERVAL_MS, 1000 / per_s) if per_s else inf
        self.removals_at_once = max(1, int(per_s * self._removal_ms / 1000)) if per_s else 0
        self._is_to_remove = False
        """Somebody will come and look for what has expired."""
        self._removals_due = False
        """Removals were sequenced, and no commit has begun that takes them."""
        node.clock.go_on(node.clock_ms())
        nonce = world.rng.getrandbits(128).to_bytes(16, "big")
        founding = [] if NAMESPACE in node.disk.namespaces else [Namespace(NAMESPACE, "simulated", 0)]
        self.writer.open_epoch(epoch, nonce, founding)

    @property
    def is_open(self) -> bool:
        """Whether this is the desk of a coordinator that runs and may write."""
        return self.node.core is self.core and not self.is_closed

    def submit(self, operations: Sequence[Operation], request_id: bytes | None, answer: Answer) -> Ticket:
        """Sequence these, all or none; `answer` hears what became of them, unless the coordinator dies.

        Raises:
            RequestError: refused; nothing was sequenced.
        """
        time_ms = int(self.node.replica_time_s() * 1000)
        ticket = self.writer.submit(operations, request_id, self.node.clock_ms(), time_ms)
        self._waiting.append((ticket.durable_at, answer))
        return ticket

    def submit_large(
        self,
        operation: PutLargeValue,
        request_id: bytes,
        promised: Callable[[Version], None],
        answer: Answer,
    ) -> None:
        """Keep a large value's chunks and offer them; it is submitted when they are everywhere, or in 6 s.

        `promised` hears its version then, before `answer` hears that it is durable.

        Raises:
            StorageFull: nothing of it will be seen.
            RequestError: too many are under way.
        """
        if any(offered.request_id == request_id for offered in self._offered.values()):
            return  # that one is under way
        if len(self._offered) >= UNDER_WAY_MAX:
            raise RequestError(503, BUSY, "too many large values under way")
        names = Manifest.unpack(operation.manifest).chunks
        for name, data in zip(names, operation.chunks, strict=True):
            self.node.disk.put_chunk(name, data)
        self.node.sync()
        id_ = self.world.rng.getrandbits(128).to_bytes(16, "big")
        self._offered[id_] = _Offered(operation._replace(chunks=[]), request_id, promised, answer)
        self.node.feed(ChunksReady(id_, tuple(dict.fromkeys(names))))

    def settle(self, id_: bytes) -> None:
        """All members that answer hold what was offered: its entry may be sequenced."""
        offered = self._offered.pop(id_, None)
        if offered is not None and self.is_open:
            try:
                ticket = self.submit([offered.operation], offered.request_id, offered.answer)
            except RequestError:
                offered.answer(False)
            else:
                offered.promised(ticket.version)
                self.commit_soon()

    def commit_soon(self) -> None:
        """See to it that what is pending gets committed, and that who waits for what is durable is answered."""
        if self._committing is not None or self._due < inf:
            return
        if not self.writer.has_pending:
            self._answer(self.node.disk.position.seq, durable=True)
        elif self._committed_at + self.world.timers.group_commit_ms <= self.world.now:
            self.commit()
        else:
            self._come_back()

    def _come_back(self) -> None:
        self._due = max(self.world.now, self._committed_at + self.world.timers.group_commit_ms)
        self.world.at(self._due, self._on_due, None)

    def _on_due(self, _: object) -> None:
        self._due = inf
        if self.is_open:
            self.commit_soon()

    def commit(self) -> None:
        """Begin to make durable all that is pending, if the disk is idle."""
        if self._committing is not None or not self.writer.has_pending or not self.is_open:
            return
        if self._dies_at(CrashPoint.APPEND):
            return
        self._committing = self.writer.cut(int(self.node.wall_ms()))
        self._removals_due = False
        if self._dies_at(CrashPoint.FSYNC):
            return
        wait_ms = self.fsync_ms()
        if wait_ms:
            self.world.at(self.world.now + wait_ms, self._on_synced, None)
        else:
            self._on_synced(None)

    def _on_synced(self, _: object) -> None:
        cut = self._committing
        if self.node.core is not self.core or cut is None:
            return
        if self.node.put_off(self._on_synced, None):
            return
        try:
            self._make_durable(cut)
        except StorageFull:
            self._committing = None
            self.writer.rejected()
            self._removals_due = False
            self._remove_later(FULL_REST_MS)
            self._committed_at = self.world.now + FULL_REST_MS
            self._answer(inf, durable=False)
            self._come_back()
            return
        except ChunksMissing:  # collected, since the wall was set forward by as long as they are kept
            self.world.crash(self.node.id)
            self.world.launch_again(self.node.id)
            return
        if self._dies_at(CrashPoint.SEND):
            return
        self.writer.committed(cut)
        self._committing = None
        self._committed_at = self.world.now
        if cut.frames:
            self.node.feed(FramesCut(tuple(cut.frames)))
        self._answer(self.node.disk.position.seq, durable=True)
        self._remove_later(0.0)
        self.commit_soon()

    def _remove_later(self, rest_ms: float) -> None:
        """Remove what has expired, an interval from now; not before those removed last are durable, or undone."""
        if not (self._is_to_remove or self._removals_due) and self._removal_ms < inf:
            self._is_to_remove = True
            self.world.at(self.world.now + max(self._removal_ms, rest_ms), self._remove, None)

    def _remove(self, _: object) -> None:
        """Sequence the removal of what has expired, a limited number at a time."""
        if not self.is_open:
            return
        if self.node.put_off(self._remove, None):
            return
        self._is_to_remove = False
        now_s = self.node.replica_time_s()
        rows = self.node.disk.due(int(now_s), self.removals_at_once)
        if rows:
            self.writer.expire(rows, now_s)
            self._removals_due = self.writer.has_pending
            self.commit_soon()
        if not self._removals_due:
            self._remove_later(0.0)

    def _make_durable(self, cut: Cut) -> None:
        """Have the transaction on the disk, which shows it to nobody sooner."""
        self.node.disk.apply(cut.frames, cut.requests)
        self.node.disk.sync()
        self.node.clock.on_applied(self.node.disk.stamp)
        self.world.on_durable(self.node, cut.frames)

    def on_crash(self) -> None:
        """The process is gone: a transaction that was under way is on the disk as a whole, or not at all."""
        cut, self._committing = self._committing, None
        is_new = cut is not None and cut.frames and cut.frames[-1].last_seq > self.node.disk.position.seq
        if cut is not None and is_new and not self.node.disk.is_full and self.world.rng.random() < COMPLETED_SHARE:
            with suppress(ChunksMissing):
                self._make_durable(cut)

    def _answer(self, up_to: float, *, durable: bool) -> None:
        answered = [answer for seq, answer in self._waiting if seq <= up_to]
        self._waiting = [(seq, answer) for seq, answer in self._waiting if seq > up_to]
        for answer in answered:
            answer(durable)

    def _die(self, _: object) -> None:
        if self.is_open:
            self.world.crash(self.node.id)

    def _dies_at(self, point: CrashPoint) -> bool:
        if self.crash_at is not point:
            return False
        self.crash_at = None
        if self._committing is None:
            self._committing = Cut([], [])  # nothing follows
        self.world.at(self.world.now, self._die, None)
        return True
