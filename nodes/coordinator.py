"""The coordinator: the one place that writes. It starts as a replica, and opens an epoch when it may."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kvnet.api.backend import WriteResult
from kvnet.core.catalog import FOUNDING_PREFIX, CatalogItem, Cluster, Member, Scope, Token, hash_token
from kvnet.core.events import Event
from kvnet.core.frames import Frame
from kvnet.core.messages import Ack
from kvnet.core.operations import Operation, PutLargeValue
from kvnet.core.pieces import LargeRoom
from kvnet.core.spread import Share, Spread
from kvnet.core.versions import Version
from kvnet.core.writer import Writer
from kvnet.errors import RequestError
from kvnet.runtime.forwarding import PATH as WRITE_PATH
from kvnet.runtime.forwarding import SPREAD_PATH, WriteDesk
from kvnet.runtime.group_commit import NOT_OPEN, GroupCommit
from kvnet.runtime.large_values import LargeValues
from kvnet.runtime.receipts import ReceiptDesk
from kvnet.transport.shaping import monotonic_ms
from nodes.cluster import RunFolder
from nodes.context import NodeContext
from nodes.files import replace_file
from nodes.node import Node, run

_log = logging.getLogger(__name__)


class Coordinator(Node):
    """The node that sequences every write."""

    role = "coordinator"
    cure = "stop it and bring back a copy with `kvnet snapshot restore`, or start it empty with --recover"

    def __init__(self, context: NodeContext) -> None:
        self._mark = RunFolder(context.data).history_file
        super().__init__(context, fresh=not self._mark.exists())
        self._commit: GroupCommit | None = None
        self._large_values: LargeValues | None = None
        self._refused = "The coordinator is starting; try again"
        self.receipts = ReceiptDesk([pop.code for pop in self.topology.pops], self._tell_core, monotonic_ms)

    def peer_routes(self) -> dict[str, Any]:
        members = {pop.code for pop in self.topology.pops}
        desk = WriteDesk(
            self.me,
            members,
            self._write_durably,
            self.receipts.wait,
            value_bytes_max=self.limits.value_bytes_max,
            room=LargeRoom(),  # its own: slow clients of this node must not keep the edges waiting
        )
        return {**super().peer_routes(), WRITE_PATH: desk.handle, SPREAD_PATH: desk.handle_spread}

    # -- opening ---------------------------------------------------------------------------------------------

    def open_epoch(self, epoch: int) -> None:
        """Begin writing: the epoch's entry and, in a new cluster, its first records are the first frame."""
        writer = Writer(self.store, self.limits)
        founding = self._founding_items() if self.store.cluster is None else []
        writer.open_epoch(epoch, os.urandom(16), founding)
        self.clock.go_on(monotonic_ms())
        self._commit = GroupCommit(
            writer,
            self.store,
            interval_ms=self.timers.group_commit_ms,
            feed=self._on_cut,
            on_durable=self._on_durable,
            broken=self.broken,
            time_ms=lambda: self.now_s() * 1000,
            removals_per_second=self.topology.storage.expiry_removals_per_second,
        )
        self._large_values = LargeValues(self._commit, self.store, feed=self.driver.feed)
        self._commit.commit_soon()

    def _founding_items(self) -> list[CatalogItem]:
        now_ms = time.time_ns() // 1_000_000
        tokens = self.context.tokens or {}
        return [
            Cluster(self.context.account_id, self.cluster_id, now_ms),
            *(
                Token(
                    f"{FOUNDING_PREFIX}{scope}",
                    f"{scope} (made with the cluster)",
                    Scope(scope),
                    hash_token(token),
                    created_ms=now_ms,
                )
                for scope, token in tokens.items()
            ),
            *(Member(pop.code, now_ms) for pop in self.topology.pops),
        ]

    def refuse_writes(self, why: str) -> None:
        _log.error("writes are refused: %s", why)
        self._refused = f"The coordinator refuses to write: {why}"
        if self._commit is not None:
            self._commit.refuse(self._refused)

    def _on_durable(self, frames: Sequence[Frame], wall_ms: float) -> None:
        self.clock.on_applied(frames[-1].stamp)
        for frame in frames:
            entries = frame.last_seq - frame.first_seq + 1
            row = (frame.epoch, frame.first_seq, frame.last_seq, wall_ms, len(frame.data), entries)
            self.feed.add(row, frame.last_seq)

    def _on_cut(self, event: Any) -> None:
        first = self.core.state.beacon.number == 0
        if first and not self.store.verified:
            self.store.mark_verified()
        if first and not self._mark.exists():
            replace_file(self._mark, b"a history was begun here\n", durable=True)
        self.driver.feed(event)
        if first:
            self.context.say_formed(self.store.position.version)

    def begin(self) -> None:
        """Writing begins with the epoch, when the core orders it."""

    def offer_settled(self, id_: bytes) -> None:
        if self._large_values is not None:
            self._large_values.settle(id_)

    def _tell_core(self, event: Event) -> None:
        self.driver.feed(event)

    def acks_came(self, acks: Sequence[Ack]) -> None:
        self.receipts.on_acks(acks)

    async def end(self) -> None:
        if self._large_values is not None:
            self._large_values.close()
        if self._commit is not None:
            await self._commit.close()

    # -- writing ---------------------------------------------------------------------------------------------

    async def _write_durably(
        self, operations: Sequence[Operation], request_id: bytes | None, waited: bool
    ) -> Version:
        if waited:
            self.receipts.expect()
        version = await self._have_written(operations, request_id)
        if waited:
            self.receipts.on_durable(version)
        return version

    async def _have_written(self, operations: Sequence[Operation], request_id: bytes | None) -> Version:
        if self._commit is None or self._large_values is None or self._commit.refuses:
            raise RequestError(503, NOT_OPEN, self._refused, headers={"Retry-After": "1"})
        match operations:
            case [PutLargeValue() as operation]:
                return await self._large_values.write(operation, request_id)
            case _ if any(isinstance(operation, PutLargeValue) for operation in operations):
                raise RequestError(400, 10012, "invalid request body: a large value comes alone")
            case _:
                pass
        return await self._commit.write(operations, request_id)

    async def in_writer(self, task: Callable[[], None]) -> None:
        if self._commit is None:
            task()
        else:
            await self._commit.run(task)

    async def write(
        self, operations: Sequence[Operation], request_id: bytes | None, *, waited: bool = False
    ) -> WriteResult:
        return WriteResult(await self._write_durably(operations, request_id, waited), pending=False)

    async def spread(self, version: Version, share: Share, timeout_ms: float) -> Spread:
        return await self.receipts.wait(version, share, timeout_ms)

    def status(self) -> dict[str, Any]:
        return {**super().status(), "receipts_waited_for": self.receipts.waiting}

    def ready(self) -> bool:
        """Whether it writes, or holds what it had when it last did; not while an empty disk is being filled."""
        return self.store.cluster is not None and (self._commit is not None or self.store.verified)

    def charged_bytes(self) -> Mapping[bytes, int]:
        tallies = self.store.tallies  # a deleted namespace's goes before the catalogue knows
        known = ((namespace, tallies.get(namespace)) for namespace in self.store.namespaces)
        return {namespace: tally.size_bytes for namespace, tally in known if tally is not None}

    def emptied(self) -> None:
        raise AssertionError("the coordinator was ordered to throw its replica away")

    def hear_time(self) -> None:
        self.clock.on_beacon(time.time() * 1000, monotonic_ms())

    def staleness_ms(self) -> float:
        return 0.0


def main(context: NodeContext) -> int:
    """Run the coordinator until SIGTERM; return the exit code."""
    return run(Coordinator, context)
