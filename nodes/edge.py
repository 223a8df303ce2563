"""An edge: a whole replica in a PoP. Reads are answered here; writes are passed on and waited for.

A read that asks for more than this replica has is put to another node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from kvnet.api.backend import Relayed, WriteResult
from kvnet.core.operations import Operation
from kvnet.core.spread import Share, Spread
from kvnet.core.versions import Version
from kvnet.runtime.forwarding import Forwarder
from kvnet.runtime.relaying import Relayer
from kvnet.topology.schema import COORDINATOR
from nodes.context import NodeContext
from nodes.node import LOOK_S, Node, run

TIDY_INTERVAL_S: Final = 30.0
"""How often it is looked for processes that died while they read: what they read can't be used again before."""


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
        self._relayer = Relayer(
            self.me,
            self.session,
            self.wan,
            self.core.state,
            coordinator=COORDINATOR,
            url_of=self.topology.url_of,
        )
        self._has_formed = False
        self._look_whether_level()
        self._tidying = asyncio.get_running_loop().call_later(TIDY_INTERVAL_S, self._tidy)

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

    def _tidy(self) -> None:
        self.store.tidy()
        self._tidying = asyncio.get_running_loop().call_later(TIDY_INTERVAL_S, self._tidy)

    def emptied(self) -> None:
        self._look_whether_level()

    def ready(self) -> bool:
        return self.store.verified and not self.driver.is_emptying

    async def end(self) -> None:
        """An edge leaves nothing behind: what it passed on is the coordinator's."""
        self._tidying.cancel()

    async def write(
        self, operations: Sequence[Operation], request_id: bytes | None, *, waited: bool = False
    ) -> WriteResult:
        forwarded = await self._forwarder.write(operations, request_id, waited=waited)
        return WriteResult(forwarded.version, forwarded.pending)

    async def spread(self, version: Version, share: Share, timeout_ms: float) -> Spread:
        spread = await self._forwarder.spread(version, share, timeout_ms)
        return self._own_spread(version, share) if spread is None else spread

    def _own_spread(self, version: Version, share: Share) -> Spread:
        """Return what this node knows of a write's spread by itself, which is whether it has it."""
        members = [pop.code for pop in self.topology.pops]
        here = self.store.position
        has = here.epoch >= version.epoch and here.seq >= version.seq
        missing = tuple(code for code in members if not (has and code == self.name))
        return Spread(int(has) >= share.count_of(len(members)), int(has), len(members), missing, {})

    async def relay(
        self, question: bytes, *, head_only: bool, at_least: Version | None, staleness_ms: float | None
    ) -> Relayed | str:
        return await self._relayer.ask(question, head_only=head_only, at_least=at_least, staleness_ms=staleness_ms)

    def status(self) -> dict[str, Any]:
        return {**super().status(), "relays": self._relayer.status()}


def main(context: NodeContext) -> int:
    """Run the edge `context.name` until SIGTERM; return the exit code."""
    return run(Edge, context)
