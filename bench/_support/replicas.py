"""Whether all replicas of a network that rests are the same: one position, one digest."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import aiohttp

from bench._support.network import RunningNetwork

ASKED_AT_ONCE: Final = 16


async def count_equal(session: aiohttp.ClientSession, network: RunningNetwork) -> int:
    """Return how many PoPs stand at the coordinator's position with its digest; one that doesn't answer isn't."""
    turns = asyncio.Semaphore(ASKED_AT_ONCE)

    async def state_of(url: str) -> tuple[Any, Any] | None:
        try:
            async with turns, session.get(f"{url}/status", headers=network.authorization) as answer:
                status = await answer.json()
                return status["position"], status["digest"]
        except (aiohttp.ClientError, TimeoutError, KeyError, ValueError):
            return None

    wanted = await state_of(network.coordinator_url)
    found = await asyncio.gather(*(state_of(pop["url"]) for pop in network.cluster["pops"].values()))
    return sum(state is not None and state == wanted for state in found)
