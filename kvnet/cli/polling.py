"""Asking many nodes the same question at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp

from kvnet.errors import ConfigError, KvnetError
from nodes.asking import STATUS_PATH, signed_headers
from nodes.cluster import RunFolder

AT_ONCE = 32
TIMEOUT_S = 5.0

NOT_READY = frozenset({"HTTP 401", "HTTP 403", "HTTP 503"})
"""What a replica answers that is being made: it knows no token yet."""

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

        async def ask_in_turn(url: str) -> Answer:
            async with gate:
                return await ask(session, url + path)

        answers = await asyncio.gather(*(ask_in_turn(url) for url in urls.values()))
    return dict(zip(urls, answers, strict=True))


async def ask_statuses(folder: RunFolder, cluster: Mapping[str, Any]) -> dict[str, Answer]:
    """Return what each replica says of itself, also those that serve nobody yet."""
    urls = urls_of(cluster)
    answers = await ask_all(urls, "/status", cluster["tokens"]["read"])
    mute = {
        name: urls[name] for name, answer in answers.items() if isinstance(answer, str) and answer in NOT_READY
    }
    if not mute:
        return answers
    try:
        headers = signed_headers(folder, STATUS_PATH)
    except ConfigError:  # the secret is on another host
        return answers
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        told = await asyncio.gather(*(ask(session, url + STATUS_PATH) for url in mute.values()))
    for name, answer in zip(mute, told, strict=True):
        if not isinstance(answer, str):
            answers[name] = answer
    return answers


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


async def ask(session: aiohttp.ClientSession, url: str, query: Mapping[str, str] | None = None) -> Answer:
    """Return what a node answers to GET `url`."""
    try:
        async with session.get(url, params=query) as response:
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
