"""The coordinator's clients that wait until members have a write, and what it has heard of the members.

Acks come up the tree while somebody waits (core/receipts.py). How soon each member had a write is looked up when
it is told, in what was heard of that member and when: an ack costs the same, however many writes are waited for.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Final

from kvnet.core.events import ReceiptsWanted
from kvnet.core.messages import Ack, BeaconId
from kvnet.core.spread import Share, Spread
from kvnet.core.versions import Version

WAITING_MAX: Final = 10_000
"""Waiting at once; whoever comes beyond is told at once how things stand."""
HEARD_MAX: Final = 1024
"""Acks of one member that are remembered: at 20 a second those of 51 s."""
DURABLE_MAX: Final = 10_000
"""Writes of which it is remembered when they became durable."""
WANTED_MS: Final = 10_000.0
"""How long receipts go on after they were wanted last: whoever waits for one write mostly does so for the next."""

_Waiter = tuple[int, int, asyncio.Future[None]]
"""Seq, tie, future."""


class _Member:
    """What was heard of one member since its last life began."""

    __slots__ = ("at", "epoch", "life", "seqs")

    def __init__(self, life: BeaconId) -> None:
        self.life = life
        self.epoch = 0
        self.seqs: list[int] = []
        """Ascending."""
        self.at: list[float] = []
        """When each was heard, in milliseconds."""

    def has(self, version: Version) -> bool:
        """Seqs never restart; a version of a later epoch isn't had by reaching its seq in an earlier one."""
        return bool(self.seqs) and self.epoch >= version.epoch and self.seqs[-1] >= version.seq

    def had_at(self, version: Version) -> float:
        """Return when it was heard to have what it has."""
        return self.at[bisect_left(self.seqs, version.seq)]

    def hear(self, version: Version, now_ms: float) -> None:
        if self.seqs and version.seq <= self.seqs[-1]:  # another history: what it told before counts no more
            self.seqs.clear()
            self.at.clear()
        if len(self.seqs) >= HEARD_MAX:
            del self.seqs[: HEARD_MAX // 2], self.at[: HEARD_MAX // 2]
        self.epoch = version.epoch
        self.seqs.append(version.seq)
        self.at.append(now_ms)


class ReceiptDesk:
    """Tells how far writes have spread, as soon as enough members have them."""

    def __init__(
        self,
        members: Sequence[str],
        feed: Callable[[ReceiptsWanted], None],
        now_ms: Callable[[], float],
    ) -> None:
        """`feed` takes what the core is to know, `now_ms` is the core's clock."""
        self._names = tuple(members)
        self._feed = feed
        self._now_ms = now_ms
        self._members: dict[str, _Member] = {}
        self._durable: dict[Version, float] = {}
        """When writes became durable, the oldest first."""
        self._waiters: dict[tuple[int, int], list[_Waiter]] = {}
        """Heaps, by how many members are waited for, and the version's epoch."""
        self._ties = count()
        self._waiting = 0
        self._looking: asyncio.Handle | None = None

    @property
    def waiting(self) -> int:
        return self._waiting

    def expect(self) -> None:
        """A write is coming that will be waited for: have the members tell what they have."""
        self._feed(ReceiptsWanted(self._now_ms() + WANTED_MS))

    def on_durable(self, version: Version) -> None:
        """A write that will be waited for is durable; one that changed nothing was so before."""
        if version not in self._durable:
            self._durable[version] = self._now_ms()
            if len(self._durable) > DURABLE_MAX:
                del self._durable[next(iter(self._durable))]

    def on_acks(self, acks: Sequence[Ack]) -> None:
        """Take what the core has heard; it tells only what is newer than what it told before."""
        now_ms = self._now_ms()
        for ack in acks:
            member = self._members.get(ack.member)
            if member is None or member.life != ack.life:
                member = self._members[ack.member] = _Member(ack.life)
            member.hear(ack.version, now_ms)
        if self._waiters and self._looking is None:
            self._looking = asyncio.get_running_loop().call_soon(self._look)

    async def wait(self, version: Version, share: Share, timeout_ms: float) -> Spread:
        """Return how far a write has spread, once such a share of the members has it or the time is over."""
        needed = share.count_of(len(self._names))
        if self._count(version) < needed and timeout_ms > 0 and self._waiting < WAITING_MAX:
            await self._wait(version, needed, timeout_ms)
        return self._spread(version, needed)

    async def _wait(self, version: Version, needed: int, timeout_ms: float) -> None:
        self._feed(ReceiptsWanted(self._now_ms() + timeout_ms + WANTED_MS))
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        group = needed, version.epoch
        heappush(self._waiters.setdefault(group, []), (version.seq, next(self._ties), future))
        self._waiting += 1
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await future
        except TimeoutError:
            pass
        finally:
            self._waiting -= 1
            future.cancel()  # no-op once it has its result
            self._drop_done(group)

    def _drop_done(self, group: tuple[int, int]) -> None:
        """Forget those whose time is over, wherever they stand in their heap."""
        heap = self._waiters.get(group)
        if heap is None:
            return
        while heap and heap[0][2].done():
            heappop(heap)
        if len(heap) > 2 * self._waiting + 64:
            heap[:] = sorted(waiter for waiter in heap if not waiter[2].done())
        if not heap:
            del self._waiters[group]

    def _look(self) -> None:
        """Wake those for whom enough members have told."""
        self._looking = None
        for group in list(self._waiters):
            needed, epoch = group
            seqs = sorted(
                (member.seqs[-1] for member in self._known() if member.epoch >= epoch and member.seqs),
                reverse=True,
            )
            reached = seqs[needed - 1] if len(seqs) >= needed else -1
            heap = self._waiters[group]
            while heap and (heap[0][0] <= reached or heap[0][2].done()):
                future = heappop(heap)[2]
                if not future.done():
                    future.set_result(None)
            if not heap:
                del self._waiters[group]

    def _known(self) -> list[_Member]:
        return [self._members[name] for name in self._names if name in self._members]

    def _count(self, version: Version) -> int:
        return sum(member.has(version) for member in self._known())

    def _spread(self, version: Version, needed: int) -> Spread:
        durable_at = self._durable.get(version)
        took_ms: dict[str, float] = {}
        missing: list[str] = []
        for name in self._names:
            member = self._members.get(name)
            if member is None or not member.has(version):
                missing.append(name)
            elif durable_at is not None:
                took_ms[name] = max(0.0, member.had_at(version) - durable_at)
        applied = len(self._names) - len(missing)
        return Spread(applied >= needed, applied, len(self._names), tuple(missing), took_ms)
