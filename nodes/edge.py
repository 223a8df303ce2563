"""An edge: a whole replica in a PoP. Reads are answered here; writes are passed on and waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from kvnet.api.backend import WriteResult
from kvnet.core.operations import Operation
from kvnet.runtime.forwarding import Forwarder
from kvnet.topology.schema import COORDINATOR
from nodes.context import NodeContext
from nodes.node import FORMED_LOOK_S, Node, run


class Edge(Node):
    """One PoP's node."""

    role = "edge"

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
        self._look_whether_formed()

    def _look_whether_formed(self) -> None:
        """Tell the launcher once this edge has a parent and all that its first beacon spoke of."""
        state = self.core.state
        if state.parents and state.beacon.number and state.applied.seq >= state.head_seq and self.ready():
            self.context.say_formed(state.applied.version)
        else:
            asyncio.get_running_loop().call_later(FORMED_LOOK_S, self._look_whether_formed)

    async def end(self) -> None:
        """An edge leaves nothing behind: what it passed on is the coordinator's."""

    async def write(self, operations: Sequence[Operation], request_id: bytes | None) -> WriteResult:
        forwarded = await self._forwarder.write(operations, request_id)
        return WriteResult(forwarded.version, forwarded.pending)


def main(context: NodeContext) -> int:
    """Run the edge `context.name` until SIGTERM; return the exit code."""
    return run(Edge, context)
