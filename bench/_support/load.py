"""An open loop of writes: each has its time in a fixed schedule, whatever became of those before it.

A write's answer time counts from that scheduled time, so that a stall shows in every write it delayed (no
coordinated omission). Keys take turns, no value repeats the one before it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from bench._support.network import RunningNetwork
from kvnet.core.versions import Version
from kvnet.errors import KvnetError

CONNECTIONS_MAX: Final = 64
REQUEST_TIMEOUT_S: Final = 15.0
LATE_S_MAX: Final = 60.0
"""A write that waits longer for a free connection fails unsent: the network can't take this rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteLoad:
    """How many writes of what, how fast."""

    writes: int
    rate: float
    """Writes a second."""
    keys: int
    value_bytes: int

    def key(self, number: int) -> str:
        return f"key-{number % self.keys}"

    def value(self, number: int) -> bytes:
        """Return a value that differs from the one its key had, down to a single byte."""
        turn = number // self.keys
        told = (turn % 256).to_bytes(1, "little") + turn.to_bytes(8, "little") + number.to_bytes(8, "little")
        return (told * (self.value_bytes // len(told) + 1))[: self.value_bytes]


@dataclass(slots=True)
class Written:
    """What became of the writes."""

    answer_ms: list[float] = field(default_factory=list)
    """From the scheduled time to the answer, of those acknowledged."""
    failures: Counter[str] = field(default_factory=Counter)
    """Of the others, by reason."""
    newest: Version | None = None


async def create_namespace(session: aiohttp.ClientSession, network: RunningNetwork, title: str) -> str:
    """Return the id of a new namespace.

    Raises:
        KvnetError: the coordinator refused or didn't answer.
    """
    url = network.coordinator_url + network.namespaces_path
    try:
        async with session.post(url, json={"title": title}, headers=network.authorization) as answer:
            document = await answer.json()
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        why = str(error) or type(error).__name__
        raise KvnetError(f"the coordinator doesn't answer ({why}); `kvnet logs coordinator` may say why") from None
    if not document["success"]:
        raise KvnetError(f"the coordinator refused a namespace: {document['errors'][0]['message']}")
    return str(document["result"]["id"])


async def write(
    session: aiohttp.ClientSession,
    network: RunningNetwork,
    namespace: str,
    load: WriteLoad,
    on_done: Callable[[], None],
) -> Written:
    """Send all writes to the coordinator, each at its time; return when every one is answered or has failed."""
    now = asyncio.get_running_loop().time
    url = f"{network.coordinator_url}{network.namespaces_path}/{namespace}/values/"
    written = Written()
    numbers = iter(range(load.writes))
    started_s = now()

    async def send_those_due() -> None:
        # Each connection takes the next number; one that comes late to it counts the time it is late.
        for number in numbers:
            due_s = started_s + number / load.rate
            await asyncio.sleep(due_s - now())
            try:
                if now() - due_s > LATE_S_MAX:
                    raise TimeoutError(f"no connection was free for {LATE_S_MAX:g} s")  # noqa: TRY301
                version = await _put(session, url + load.key(number), load.value(number), network.authorization)
            except (aiohttp.ClientError, TimeoutError, ValueError, _Refused) as error:
                written.failures[str(error) or type(error).__name__] += 1
            else:
                written.answer_ms.append((now() - due_s) * 1000)
                written.newest = max(written.newest or version, version)
            on_done()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(CONNECTIONS_MAX, load.writes)):
            tasks.create_task(send_those_due())
    return written


def new_session() -> aiohttp.ClientSession:
    """Return an HTTP client with as many connections as writers."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX),
        timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
    )


class _Refused(Exception):
    """The coordinator answered no."""


async def _put(session: aiohttp.ClientSession, url: str, value: bytes, headers: dict[str, str]) -> Version:
    async with session.put(url, data=value, headers=headers) as answer:
        body = await answer.read()
        if answer.status != 200:
            raise _Refused(f"{answer.status} {body[:200].decode(errors='replace')}")
        return Version.parse(answer.headers["KV-Version"])
