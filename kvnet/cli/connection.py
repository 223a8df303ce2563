"""How data commands reach a network: the options they share, and the client these open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from kvnet.client import Network, connect
from kvnet.client.directory import CLUSTER_FILE, read_cluster_file
from kvnet.core.versions import Version
from kvnet.errors import ConfigError
from kvnet.limits import Limits, with_overrides

NearOption = Annotated[
    str | None,
    typer.Option("--near", help="Ask the PoP nearest to this city, code or lat,lon.", show_default="the fastest"),
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="Behave as a client in this city, code or lat,lon: each request takes as long as from there.",
        show_default="on this host",
    ),
]
PopOption = Annotated[str | None, typer.Option("--pop", help="Ask this PoP alone.", metavar="CODE")]
NamespaceArgument = Annotated[str, typer.Argument(metavar="NAMESPACE", help="Title or id.")]
AtLeastOption = Annotated[
    str | None, typer.Option("--at-least", help="Wait until the PoP has this version.", metavar="VERSION")
]
MaxStalenessOption = Annotated[
    int | None,
    typer.Option("--max-staleness", min=0, help="Take no answer that may be older.", metavar="MS"),
]
KeyArgument = Annotated[str, typer.Argument(metavar="KEY")]


def open_network(
    data: Path, near: str | None, pop: str | None, from_: str | None = None, *, as_admin: bool = False
) -> Network:
    """Return the network in `data`, to be entered with `async with`; `as_admin` may also handle tokens.

    Raises:
        ConfigError: there is none, or no such place or PoP; the text names the options.
    """
    if near is not None and pop is not None:
        raise ConfigError("--near and --pop each say which PoP to ask: give one of them")
    token = None
    if as_admin:
        token = read_cluster_file(data / CLUSTER_FILE).get("tokens", {}).get("admin")
        if not isinstance(token, str):
            raise ConfigError(
                f"{data / CLUSTER_FILE} has no admin token: ask on the host where the network was made"
            )
    return connect(data=data, near=near, pop=pop, from_=from_, token=token)


def limits_of(data: Path) -> Limits:
    """Return the limits of the network in `data`.

    Raises:
        ConfigError: there is none, or its limits are another version's.
    """
    told = read_cluster_file(data / CLUSTER_FILE).get("limits", {})
    return with_overrides(Limits(), told if isinstance(told, dict) else {})


def checked_text(text: str, what: str) -> str:
    """Return `text` if it can be sent.

    Raises:
        ConfigError: the shell passed bytes that are not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"the {what} {text!r} is not UTF-8: write it in UTF-8, as the API wants it") from None
    return text


def checked_key(text: str) -> str:
    """Return `text` if it can be a key.

    Raises:
        ConfigError: it is empty, for which the API has no word, or not allowed, or not UTF-8.
    """
    if not text:
        raise ConfigError("the key is empty: write at least one character")
    if text in {".", ".."}:
        raise ConfigError(f"the key {text!r} is not allowed: give it another name")
    return checked_text(text, "key")


def checked_version(text: str | None) -> Version | None:
    """Return the version that --at-least names, if any.

    Raises:
        ConfigError: it isn't one.
    """
    try:
        return None if text is None else Version.parse(text)
    except ValueError as error:
        raise ConfigError(f"--at-least: {error}") from None


def print_json(document: Any) -> None:
    typer.echo(json.dumps(document, ensure_ascii=False))
