from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.support.fake_edge import ACCOUNT, TOKEN, FakeEdge, FakeStore

PLACES = {
    "nrt": ("Tokyo", "JP", 35.76, 140.39),
    "kix": ("Osaka", "JP", 34.43, 135.24),
    "gru": ("São Paulo", "BR", -23.43, -46.47),
    "fra": ("Frankfurt", "DE", 50.03, 8.57),
}


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
async def edges(store: FakeStore) -> AsyncIterator[dict[str, FakeEdge]]:
    async with AsyncExitStack() as stack:
        running = [await stack.enter_async_context(FakeEdge(code, store).running()) for code in PLACES]
        yield {edge.code: edge for edge in running}


@pytest.fixture
def cluster(edges: dict[str, FakeEdge]) -> dict[str, Any]:
    """The cluster.json of the fake network."""
    pops = {}
    for code, (city, country, lat, lon) in PLACES.items():
        pops[code] = {"url": edges[code].url, "city": city, "country": country, "lat": lat, "lon": lon}
    return {"account_id": ACCOUNT, "tokens": {"admin": "a", "write": TOKEN, "read": "r"}, "pops": pops}
