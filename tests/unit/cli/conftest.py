from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from kvnet.client.directory import Edge
from kvnet.client.distance import Distance
from kvnet.topology.geography import find_place
from kvnet.topology.load import dump_yaml, load
from tests.support.fake_edge import ACCOUNT, TOKEN, FakeEdge, FakeStore


@dataclass
class RunningNetwork:
    """A network of one edge, in `data` as the launcher would have left it."""

    data: Path
    edge: FakeEdge
    store: FakeStore


@pytest.fixture
def network(tmp_path: Path) -> Iterator[RunningNetwork]:
    """A fake edge in a thread of its own: commands run an event loop themselves."""
    store = FakeStore()
    edge = FakeEdge("nrt", store)
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        async with edge.running():
            ended = asyncio.Event()
            started.set_result((asyncio.get_running_loop(), ended))
            await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    loop, ended = started.result(timeout=10)
    pop = {"url": edge.url, "city": "Tokyo", "country": "JP", "lat": 35.76, "lon": 140.39, "pid": 1}
    cluster = {
        "account_id": ACCOUNT,
        "tokens": {"admin": "a", "write": TOKEN, "read": "r"},
        "coordinator": {"name": "coordinator", "url": "http://127.0.0.1:21000", "pid": 2},
        "pops": {"nrt": pop},
    }
    (tmp_path / "cluster.json").write_text(json.dumps(cluster))
    yield RunningNetwork(tmp_path, edge, store)
    loop.call_soon_threadsafe(ended.set)
    thread.join()


@pytest.fixture
def lisbon_ms(network: RunningNetwork) -> float:
    """The network has a topology without jitter, by which a request from Lisbon takes so many ms."""
    world = load("world-2018")
    topology = replace(
        world,
        pops=(world.pop("nrt"),),
        coordinator=replace(world.coordinator, place="nrt"),
        wan=replace(world.wan, jitter_sigma=0.0),
    )
    (network.data / "topology.yaml").write_text(dump_yaml(topology))
    return Distance(topology, find_place("Lisbon", world.pops)).expected_ms(Edge("nrt", network.edge.url))
