"""An edge: a whole replica in a PoP. Reads are answered here; writes are passed on and waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from kvnet.api.backend import WriteResult
from kvnet.core.operations import Operation
from kvnet.runtime.forwarding import Forwarder
from kvnet.topology.schema import COORDINATOR
from nodes.context import NodeContext
from nodes.node import Node, run

LOOK_S: Final = 0.05


class Edge(Node):
    """One PoP's node."""

    role = "edge"
    cure = "it is made anew from the network"

    def begin(self) -> None:
        self._forwarder = Forwarder(
            self.me,
            self.session,
            self.wan,
            self.rng,
            coordinator=COORDINATOR,
            url=self.topology.url_of(COORDINATOR),
            wait_for=self.wait_for,
            visibility_wait_ms=self.timers.visibility_wait_ms,
        )
        self._has_formed = False
        self._look_whether_level()

    def _look_whether_level(self) -> None:
        """Serve, and tell the launcher, once this edge has a parent and all that a beacon spoke of."""
        state, store = self.core.state, self.store
        level = store.cluster is not None and store.position.seq >= state.head_seq > 0
        if not (level and state.parents and state.late_since is None):
            asyncio.get_running_loop().call_later(LOOK_S, self._look_whether_level)
            return
        if not store.verified:
            store.mark_verified()
        self.driver.damage = ""
        if not self._has_formed:
            self._has_formed = True
            self.context.say_formed(store.position.version)

    def emptied(self) -> None:
        self._look_whether_level()

    def ready(self) -> bool:
        return self.store.verified and not self.driver.is_emptying

    async def end(self) -> None:
        """An edge leaves nothing behind: what it passed on is the coordinator's."""

    async def write(self, operations: Sequence[Operation], request_id: bytes | None) -> WriteResult:
        forwarded = await self._forwarder.write(operations, request_id)
        return WriteResult(forwarded.version, forwarded.pending)


def main(context: NodeContext) -> int:
    """Run the edge `context.name` until SIGTERM; return the exit code."""
    return run(Edge, context)
