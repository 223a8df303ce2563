"""What a message between two nodes costs, and how far the WAN model's delays are off.

Beside plain aiohttp WebSockets in the same process and run: both ends' CPU per message, in bursts and one at a
time; then the delay of the configured WAN against the measured one, and what an idle link keeps of memory.

    python -m bench.transport [--messages N] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import mean
from typing import Any, Final

import aiohttp
import uvloop
from aiohttp import web
from msgspec.structs import replace
from rich.console import Console
from rich.table import Table

from kvnet.core.messages import Advert, BeaconId, Message, encode
from kvnet.core.versions import GENESIS
from kvnet.topology.load import load
from kvnet.topology.wan import Wan
from kvnet.transport.handshake import Identity
from kvnet.transport.links import PeerLinks
from kvnet.transport.shaping import Shaper, monotonic_ms
from kvnet.transport.sockets import new_session

PACE_S: Final = 0.002
PACED_MESSAGES: Final = 500
NODES: Final = 30
"""Linked all with all to weigh a link."""


def advert() -> Advert:
    return Advert(GENESIS, BeaconId(1, 1), 50.0, ("ams", "fra"), 3, False, monotonic_ms(), 1.0, 1.0, False)


class Counting:
    """Counts what arrives, and how long it took."""

    def __init__(self) -> None:
        self.ups = 0
        self.messages = 0
        self.took_ms: list[float] = []

    def on_up(self, peer: str, rtt_ms: float) -> None:
        del peer, rtt_ms
        self.ups += 1

    def on_messages(self, peer: str, messages: list[Message]) -> None:
        del peer
        self.messages += 1
        first = messages[0]
        if isinstance(first, Advert):
            self.took_ms.append(monotonic_ms() - first.sent_ms)

    def on_lost(self, peer: str) -> None: ...
    def on_dial_failed(self, peer: str) -> None: ...
    def on_writable(self, peer: str) -> None: ...


async def start_nodes(
    profile: str, names: list[str], session: aiohttp.ClientSession
) -> tuple[list[PeerLinks], Counting, Wan]:
    topology = load("topology.yaml")
    wan_config = replace(topology.wan, profile=profile, jitter_sigma=0.0)
    wan = Wan(replace(topology, wan=wan_config))
    urls: dict[str, str] = {}
    counting = Counting()
    nodes: list[PeerLinks] = []
    for name in names:
        me = Identity(name=name, start_id=os.urandom(8), cluster_id="bench", secret=b"bench")
        shaper = Shaper(wan, name, random.Random(name))
        links = PeerLinks(me, session, shaper, url_of=lambda peer: urls[peer], known=names)
        links.listen(counting)
        urls[name] = await serve(links.accept)
        nodes.append(links)
    return nodes, counting, wan


async def serve(handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> str:
    server = web.Server(handler, access_log=None)
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    host, port = listening.sockets[0].getsockname()
    return f"http://{host}:{port}"


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.001)


async def measure_links(session: aiohttp.ClientSession, messages: int) -> tuple[float, float]:
    """Return microseconds of CPU per message, both ends: in bursts of ten, and one at a time."""
    (sender, receiver), counting, _ = await start_nodes("none", ["fra", "nrt"], session)
    sender.connect("nrt")
    await until(lambda: counting.ups == 2)

    async def send(count: int) -> None:
        for _ in range(count):
            sender.send("nrt", advert())
            sender.flush()

    result = await burst_and_paced(send, lambda: counting.messages, messages)
    await asyncio.gather(sender.close(), receiver.close())
    return result


async def measure_plain(session: aiohttp.ClientSession, messages: int) -> tuple[float, float]:
    """Return the same of aiohttp alone: constant bytes, nothing decoded, delayed or proven."""
    arrived = 0

    async def accept(request: web.BaseRequest) -> web.WebSocketResponse:
        nonlocal arrived
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        async for _ in socket:
            arrived += 1
        return socket

    url = await serve(accept)
    data = encode([advert()])
    async with session.ws_connect(url) as socket:

        async def send(count: int) -> None:
            for _ in range(count):
                await socket.send_bytes(data)

        return await burst_and_paced(send, lambda: arrived, messages)


async def burst_and_paced(
    send: Callable[[int], Awaitable[None]], arrived: Callable[[], int], messages: int
) -> tuple[float, float]:
    cpu = time.process_time()
    for _ in range(messages // 10):
        await send(10)
        await asyncio.sleep(0)
    await until(lambda: arrived() >= messages)
    burst = (time.process_time() - cpu) / messages * 1e6
    idle = time.process_time()
    for _ in range(PACED_MESSAGES):
        await asyncio.sleep(PACE_S)
    cpu = time.process_time()
    idle = cpu - idle  # the pacing's own price
    for _ in range(PACED_MESSAGES):
        await send(1)
        await asyncio.sleep(PACE_S)
    await until(lambda: arrived() >= messages + PACED_MESSAGES)
    return burst, (time.process_time() - cpu - idle) / PACED_MESSAGES * 1e6


async def measure_delay(session: aiohttp.ClientSession) -> tuple[float, float]:
    """Return the configured one-way delay and the mean measured one, in milliseconds."""
    (sender, receiver), counting, wan = await start_nodes("internet", ["fra", "nrt"], session)
    sender.connect("nrt")
    await until(lambda: counting.ups == 2)
    rng = random.Random(1)
    for _ in range(PACED_MESSAGES):
        sender.send("nrt", advert())
        sender.flush()
        await asyncio.sleep(rng.uniform(0, 2 * PACE_S))
    await until(lambda: counting.messages >= PACED_MESSAGES)
    await asyncio.gather(sender.close(), receiver.close())
    return wan.one_way_ms("fra", "nrt"), mean(counting.took_ms)


async def measure_memory(session: aiohttp.ClientSession) -> float:
    """Return KiB per end of an idle link, without the kernel's part."""
    names = [pop.code for pop in load("topology.yaml").pops[:NODES]]
    nodes, counting, _ = await start_nodes("none", names, session)
    nodes[0].connect(names[1])
    await until(lambda: counting.ups == 2)
    before = pss_kib()
    for i, node in enumerate(nodes):
        for peer in names[:i]:
            node.connect(peer)
    await until(lambda: counting.ups == NODES * (NODES - 1))
    weight = (pss_kib() - before) / (counting.ups - 2)
    await asyncio.gather(*(node.close() for node in nodes))
    return weight


