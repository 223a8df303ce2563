"""Asking many nodes the same question at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp

from kvnet.errors import KvnetError

AT_ONCE = 32
TIMEOUT_S = 5.0

Answer = dict[str, Any] | str
"""What a node said, or in a few words why it said nothing."""


def urls_of(cluster: Mapping[str, Any]) -> dict[str, str]:
    """Return every replica's address by name, the coordinator first."""
    pops = {code: str(pop["url"]) for code, pop in cluster["pops"].items()}
    return {"coordinator": str(cluster["coordinator"]["url"]), **pops}


async def ask_all(
    urls: Mapping[str, str], path: str, token: str, *, timeout_s: float = TIMEOUT_S
) -> dict[str, Answer]:
    """Return what each node answers to GET `path`, in the order of `urls`."""
    gate = asyncio.Semaphore(AT_ONCE)
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:

        async def ask(url: str) -> Answer:
            async with gate:
                return await _ask(session, url + path)

        answers = await asyncio.gather(*(ask(url) for url in urls.values()))
    return dict(zip(urls, answers, strict=True))


def require_some(answers: Mapping[str, Answer], folder: object) -> None:
    """Return if any node answered.

    Raises:
        KvnetError: none did; says why.
    """
    if all(isinstance(answer, str) for answer in answers.values()):
        why = next(iter(answers.values()))
        raise KvnetError(
            f"no node of {folder} answers ({why}): `kvnet up` starts the network, `kvnet ps` shows it"
        )


async def _ask(session: aiohttp.ClientSession, url: str) -> Answer:
    try:
        async with session.get(url) as response:
            if response.status != 200:
                return f"HTTP {response.status}"
            answer: Answer = await response.json()
            return answer
    except TimeoutError:
        return "no answer in time"
    except aiohttp.ClientConnectorError:
        return "down"
    except (aiohttp.ClientError, ValueError) as error:
        return f"no answer ({type(error).__name__})"
