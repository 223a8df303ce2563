"""`kvnet import`: pairs from JSON lines into a namespace."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import typer

from kvnet.cli.connection import (
    FromOption,
    NamespaceArgument,
    NearOption,
    PopOption,
    checked_text,
    limits_of,
    open_network,
    print_json,
)
from kvnet.cli.export import concurrency
from kvnet.cli.options import DATA_DEFAULT, DataOption, JsonOption
from kvnet.cli.pairs import Pair, read_pairs
from kvnet.cli.tally import Counter, plural
from kvnet.client import Namespace, Network, NewPair
from kvnet.errors import ConfigError, KvnetError, RequestError
from kvnet.limits import Limits

AT_ONCE_MAX: Final = 4
"""Requests under way: each waits for the coordinator and the way back."""
READ_PAIRS: Final = 100
"""Lines that are waited for at once."""
BATCH_PAIRS_MAX: Final = 1000
BATCH_BYTES_MAX: Final = 1024 * 1024
"""Of keys and values in one request, which may have one pair that is longer."""
EXPIRATION_REFUSED: Final = 10034
NAMESPACE_UNKNOWN: Final = 10013
COME_BACK: Final = frozenset({429, 503})
"""Statuses of an answer that says when to come back."""
PATIENCE_S: Final = 60.0
"""How long a request is sent again while nobody takes it."""
WAIT_S_DEFAULT: Final = 1.0
WAIT_S_MAX: Final = 30.0


@dataclass
class Counts:
    """What became of the lines."""

    stored: int = 0
    expired: int = 0
    """Whose time is over, or nearly so that the network wouldn't take them."""


def import_(
    namespace: NamespaceArgument,
    file: Annotated[
        str, typer.Argument(metavar="[FILE]", help="JSON lines or a JSON array; - is standard input.")
    ] = "-",
    create: Annotated[
        bool, typer.Option("--create", help="Create the namespace if there is none of this title.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every line and store nothing.")] = False,
    near: NearOption = None,
    from_: FromOption = None,
    pop: PopOption = None,
    data: DataOption = DATA_DEFAULT,
    json_: JsonOption = False,
) -> None:
    """Store pairs from JSON lines, as `kvnet export` writes them.

    A file is checked whole before anything is stored, standard input line by line. It may be repeated: what is
    stored already stays as it is. Of several lines with one key the last one counts.
    """
    limits = limits_of(data)
    checked_text(namespace, "namespace")
    with _input(file) as source:
        if dry_run:
            counts = _check(source, limits)
        else:
            if source.seekable():
                _check(source, limits)
                source.seek(0)

            async def run() -> Counts:
                async with open_network(data, near, pop, from_) as net:
                    target = await _target(net, namespace, create=create)
                    return await _Import(target, limits).run(source)

            counts = asyncio.run(run())
    if json_:
        print_json({"namespace": namespace, "dry_run": dry_run, **asdict(counts)})
    verb = "would import" if dry_run else "imported"
    skipped = f"; {plural(counts.expired, 'expired line')} skipped" if counts.expired else ""
    print(f"{verb} {plural(counts.stored, 'pair')} into {namespace}{skipped}", file=sys.stderr)


