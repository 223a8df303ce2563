"""`kvnet token create|list|roll|revoke`."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Final

import typer
from rich import box
from rich.table import Table

from kvnet.cli.connection import FromOption, NearOption, PopOption, checked_text, open_network, print_json
from kvnet.cli.options import DATA_DEFAULT, DataOption, JsonOption
from kvnet.cli.output import print_report
from kvnet.client import Network, TokenInfo
from kvnet.core.catalog import FOUNDING_PREFIX, Scope
from kvnet.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="Create, list, roll and revoke tokens.")

TokenArgument = Annotated[str, typer.Argument(metavar="TOKEN", help="Name or id.")]

SECONDS: Final = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_SPAN = re.compile(r"([0-9]{1,6})([mhdw])")
SHOWN_ONCE: Final = "this is the only time it is shown; `kvnet token roll` makes another one"


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    scope: Annotated[Scope, typer.Option("--scope", help="Each includes the ones before it.")] = Scope.READ,
    namespace: Annotated[
        list[str] | None,
        typer.Option("--namespace", help="Good for this one alone, a title or an id; may be repeated."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", help="90d, 12h, or a date such as 2030-01-31.", show_default="never")
    ] = None,
    near: NearOption = None,
    from_: FromOption = None,
    pop: PopOption = None,
    data: DataOption = DATA_DEFAULT,
    json_: JsonOption = False,
) -> None:
    """Create a token, and print its secret."""
    expires_on = None if expires is None else _moment(expires)
    only = [checked_text(each, "namespace") for each in namespace or ()]

    async def run() -> tuple[TokenInfo, str]:
        async with open_network(data, near, pop, from_, as_admin=True) as net:
            return await net.create_token(
                checked_text(name, "name"), scope=str(scope), namespaces=only, expires_on=expires_on
            )

    token, secret = asyncio.run(run())
    _tell_secret(secret, {**asdict(token), "value": secret} if json_ else None)


@app.command("list")
def list_tokens(
    near: NearOption = None,
    from_: FromOption = None,
    pop: PopOption = None,
    data: DataOption = DATA_DEFAULT,
    json_: JsonOption = False,
) -> None:
    """Show every token by name, without its secret."""

    async def run() -> tuple[list[TokenInfo], dict[str, str]]:
        async with open_network(data, near, pop, from_, as_admin=True) as net:
            tokens = await net.tokens()
            namespaces = await net.namespaces() if any(token.namespaces for token in tokens) else []
            return tokens, {namespace.id: namespace.title for namespace in namespaces}

    tokens, titles = asyncio.run(run())
    if json_:
        print_json([asdict(token) for token in tokens])
        return
    table = Table(box=box.SIMPLE)
    for heading in ("name", "scope", "namespaces", "issued", "expires", "id"):
        table.add_column(heading, no_wrap=heading == "id")
    for token in tokens:
        ends = token.expires_on or "never"
        table.add_row(
            token.name,
            token.scope,
            ", ".join(titles.get(id_, id_) for id_ in token.namespaces) or "all",
            token.issued_on or "with the cluster",
            ends if token.status == "active" else f"{ends} ({token.status})",
            token.id,
        )
    print_report(table)


@app.command()
def roll(
    token: TokenArgument,
    near: NearOption = None,
    from_: FromOption = None,
    pop: PopOption = None,
    data: DataOption = DATA_DEFAULT,
    json_: JsonOption = False,
) -> None:
    """Give a token another secret, and print it; the one before is refused from then on."""

    async def run() -> str:
        async with open_network(data, near, pop, from_, as_admin=True) as net:
            return await net.roll_token(await _own(net, token))

    secret = asyncio.run(run())
    _tell_secret(secret, {"value": secret} if json_ else None)


@app.command()
def revoke(
    token: TokenArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    near: NearOption = None,
    from_: FromOption = None,
    pop: PopOption = None,
    data: DataOption = DATA_DEFAULT,
) -> None:
    """Have a token refused everywhere. On a terminal it asks first."""
    if not yes and sys.stdin.isatty():
        typer.confirm(f"Revoke {token!r}?", abort=True, err=True)

    async def run() -> None:
        async with open_network(data, near, pop, from_, as_admin=True) as net:
            await net.revoke_token(await _own(net, token))

    asyncio.run(run())


async def _own(net: Network, name: str) -> str:
    """Return the id of a token that people made.

    Raises:
        ConfigError: it is one of those that the cluster was made with.
    """
    id_ = (await net.token(checked_text(name, "token"))).id
    if id_.startswith(FOUNDING_PREFIX):
        raise ConfigError(f"{name} is one of cluster.json, with which kvnet's own commands ask: it has to stay")
    return id_


def _tell_secret(secret: str, document: object | None) -> None:
    if document is None:
        typer.echo(secret)
    else:
        print_json(document)
    print(SHOWN_ONCE, file=sys.stderr)


def _moment(text: str) -> str:
    """Return a time in ISO 8601 for a span from now, or for a date.

    Raises:
        ConfigError: it is neither.
    """
    span = _SPAN.fullmatch(text)
    try:
        if span is not None:
            moment = datetime.fromtimestamp(time.time() + int(span[1]) * SECONDS[span[2]], UTC)
        else:
            moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        text = f"--expires {text}: write a span such as 90d or 12h, or a date such as 2030-01-31"
        raise ConfigError(text) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat(timespec="seconds")