def pss_kib() -> int:
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))


async def measure(messages: int) -> dict[str, Any]:
    async with new_session() as session:
        memory = await measure_memory(session)
        plain = await measure_plain(session, messages)
        links = await measure_links(session, messages)
        configured, measured = await measure_delay(session)
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "burst_us": {"aiohttp": plain[0], "links": links[0]},
        "paced_us": {"aiohttp": plain[1], "links": links[1]},
        "delay_ms": {"configured": configured, "measured": measured},
        "link_end_kib": memory,
    }


def show(result: dict[str, Any]) -> None:
    table = Table(title="A message between two nodes, both ends in one process")
    for column in ("", "aiohttp alone", "links", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    for key, name in (("burst_us", "µs CPU, in bursts of ten"), ("paced_us", "µs CPU, one at a time")):
        plain, links = result[key]["aiohttp"], result[key]["links"]
        table.add_row(name, f"{plain:.1f}", f"{links:.1f}", f"{links / plain:.2f}")
    console = Console()
    console.print(table)
    delay = result["delay_ms"]
    console.print(f"one-way delay: {delay['configured']:.2f} ms configured, {delay['measured']:.2f} ms measured")
    console.print(f"memory of an idle link: {result['link_end_kib']:.1f} KiB per end")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=20_000, help="sent in bursts")
    parser.add_argument("--json", type=Path, help="write the result there")
    arguments = parser.parse_args()
    result = uvloop.run(measure(arguments.messages))
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
