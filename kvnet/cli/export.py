"""`kvnet export`: the pairs of a namespace as JSON lines."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
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
)
from kvnet.cli.options import DATA_DEFAULT, DataOption
from kvnet.cli.outfile import whole_file
from kvnet.cli.pairs import write_pair
from kvnet.cli.tally import Counter, plural
from kvnet.client import Namespace, Value
from kvnet.errors import RequestError

AT_ONCE_MAX: Final = 4
"""Requests under way."""
GROUP_KEYS: Final = 100
"""Pairs of one request, as many as the API gives."""
NOT_AT_ONCE: Final = 10029
"""The API's code for values that aren't text, or too large together."""
BYTES_AT_ONCE: Final = 64 * 1024 * 1024
"""The memory that values on their way may take; with large values fewer are on their way."""

Found = Value[str] | Value[bytes]


def export(
    namespace: NamespaceArgument,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="Where to; - is standard output.")
    ] = "-",
    prefix: Annotated[str, typer.Option("--prefix", help="Only keys that start so.")] = "",
    near: NearOption = None,
    from_: FromOption = None,
    pop: PopOption = None,
    data: DataOption = DATA_DEFAULT,
) -> None:
    """Write a namespace's pairs as JSON lines.

    Each pair is whole, as one PoP had it while the export ran; pairs written meanwhile may be in it or not.
    `kvnet import` takes the lines back, exactly.
    """
    at_once = concurrency(limits_of(data).value_bytes_max)

    async def run(file: BinaryIO) -> tuple[int, int]:
        async with open_network(data, near, pop, from_) as net:
            source = net.namespace(checked_text(namespace, "namespace"))
            await source.id()
            return await _export(source, checked_text(prefix, "prefix"), file, at_once)

    with _output(output) as file:
        count, gone = asyncio.run(run(file))
    vanished = f"; {plural(gone, 'key')} vanished meanwhile" if gone else ""
    print(f"exported {plural(count, 'pair')} of {namespace}{vanished}", file=sys.stderr)


def concurrency(value_bytes_max: int, at_once_max: int = AT_ONCE_MAX) -> int:
    """Return how many values may be on their way at once."""
    return max(2, min(at_once_max, BYTES_AT_ONCE // max(1, value_bytes_max)))


async def _export(source: Namespace, prefix: str, file: BinaryIO, at_once: int) -> tuple[int, int]:
    """Return how many pairs were written, and how many keys were gone when their value was asked for."""
    gone = 0
    with Counter("exported", "pairs") as written:
        async for key, found in _pairs(source, prefix, at_once):
            if found.value is None:
                gone += 1
                continue
            file.write(write_pair(key, found))
            written.add()
    return written.count, gone


async def _pairs(source: Namespace, prefix: str, at_once: int) -> AsyncIterator[tuple[str, Found]]:
    """Yield key and pair in the order of the keys; `at_once` groups of them are asked for ahead."""
    waiting: deque[tuple[list[str], asyncio.Task[dict[str, Found]]]] = deque()
    group: list[str] = []

    async def oldest() -> list[tuple[str, Found]]:
        keys, task = waiting[0]
        found = await task
        waiting.popleft()
        return [(key, found[key]) for key in keys]

    try:
        async for listed in source.keys(prefix=prefix):
            group.append(listed.name)
            if len(group) < GROUP_KEYS:
                continue
            if len(waiting) >= at_once:
                for pair in await oldest():
                    yield pair
            waiting.append((group, asyncio.create_task(_read(source, group))))
            group = []
        if group:
            waiting.append((group, asyncio.create_task(_read(source, group))))
        while waiting:
            for pair in await oldest():
                yield pair
    finally:
        for _, task in waiting:
            task.cancel()
        await asyncio.gather(*(task for _, task in waiting), return_exceptions=True)


async def _read(source: Namespace, keys: list[str]) -> dict[str, Found]:
    """Return these pairs: by one request, or if that can't be, of half as many at a time."""
    if len(keys) == 1:
        return {keys[0]: await source.get_with_metadata(keys[0], "bytes")}
    try:
        return dict(await source.get_with_metadata(keys))
    except RequestError as error:
        if error.code != NOT_AT_ONCE:
            raise
    middle = len(keys) // 2
    return {**await _read(source, keys[:middle]), **await _read(source, keys[middle:])}


@contextmanager
def _output(name: str) -> Iterator[BinaryIO]:
    """Give the file to write; one with a name is there when all is in it, and not before.

    Raises:
        ConfigError: it can't be written.
    """
    if name == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with whole_file(Path(name)) as file:
        yield file
