"""`kvnet compact`: what is free in the replicas' files goes back to the disk."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import aiohttp
import typer
from rich import box
from rich.table import Table

from kvnet.cli.options import DATA_DEFAULT, DataOption, JsonOption, complete_node, run_folder
from kvnet.cli.output import print_report
from kvnet.cli.polling import Answer, urls_of
from kvnet.cli.sizes import bytes_in_words
from kvnet.errors import ConfigError, KvnetError
from nodes.compacting import COMPACT_PATH

TIMEOUT_S: Final = 3600.0
"""A replica is copied whole."""


def compact(
    nodes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NODE…]", help="All, if none is named.", autocompletion=complete_node),
    ] = None,
    data: DataOption = DATA_DEFAULT,
    json_: JsonOption = False,
) -> None:
    """Give what deleted data left free back to the disk.

    A replica's file never gets smaller by itself. One node after the other copies its replica and puts the copy
    in its place, and goes on serving meanwhile. The disk must have room for the copy.
    """
    cluster = run_folder(data).cluster()
    urls = urls_of(cluster)
    names = list(dict.fromkeys(name.lower() for name in nodes or urls))
    unknown = [name for name in names if name not in urls]
    if unknown:
        raise ConfigError(f"there is no replica {', '.join(unknown)}: `kvnet status` lists them")
    answers = asyncio.run(_compact_all({name: urls[name] for name in names}, cluster["tokens"]["admin"]))
    if json_:
        told = {name: {"problem": a} if isinstance(a, str) else a for name, a in answers.items()}
        typer.echo(json.dumps(told))
    else:
        print_report(_table(answers), *_summary(answers))
    failed = {name: answer for name, answer in answers.items() if isinstance(answer, str)}
    if failed:
        name, why = next(iter(failed.items()))
        raise KvnetError(f"{len(failed)} of {len(answers)} weren't compacted; {name}: {why}")


async def _compact_all(urls: Mapping[str, str], token: str) -> dict[str, Answer]:
    """One after the other: they may share a disk, and each needs room for a copy."""
    headers = {"Authorization": f"Bearer {token}"}
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S, sock_connect=5.0)
    answers: dict[str, Answer] = {}
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        for number, (name, url) in enumerate(urls.items(), 1):
            if sys.stderr.isatty():
                print(f"\r\x1b[Kcompacting {name}, {number} of {len(urls)} …", end="", file=sys.stderr, flush=True)
            answers[name] = await _compact(session, url)
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    return answers


async def _compact(session: aiohttp.ClientSession, url: str) -> Answer:
    try:
        async with session.post(f"{url}{COMPACT_PATH}") as response:
            answer: dict[str, Any] = await response.json()
            if response.status == 200:
                return answer
            return str(answer["errors"][0]["message"]).removeprefix("compact: ")
    except TimeoutError:
        return "no answer in time"
    except aiohttp.ClientConnectorError:
        return "down"
    except (aiohttp.ClientError, ValueError, LookupError, TypeError) as error:
        return f"no answer ({type(error).__name__})"


def _table(answers: Mapping[str, Answer]) -> Table:
    table = Table(box=box.SIMPLE)
    table.add_column("node")
    for heading in ("before", "after", "given back"):
        table.add_column(heading, justify="right")
    for name, answer in answers.items():
        if isinstance(answer, str):
            table.add_row(name, "", "", answer, style="red")
            continue
        before, after = answer["before"], answer["after"]
        table.add_row(name, *(bytes_in_words(size) for size in (before, after, max(0, before - after))))
    return table


def _summary(answers: Mapping[str, Answer]) -> Sequence[str]:
    freed = sum(max(0, a["before"] - a["after"]) for a in answers.values() if not isinstance(a, str))
    return [f"{bytes_in_words(freed)} given back to the disk"]
