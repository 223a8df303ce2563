"""The monitor: follows every node's feed and the ground truth, and serves the verdict. It replicates nothing."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
import random
import signal
from collections.abc import AsyncGenerator
from typing import Any

import uvloop
from aiohttp import ClientSession, web

from kvnet.errors import ConfigError
from kvnet.monitor.truth import TruthFile
from kvnet.monitor.watch import Monitor
from kvnet.runtime.server import NodeServer
from kvnet.topology.schema import COORDINATOR, Topology
from kvnet.topology.wan import Wan
from kvnet.transport.feed import follow
from kvnet.transport.handshake import START_ID_BYTES, Identity
from kvnet.transport.shaping import Shaper
from kvnet.transport.sockets import new_session
from nodes.context import NodeContext
from nodes.node import LOG_FORMAT

_log = logging.getLogger(__name__)


class _Feeds:
    """The feeds of all nodes, over one session."""

    def __init__(self, me: Identity, session: ClientSession, shaper: Shaper, topology: Topology) -> None:
        self._me = me
        self._session = session
        self._shaper = shaper
        self._topology = topology

    def follow(self, node: str) -> AsyncGenerator[list[Any], None]:
        return follow(self._me, self._session, self._shaper, node, self._topology.url_of(node))


async def _run(context: NodeContext) -> int:
    topology = context.topology
    tokens = list((context.tokens or {}).values())
    if not tokens:
        raise ConfigError(
            "the monitor has no tokens to check its readers' by: start it in the run folder of the coordinator, "
            "or copy cluster.json from there"
        )
    wan = Wan(topology)
    me = Identity(
        name=context.name,
        start_id=os.urandom(START_ID_BYTES),
        cluster_id=topology.digest(),
        secret=context.secret,
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with new_session() as session:
        shaper = Shaper(wan, context.name, random.Random(os.urandom(16)))
        monitor = Monitor(
            pops=[pop.code for pop in topology.pops],
            floor_ms=wan.floor_ms(),
            one_way_ms={pop.code: wan.one_way_ms(COORDINATOR, pop.code) for pop in topology.pops},
            bound_ms=topology.timers.bound_ms,
            source=_Feeds(me, session, shaper, topology),
            truth=TruthFile(context.data / "truth.json", wan.state),
            authorize=lambda given: any(hmac.compare_digest(given.encode(), token.encode()) for token in tokens),
        )
        server = NodeServer(
            web.Server(monitor.handle, access_log=None), topology.listen.host, topology.port_of(context.name)
        )
        await server.start()
        context.say_ready()
        watching = asyncio.get_running_loop().create_task(monitor.run())
        watching.add_done_callback(lambda _: stop.set())
        await stop.wait()
        failed = watching.done()
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        shaper.close()
        await server.stop()
    return 1 if failed else 0


def main(context: NodeContext) -> int:
    """Run the monitor until SIGTERM; return the exit code."""
    logging.basicConfig(level=context.log_level.upper(), format=LOG_FORMAT)
    return uvloop.run(_run(context))
