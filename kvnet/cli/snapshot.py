"""`kvnet snapshot save|restore|show`: a whole replica as one file, and back."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import aiohttp
import typer
from rich import box
from rich.table import Table

from kvnet.cli.bar import Bar
from kvnet.cli.connection import print_json
from kvnet.cli.options import DATA_DEFAULT, DataOption, JsonOption, complete_node, run_folder
from kvnet.cli.outfile import whole_file
from kvnet.cli.output import print_report
from kvnet.cli.polling import Answer, ask_all, urls_of
from kvnet.cli.tally import plural
from kvnet.core.versions import Version
from kvnet.errors import ConfigError, KvnetError
from kvnet.storage.snapshot import End, Header, Parser, SavedPage, Summary, check_snapshot, read_items
from kvnet.topology.fields import COORDINATOR
from nodes.cluster import RunFolder
from nodes.snapshots import (
    SNAPSHOT_PATH,
    cluster_id_in,
    has_data,
    restore_stopped,
    save_stopped,
)

READ_BYTES: Final = 256 * 1024
SILENCE_S: Final = 60.0
"""A node that says nothing for so long is given up."""

app = typer.Typer(
    help="Save a whole replica as one file, look at it, restore it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", show_default=False)]


@app.command()
def save(
    file: FileArgument,
    pop: Annotated[
        str | None,
        typer.Option("--pop", metavar="CODE", help="Save from this running node.", autocompletion=complete_node),
    ] = None,
    node: Annotated[
        str | None,
        typer.Option(
            "--node", metavar="NODE", help="Save from this stopped node's folder.", autocompletion=complete_node
        ),
    ] = None,
    data: DataOption = DATA_DEFAULT,
    json_: JsonOption = False,
) -> None:
    """Save everything that the network stores as one file.

    A running network is asked at the PoP that is furthest; readers and writers go on. If nothing runs, the
    coordinator's folder is read. The file also holds the tokens' hashes: only its owner may read it.
    """
    folder = run_folder(data)
    if pop is not None and node is not None:
        raise ConfigError("--pop saves from a running node, --node from a stopped one: give one of them")
    begun = time.monotonic()
    if node is not None:
        summary = _save_stopped(folder, node.lower(), file)
    else:
        source = _running_source(folder, None if pop is None else pop.lower())
        if source is not None:
            summary = asyncio.run(_save_running(folder.cluster(), source, file))
        elif has_data(folder, COORDINATOR):
            summary = _save_stopped(folder, COORDINATOR, file)
        else:
            raise KvnetError(f"nothing runs in {folder.path}, and there is no coordinator's data: `kvnet up`")
    size = file.stat().st_size
    if json_:
        print_json(_described(file, summary))
    end = summary.end
    print(
        f"saved {plural(end.records, 'record')} at {end.position.version} from {summary.header.node}: "
        f"{size:,} bytes in {time.monotonic() - begun:.1f} s",
        file=sys.stderr,
    )


@app.command()
def restore(
    file: FileArgument,
    node: Annotated[
        str,
        typer.Option("--node", metavar="NODE", help="The stopped node it becomes.", autocompletion=complete_node),
    ] = COORDINATOR,
    force: Annotated[bool, typer.Option("--force", help="Also where there is data, or damaged data.")] = False,
    data: DataOption = DATA_DEFAULT,
    json_: JsonOption = False,
) -> None:
    """Make a snapshot the data of a stopped node, the coordinator as a rule.

    All of the file is checked before anything is changed; then its records must add up to its digest before they
    take the place of what is there. What the network has beyond it is fetched or left when the coordinator
    starts: docs/operations.md, Recover.
    """
    folder = run_folder(data)
    name = node.lower()
    summary = _check(file)
    mine = cluster_id_in(folder)
    if summary.header.cluster_id != mine:
        raise KvnetError(
            f"{file} is of cluster {summary.header.cluster_id.hex()}, {folder.path} of {mine.hex()}: "
            "bring the secret and the topology that belong to it"
        )
    with Bar("restoring", summary.end.records, "records") as bar:
        position = restore_stopped(folder, name, read_items(file), force=force, on_records=bar.add)
    if json_:
        print_json({"node": name, "position": str(position.version), "records": summary.end.records})
    print(
        f"{name} has {plural(summary.end.records, 'record')}, up to {position.version}; `kvnet start {name}`, or "
        "`kvnet up` if nothing runs",
        file=sys.stderr,
    )


@app.command()
def show(file: FileArgument, json_: JsonOption = False) -> None:
    """Tell what is in a snapshot, and whether it is whole."""
    summary = _check(file)
    if json_:
        print_json(_described(file, summary))
        return
    table = Table(box=box.SIMPLE, show_header=False)
    for field, told in _described(file, summary).items():
        table.add_row(field.replace("_", " "), f"{told:,}" if isinstance(told, int) else str(told))
    print_report(table, "It is whole.")


def _check(file: Path) -> Summary:
    try:
        size = file.stat().st_size
    except OSError as error:
        raise ConfigError(f"{file} can't be read ({error.strerror}): name a snapshot that can") from None
    with Bar("checking", size, "bytes") as bar:
        return check_snapshot(file, bar.add)


def _described(file: Path, summary: Summary) -> dict[str, Any]:
    header, end = summary
    return {
        "cluster": header.cluster_id.hex(),
        "saved_from": header.node,
        "created": datetime.fromtimestamp(header.created_ms / 1000, UTC).isoformat(timespec="seconds"),
        "position": str(end.position.version),
        "digest": end.digest.hex(),
        "records": end.records,
        "pages": end.pages,
        "frames": end.frames,
        "chunks": end.chunks,
        "bytes": file.stat().st_size,
    }


# -- saving --------------------------------------------------------------------------------------------------


class _Saved:
    """A snapshot on its way to a file: what passes is checked as whoever restores it would."""

    def __init__(self, name: str) -> None:
        self._parser = Parser(name)
        self._name = name
        self._bar: Bar | None = None
        self._header: Header | None = None

    def take(self, data: bytes) -> None:
        for item in self._parser.feed(data):
            if isinstance(item, Header):
                self._header = item
                self._bar = Bar(f"saving from {item.node}", item.keys, "records").__enter__()
            elif isinstance(item, SavedPage) and self._bar is not None:
                self._bar.add(item.records)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.__exit__()

    def finish(self) -> Summary:
        end: End = self._parser.finish()
        assert self._header is not None, "the first item"
        return Summary(self._header, end)


def _write(file: Path, name: str, pieces: Iterator[bytes]) -> Summary:
    with whole_file(file, private=True) as output:
        saved = _Saved(name)
        try:
            for piece in pieces:
                saved.take(piece)
                output.write(piece)
        finally:
            saved.close()
        return saved.finish()


def _save_stopped(folder: RunFolder, name: str, file: Path) -> Summary:
    return _write(file, f"the snapshot of {name}", save_stopped(folder, name))


def _running_source(folder: RunFolder, pop: str | None) -> str | None:
    """Return the node to save from: the one asked for, else the PoP that is furthest, else the coordinator.

    None when none runs.

    Raises:
        ConfigError: there is no such node.
        KvnetError: none of those that run can be saved from.
    """
    cluster = folder.cluster()
    urls = urls_of(cluster)
    if pop is not None:
        if pop not in urls:
            raise ConfigError(f"there is no node {pop} in {folder.path}: `kvnet status` lists them")
        return pop
    answers = asyncio.run(ask_all(urls, "/status", cluster["tokens"]["read"]))
    if all(answer == "down" for answer in answers.values()):
        return None
    best = _furthest({name: answer for name, answer in answers.items() if name != COORDINATOR})
    best = best or _furthest({COORDINATOR: answers[COORDINATOR]})
    if best is None:
        raise KvnetError(
            "no node is ready to be saved from: `kvnet status` shows why; --node saves from a stopped one"
        )
    return best


def _furthest(answers: Mapping[str, Answer]) -> str | None:
    ready = {
        name: Version.parse(answer["position"])
        for name, answer in answers.items()
        if not isinstance(answer, str) and answer.get("ready") and not answer.get("bootstrap")
    }
    return max(ready, key=lambda name: ready[name], default=None)


async def _save_running(cluster: Mapping[str, Any], name: str, file: Path) -> Summary:
    url = urls_of(cluster)[name]
    headers = {"Authorization": f"Bearer {cluster['tokens']['admin']}"}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=SILENCE_S)
    with whole_file(file, private=True) as output:
        saved = _Saved(f"what {name} sent")
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
                session.get(f"{url}{SNAPSHOT_PATH}") as response,
            ):
                if response.status != 200:
                    raise KvnetError(f"{name} gave no snapshot: {await _told(response)}")
                await _receive(response, saved.take, output)
        except aiohttp.ClientConnectorError:
            raise KvnetError(f"{name} is down: `kvnet ps` shows it; --node saves from a stopped node") from None
        except (aiohttp.ClientError, TimeoutError):
            raise KvnetError(
                f"{name} ended before its snapshot was whole: `kvnet logs {name}` says why; {file} wasn't written"
            ) from None
        finally:
            saved.close()
        return saved.finish()


async def _receive(response: aiohttp.ClientResponse, take: Callable[[bytes], None], output: BinaryIO) -> None:
    async for data in response.content.iter_chunked(READ_BYTES):
        take(data)
        output.write(data)


async def _told(response: aiohttp.ClientResponse) -> str:
    """Return what an answer in the API's form says."""
    try:
        document = await response.json()
        return str(document["errors"][0]["message"])
    except (aiohttp.ClientError, ValueError, LookupError, TypeError):
        return f"HTTP {response.status}"
