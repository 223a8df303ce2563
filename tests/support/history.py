"""What a network promises to writers and readers under any fault, checked over what they were told.

Writers put A_i, and B_i once A_i is acknowledged. Readers stay at one PoP each and read B_i, then A_i.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import aiohttp

from kvnet.core.versions import Version
from tests.support.network import Answer, Client, until

PAUSE_S: Final = 0.02
"""Between two requests of one task: a load for a network that shares two cores with its test."""
RETRY_S: Final = 0.1


class History:
    """Collects what happened; `problems` says what must not have."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, Version] = {}
        self.refused: set[str] = set()
        """Keys whose only write was answered: it was not and will not be made."""
        self.retries = 0
        self.reads = 0
        self.pairs_seen: Counter[str] = Counter()
        """By PoP: how often both A and B were there."""
        self.failed_reads: Counter[str] = Counter()
        self._positions: dict[str, Version] = {}
        self._problems: list[str] = []

    def wrote(self, key: str, version: Version) -> None:
        self.acknowledged[key] = version

    def saw(self, pop: str, position: Version, what: str) -> None:
        """Take in the position of one answer; answers of one PoP come in the order they were asked for."""
        self.reads += 1
        before = self._positions.get(pop, position)
        if position < before:
            self._problems.append(f"{pop} went back from {before} to {position} ({what})")
        self._positions[pop] = position

    def saw_pair(self, pop: str, pair: str, *, first: bool, second: bool) -> None:
        """Take in which keys of a pair were there; the second was read first."""
        self.pairs_seen[pop] += first and second
        if second and not first:
            self._problems.append(f"{pop} has b{pair} without a{pair}")

    def ended(self, pop: str, keys: set[str]) -> None:
        """Take in every key that a replica has after all faults."""
        lost = sorted(self.acknowledged.keys() - keys)
        if lost:
            self._problems.append(f"{pop} lost {len(lost)} acknowledged writes, such as {lost[0]}")
        made = sorted(self.refused & keys)
        if made:
            self._problems.append(f"{pop} has {len(made)} writes that were refused, such as {made[0]}")

    def problems(self) -> list[str]:
        """Return what broke a promise."""
        by_version = defaultdict(list)
        for key, version in self.acknowledged.items():
            by_version[version].append(key)
        shared = [
            f"{keys} were all answered with {version}" for version, keys in by_version.items() if len(keys) > 1
        ]
        return [*self._problems, *shared]


class Load:
    """Writers and readers that keep at it while faults happen; as a context, they end with it."""

    def __init__(self, client: Client, seed: int, *, writers: Sequence[str], readers: Sequence[str]) -> None:
        """Write through each node of `writers`, read at each PoP of `readers`."""
        self.history = History()
        self._client = client
        self._seed = seed
        self._writers = writers
        self._readers = readers
        self._begun = dict.fromkeys(range(len(writers)), 0)
        self._ending = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._write(number, node)) for number, node in enumerate(self._writers)
        ] + [asyncio.create_task(self._read(pop)) for pop in self._readers]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True
        if kind is not None:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
            return
        await asyncio.gather(*self._tasks)

    async def progressed(self, count: int) -> None:
        """Wait until every writer has begun `count` more pairs, and every reader has seen as many."""
        pairs = {number: begun + count for number, begun in self._begun.items()}
        seen = {pop: self.history.pairs_seen[pop] + count for pop in self._readers}

        async def enough() -> bool:
            for task in self._tasks:
                if task.done():
                    task.result()
            return all(self._begun[number] >= wanted for number, wanted in pairs.items()) and all(
                self.history.pairs_seen[pop] >= wanted for pop, wanted in seen.items()
            )

        await until(enough, f"{count} more pairs (seed {self._seed})")

    async def _write(self, writer: int, node: str) -> None:
        while not self._ending:
            self._begun[writer] += 1
            pair = f"-{writer}-{self._begun[writer]}"
            if await self._put(node, f"a{pair}"):
                await self._put(node, f"b{pair}")
            await asyncio.sleep(PAUSE_S)

    async def _put(self, node: str, key: str) -> bool:
        """Whether the write was acknowledged; one of unknown outcome is repeated under its id."""
        unknown = False
        while True:
            try:
                answer = await self._client.put(node, key, key.encode(), KV_Request_Id=f"{self._seed}-{key}")
            except (aiohttp.ClientConnectorError, ConnectionRefusedError):
                definite = True
            except (aiohttp.ClientError, OSError):
                definite = False
            else:
                if answer.status == 200:
                    self.history.wrote(key, answer.version)
                    return True
                definite = _is_definite(answer)
            if definite and not unknown:
                self.history.refused.add(key)
                await asyncio.sleep(RETRY_S)
                return False
            unknown = True
            self.history.retries += 1
            await asyncio.sleep(RETRY_S)

    async def _read(self, pop: str) -> None:
        rng = random.Random(f"{self._seed} {pop}")
        history = self.history
        while not self._ending:
            writer = rng.randrange(len(self._writers))
            pair = f"-{writer}-{max(1, self._begun[writer] - rng.randrange(4))}"
            try:
                second = await self._client.get(pop, f"b{pair}")
                first = await self._client.get(pop, f"a{pair}")
            except (aiohttp.ClientError, OSError):
                history.failed_reads[pop] += 1
                await asyncio.sleep(RETRY_S)
                continue
            if {first.status, second.status} <= {200, 404}:
                history.saw(pop, second.position, f"b{pair}")
                history.saw(pop, first.position, f"a{pair}")
                history.saw_pair(pop, pair, first=first.status == 200, second=second.status == 200)
            else:
                history.failed_reads[pop] += 1
            await asyncio.sleep(PAUSE_S)


def _is_definite(answer: Answer) -> bool:
    """Whether the write was not made and will not be."""
    assert answer.status in {503, 504}, answer
    return answer.status == 503