@contextmanager
def _input(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        if sys.stdin.isatty():
            raise ConfigError("there is nothing to import: name a file, or pipe it in")
        yield sys.stdin.buffer
        return
    try:
        source = Path(name).open("rb")  # noqa: SIM115 - it is closed below, and only this may be misspelled
    except OSError as error:
        raise ConfigError(f"{name} can't be read ({error.strerror}): name a file that can") from None
    with source:
        yield source


def _check(source: BinaryIO, limits: Limits) -> Counts:
    """Read it all, and store nothing."""
    counts = Counts()
    soonest = time.time() + limits.ttl_seconds_min
    with Counter("checked", "lines") as checked:
        for pair in read_pairs(source, limits):
            if pair.ends_before(soonest):
                counts.expired += 1
            else:
                counts.stored += 1
            checked.add()
    return counts


async def _target(net: Network, name: str, *, create: bool) -> Namespace:
    """Return the namespace, which exists.

    Raises:
        RequestError: it doesn't; names the cure.
    """
    target = net.namespace(name)
    try:
        await target.info()
    except RequestError as error:
        if error.code != NAMESPACE_UNKNOWN:
            raise
        if not create:
            raise RequestError(error.status, error.code, f"{error}, or import with --create") from None
        return await net.create_namespace(name)
    return target


class _Import:
    """Pairs on their way, many in a request; those of one key one after the other, so that the last line wins."""

    def __init__(self, target: Namespace, limits: Limits) -> None:
        self._target = target
        self._limits = limits
        self._at_once = concurrency(limits.value_bytes_max, AT_ONCE_MAX)
        self._batch: list[Pair] = []
        self._batch_bytes = 0
        self._under_way: dict[asyncio.Task[None], set[str]] = {}
        """With the keys that each writes."""
        self._counts = Counts()
        self._stored = Counter("imported", "pairs")

    async def run(self, source: BinaryIO) -> Counts:
        """Store everything.

        Raises:
            KvnetError: a line can't be read or isn't taken; what came before it may be stored.
        """
        try:
            with self._stored:
                pairs = read_pairs(source, self._limits)
                # In a thread: while a pipe gives nothing, what has come goes on its way.
                while some := await asyncio.to_thread(list, islice(pairs, READ_PAIRS)):
                    for pair in some:
                        await self._add(pair)
                await self._send_batch()
                while self._under_way:
                    await self._end_some(self._under_way)
        except KvnetError as error:
            await self._give_up()
            told = f"{error}; {plural(self._counts.stored, 'pair')} stored, run it again when that is mended"
            raise type(error)(told) if isinstance(error, ConfigError) else KvnetError(told) from None
        finally:
            await self._give_up()
        return self._counts

    async def _add(self, pair: Pair) -> None:
        if pair.ends_before(time.time() + self._limits.ttl_seconds_min):
            self._counts.expired += 1
            return
        size = len(pair.key) + len(pair.value)
        if self._batch_bytes + size > BATCH_BYTES_MAX or len(self._batch) == BATCH_PAIRS_MAX:
            await self._send_batch()
        self._batch.append(pair)
        self._batch_bytes += size

    async def _send_batch(self) -> None:
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        if not batch:
            return
        keys = {pair.key for pair in batch}
        while earlier := [task for task, others in self._under_way.items() if keys & others]:
            await self._end_some(earlier)
        while len(self._under_way) >= self._at_once:
            await self._end_some(self._under_way)
        self._under_way[asyncio.create_task(self._store(batch))] = keys

    async def _end_some(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            del self._under_way[task]
        for task in done:
            task.result()

    async def _give_up(self) -> None:
        """What is under way ends, one way or another."""
        tasks, self._under_way = list(self._under_way), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _store(self, batch: list[Pair]) -> None:
        """Store these, one by one if they are refused together: then that one is told, and the others stored."""
        new = [
            NewPair(
                key=pair.key,
                value=pair.value,
                expiration_ttl=pair.ttl,
                expiration=pair.expiration,
                metadata=pair.metadata,
            )
            for pair in batch
        ]
        try:
            await _patiently(lambda: self._target.put_many(new))
        except RequestError as error:
            if len(batch) > 1 and error.definite and error.status < 500:
                for pair in batch:
                    await self._store([pair])
                return
            pair = batch[0]
            if error.code == EXPIRATION_REFUSED and pair.expiration is not None and pair.ttl is None:
                self._counts.expired += 1  # its time came on the way
                return
            raise KvnetError(f"{pair.where}: {error}") from None
        self._counts.stored += len(batch)
        self._stored.add(len(batch))


async def _patiently(put: Callable[[], Awaitable[object]]) -> None:
    """Try again while nobody takes it, as long as told to come back."""
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            await put()
        except RequestError as error:
            wait_s = _wait_s(error)
            if wait_s is None or time.monotonic() + wait_s > give_up_at:
                raise
            await asyncio.sleep(wait_s)
        else:
            return


def _wait_s(error: RequestError) -> float | None:
    """Return when to try again; None for a refusal that stays one. A put may be repeated: it says the same."""
    if error.status not in COME_BACK and error.definite:
        return None
    told = error.headers.get("Retry-After", "")
    return min(WAIT_S_MAX, float(told)) if told.isascii() and told.isdigit() else WAIT_S_DEFAULT
