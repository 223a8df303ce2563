"""Nodes for tests of links, feeds and forwarding: real sockets on this host, the WAN as told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from aiohttp import ClientSession, web

from kvnet.core.messages import Message
from kvnet.topology.schema import Coordinator, Pop, Topology
from kvnet.topology.sections import WanConfig
from kvnet.topology.wan import Wan
from kvnet.transport.handshake import Identity, Purpose
from kvnet.transport.links import BULK_PATH, PATH, PeerLinks
from kvnet.transport.shaping import Shaper
from kvnet.transport.sockets import new_session

DEADLINE_S = 20.0


def topology(
    profile: str = "none", *, loss: float = 0.0, jitter: float = 0.0, mbps: float | None = None
) -> Topology:
    """Four PoPs; the coordinator stands in `ams`."""
    places = {"ams": (52.3, 4.8), "fra": (50.0, 8.6), "nrt": (35.8, 140.4), "syd": (-33.9, 151.2)}
    pops = tuple(
        Pop(code=code, city=code, country="XX", lat=lat, lon=lon, region="europe")
        for code, (lat, lon) in places.items()
    )
    wan = WanConfig(profile=profile, loss=loss, jitter_sigma=jitter, bandwidth_mbps=mbps)
    return Topology(name="test", coordinator=Coordinator(place="ams"), wan=wan, pops=pops)


def identity(name: str, *, start: int = 1, secret: bytes = b"secret", cluster: str = "cluster") -> Identity:
    return Identity(name=name, start_id=start.to_bytes(8, "big"), cluster_id=cluster, secret=secret)


async def until(condition: Callable[[], Any], what: str = "") -> None:
    """Return as soon as the condition holds; fail at the deadline."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"never happened: {what or condition}") from None


class Recorder:
    """What links told, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.messages: dict[str, list[Message]] = {}
        self.rtts: dict[str, float] = {}

    def on_up(self, peer: str, rtt_ms: float) -> None:
        self.events.append(("up", peer))
        self.rtts[peer] = rtt_ms

    def on_lost(self, peer: str) -> None:
        self.events.append(("lost", peer))

    def on_dial_failed(self, peer: str) -> None:
        self.events.append(("failed", peer))

    def on_messages(self, peer: str, messages: list[Message]) -> None:
        self.messages.setdefault(peer, []).extend(messages)

    def on_writable(self, peer: str) -> None:
        self.events.append(("writable", peer))

    def is_up(self, peer: str) -> bool:
        """Whether the last word about this peer is that it is up."""
        return next((what == "up" for what, who in reversed(self.events) if who == peer), False)


class Peers:
    """Several nodes that find each other; made and closed by the `peers` fixture."""

    def __init__(self, wan_topology: Topology | None = None) -> None:
        self.topology = wan_topology or topology()
        self.urls: dict[str, str] = {}
        self.session: ClientSession = new_session()
        self._runners: list[tuple[Any, asyncio.Server, web.Server, Shaper]] = []

    async def listen(self, name: str, handler: Any, *, port: int = 0) -> asyncio.Server:
        """Serve `handler` as node `name`."""
        server = web.Server(handler, access_log=None)
        listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", port)
        self.urls[name] = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        self._runners.append((None, listening, server, self.shaper(name)))
        return listening

    def shaper(self, name: str) -> Shaper:
        return Shaper(Wan(self.topology), name, random.Random(name))

    async def links(
        self,
        name: str,
        *,
        start: int = 1,
        secret: bytes = b"secret",
        cluster: str = "cluster",
        as_name: str = "",
        purpose: Purpose = Purpose.GOSSIP,
    ) -> tuple[PeerLinks, Recorder]:
        """Start a node's links; `as_name` registers it under another name than it claims."""
        shaper = self.shaper(name)
        links = PeerLinks(
            identity(name, start=start, secret=secret, cluster=cluster),
            self.session,
            shaper,
            url_of=lambda peer: self.urls[peer],
            known=self.topology.node_names(),
            purpose=purpose,
        )
        recorder = Recorder()
        links.listen(recorder)

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            assert request.path == (BULK_PATH if purpose is Purpose.BULK else PATH)
            return await links.accept(request)

        await self.listen(as_name or name, handle)
        _, listening, server, _ = self._runners.pop()
        self._runners.append((links, listening, server, shaper))
        return links, recorder

    async def close(self) -> None:
        for links, listening, _, shaper in self._runners:
            listening.close()
            if links is not None:
                await links.close()
            shaper.close()
        await self.session.close()
        for _, _, server, _ in self._runners:
            await server.shutdown(1)
