"""`kvnet namespace create|list|rename|delete`."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from kvnet.cli.connection import (
    FromOption,
    NamespaceArgument,
    NearOption,
    PopOption,
    checked_text,
    open_network,
    print_json,
)
from kvnet.cli.options import DATA_DEFAULT, DataOption, JsonOption
from kvnet.client import NamespaceInfo

app = typer.Typer(no_args_is_help=True, help="Create, list, rename and delete namespaces.")

TitleArgument = Annotated[str, typer.Argument(metavar="TITLE")]


@app.command()
def create(
    title: TitleArgument,
    id_: Annotated[str | None, typer.Option("--id", metavar="HEX", help="32 hex digits; else a new one.")] = None,
    near: NearOption = None,
    from_: FromOption = None,
    pop: PopOption = None,
    data: DataOption = DATA_DEFAULT,
    json_: JsonOption = False,
) -> None:
    """Create a namespace, and print its id."""

    async def run() -> str:
        async with open_network(data, near, pop, from_) as net:
            wanted = None if id_ is None else checked_text(id_, "id")
            return await (await net.create_namespace(checked_text(title, "title"), id=wanted)).id()

    namespace_id = asyncio.run(run())
    if json_:
        print_json({"id": namespace_id, "title": title})
    else:
        typer.echo(namespace_id)


@app.command("list")
def list_namespaces(
    near: NearOption = None,
    from_: FromOption = None,
    pop: PopOption = None,
    data: DataOption = DATA_DEFAULT,
    json_: JsonOption = False,
) -> None:
    """Print id and title of every namespace, by title."""

    async def run() -> list[NamespaceInfo]:
        async with open_network(data, near, pop, from_) as net:
            return await net.namespaces()

    namespaces = asyncio.run(run())
    if json_:
        print_json([{"id": namespace.id, "title": namespace.title} for namespace in namespaces])
        return
    for namespace in namespaces:
        typer.echo(f"{namespace.id}  {namespace.title}")


@app.command()
def rename(
    namespace: NamespaceArgument,
    title: TitleArgument,
    near: NearOption = None,
    from_: FromOption = None,
    pop: PopOption = None,
    data: DataOption = DATA_DEFAULT,
) -> None:
    """Give a namespace another title; its id and pairs stay."""

    async def run() -> None:
        async with open_network(data, near, pop, from_) as net:
            await net.namespace(checked_text(namespace, "namespace")).rename(checked_text(title, "title"))

    asyncio.run(run())


@app.command()
def delete(
    namespace: NamespaceArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    near: NearOption = None,
    from_: FromOption = None,
    pop: PopOption = None,
    data: DataOption = DATA_DEFAULT,
) -> None:
    """Delete a namespace with every pair in it. On a terminal it asks first."""
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Delete {namespace!r} and everything in it?", abort=True, err=True)

    async def run() -> None:
        async with open_network(data, near, pop, from_) as net:
            await net.namespace(checked_text(namespace, "namespace")).drop()

    asyncio.run(run())
