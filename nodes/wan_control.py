"""Changing the simulated network while it runs: one state, one version, the same at every node.

The launcher holds it. A change is told to ground truth before the first node hears of it where it cuts, and after
the last one where it heals: who counts as connected is connected. Nodes forked later begin with the newest state,
and whoever listens without it is told until it answers.

    PUT /peer/v1/wan, signed by the launcher or with an admin's token       a WanState as JSON
    200                                                                     the state in force there
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from msgspec.structs import replace

from kvnet.errors import ConfigError
from kvnet.topology.fields import MONITOR
from kvnet.topology.schema import Topology
from kvnet.topology.wan import Wan, WanState
from kvnet.transport.handshake import START_ID_BYTES, Identity
from kvnet.transport.signing import HEADER, sign

LAUNCHER: Final = "launcher"
"""How the launcher signs its requests."""
WAN_PATH: Final = "/peer/v1/wan"
ANSWER_TIMEOUT_S: Final = 2.0
"""What one node has for its answer."""
SPREAD_TIMEOUT_S: Final = 5.0
"""How long an order waits for nodes that don't answer; they are told as soon as they do."""
RETRY_S: Final = 0.25


class WanControl:
    """The state of one network's WAN, and how it gets to its nodes."""

    def __init__(
        self,
        topology: Topology,
        secret: bytes,
        *,
        listening: Callable[[], Sequence[str]],
        on_change: Callable[[], None],
    ) -> None:
        """`listening` names the nodes that can be told now; `on_change` hears of another `state` or `truth`."""
        self._topology = topology
        self._me = Identity(
            name=LAUNCHER, start_id=os.urandom(START_ID_BYTES), cluster_id=topology.digest(), secret=secret
        )
        self._listening = listening
        self._on_change = on_change
        self._wan = Wan(topology)
        self._ordered = asyncio.Lock()
        self._told: dict[str, int] = {}
        """Version that each node has answered for."""
        self._news = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self.truth = self._wan.state
        """What ground truth says: while a change is under way, only what is open before and after it is open."""

    @property
    def state(self) -> WanState:
        """What is to be in force."""
        return self._wan.state

    def started(self, name: str) -> None:
        """A node listens, and may have been forked before the last change."""
        self._told.pop(name, None)
        if self.state.version:
            self._news.set()

    async def obey(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Change the network, or with an empty order only look: `state`, and the nodes that are `behind`.

            {"loss": 0.2}                              on every link
            {"cut": [group, …], "to": [group, …]}      this direction; with "both": true the way back too
            {"isolate": [group, …]}                    from all others, both ways
            {"heal": [group, …]}                       all that is cut from and to these; of none: everything
            {"delay": [a, b], "extra_ms": 100.0}       added each way between two nodes; 0 ends it

        Raises:
            ConfigError: not an order, or no such node or region; nothing has changed.
        """
        if order:
            async with self._ordered:
                await self._change(order)
        return {"state": self.state.to_dict(), "behind": self._behind()}

    async def run(self) -> None:
        """Tell every node that listens, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            while behind := self._behind():
                await self._tell(behind)
                if self._behind():
                    await asyncio.sleep(RETRY_S)
            self._settled.set()

    async def _change(self, order: Mapping[str, Any]) -> None:
        before = self.state
        wan = Wan(self._topology, before)
        _apply(wan, order, self._topology.node_names())
        state = replace(wan.state, version=before.version + 1)
        self._wan.apply(state)
        self.truth = replace(state, cuts=(*before.cuts, *state.cuts))
        self._on_change()
        self._settled.clear()
        self._news.set()
        try:
            await asyncio.wait_for(self._settled.wait(), SPREAD_TIMEOUT_S)
        except TimeoutError:  # `behind` says who
            pass
        finally:
            self.truth = state
            self._on_change()

    def _behind(self) -> list[str]:
        version = self.state.version
        return [name for name in self._listening() if name != MONITOR and self._told.get(name, 0) < version]

    async def _tell(self, names: Sequence[str]) -> None:
        from aiohttp import ClientError, ClientSession, ClientTimeout  # noqa: PLC0415 - most launchers never need it

        state = self.state
        body = json.dumps(state.to_dict()).encode()
        async with ClientSession(timeout=ClientTimeout(total=ANSWER_TIMEOUT_S)) as session:

            async def tell(name: str) -> None:
                headers = {HEADER: sign(self._me, "PUT", WAN_PATH, body)}
                url = self._topology.url_of(name) + WAN_PATH
                try:
                    async with session.put(url, data=body, headers=headers) as response:
                        if response.status == 200:  # otherwise it is another cluster's: `behind` shows it
                            self._told[name] = state.version
                except (OSError, ClientError):  # it ends, or hangs: told again as soon as it listens
                    return

            await asyncio.gather(*(tell(name) for name in names))


def _apply(wan: Wan, order: Mapping[str, Any], everybody: Sequence[str]) -> None:
    match order:
        case {"loss": float() | int() as loss}:
            wan.set_loss(loss)
        case {"cut": [*senders], "to": [*receivers]}:
            wan.cut(_names(senders), _names(receivers))
            if order.get("both"):
                wan.cut(_names(receivers), _names(senders))
        case {"isolate": [*group]}:
            if len(wan.members(_names(group))) == len(everybody):
                raise ConfigError("that is every node, with nobody left to cut them off from: name fewer")
            wan.isolate(_names(group))
        case {"heal": []}:
            wan.heal_all()
        case {"heal": [*group]}:
            wan.heal(_names(group), everybody)
            wan.heal(everybody, _names(group))
        case {"delay": [str(a), str(b)], "extra_ms": float() | int() as extra_ms}:
            for sender, receiver in ((a.lower(), b.lower()), (b.lower(), a.lower())):
                fault = wan.state.fault(sender, receiver)
                wan.set_pair(sender, receiver, extra_ms=extra_ms, loss=fault.loss if fault else None)
        case _:
            raise ConfigError("unknown change: this launcher is of another version, restart the network")


def _names(group: Sequence[Any]) -> list[str]:
    return [str(name).lower() for name in group]
