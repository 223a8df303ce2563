"""`kvnet put`, `get`, `delete`, `list`: single pairs, and the keys of a namespace."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from kvnet.cli import explained
from kvnet.cli.connection import (
    AtLeastOption,
    FromOption,
    KeyArgument,
    MaxStalenessOption,
    NamespaceArgument,
    NearOption,
    PopOption,
    checked_key,
    checked_text,
    checked_version,
    open_network,
    print_json,
)
from kvnet.cli.options import DATA_DEFAULT, DataOption, JsonOption
from kvnet.client import ListedKey, Receipt, Value, trail
from kvnet.client.options import FreshOptions
from kvnet.core.versions import Version
from kvnet.errors import ConfigError, KvnetError

KEY_NOT_FOUND_EXIT = 4
SHOWN_MISSING = 5
"""PoPs without a write that are named in a line."""

WaitOption = Annotated[
    str | None,
    typer.Option("--wait", metavar="local|N%|all", help="Wait until so many PoPs have it.", show_default="none"),
]
WaitTimeoutOption = Annotated[
    int | None, typer.Option("--wait-timeout", min=0, metavar="MS", help="For so long at most.")
]


def put(
    namespace: NamespaceArgument,
    key: KeyArgument,
    value: Annotated[str | None, typer.Argument(metavar="[VALUE]", show_default="standard input")] = None,
    path: Annotated[Path | None, typer.Option("--path", help="Store this file's bytes.")] = None,
    ttl: Annotated[int | None, typer.Option("--ttl", help="Seconds until it expires.")] = None,
    expiration: Annotated[int | None, typer.Option("--expiration", help="Unix seconds when it expires.")] = None,
    metadata: Annotated[str | None, typer.Option("--metadata", help="JSON kept beside the value.")] = None,
    wait: WaitOption = None,
    wait_timeout: WaitTimeoutOption = None,
    near: NearOption = None,
    from_: FromOption = None,
    pop: PopOption = None,
    data: DataOption = DATA_DEFAULT,
    json_: JsonOption = False,
) -> None:
    """Store a value, and print its version once it is durable.

    With --wait, once so many PoPs have it. If the time is over before, it is durable still, and the exit code 1.
    """
    waiting = _waiting(wait, wait_timeout)
    content = _content(value, path)
    described = None if metadata is None else _metadata(metadata)

    async def run() -> Version | Receipt:
        async with open_network(data, near, pop, from_) as net:
            target = net.namespace(checked_text(namespace, "namespace"))
            outcome: Version | Receipt = await target.put(
                checked_key(key),
                content,
                expiration_ttl=ttl,
                expiration=expiration,
                metadata=described,
                **waiting,
            )
            return outcome

    _print_outcome(asyncio.run(run()), json_=json_)


def get(
    namespace: NamespaceArgument,
    key: KeyArgument,
    at_least: AtLeastOption = None,
    max_staleness: MaxStalenessOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Tell on standard error which PoPs there were, and how it was read.")
    ] = False,
    near: NearOption = None,
    from_: FromOption = None,
    pop: PopOption = None,
    data: DataOption = DATA_DEFAULT,
    json_: JsonOption = False,
) -> None:
    """Write a value's bytes to standard output, as the nearest PoP has them. Exit code 4: it has none."""
    fresh = FreshOptions(at_least=checked_version(at_least), max_staleness_ms=max_staleness)

    async def run() -> tuple[Value[bytes] | bytes | None, dict[str, Any] | None]:
        async with open_network(data, near, pop, from_) as net:
            source = net.namespace(checked_text(namespace, "namespace"))
            wanted = checked_key(key)
            with trail() as calls:
                found: Value[bytes] | bytes | None
                if json_:
                    found = await source.get_with_metadata(wanted, "bytes", **fresh)
                else:
                    found = await source.get(wanted, "bytes", **fresh)
            return found, await explained.explain(net, calls, _chosen(near, from_, pop)) if explain else None

    found, told = asyncio.run(run())
    content = found.value if isinstance(found, Value) else found
    if told is not None and (content is None or not json_):
        explained.print_explained(told)
    if content is None:
        typer.echo(f"kvnet: there is no key {key!r} in {namespace!r} at the PoP that was asked", err=True)
        raise typer.Exit(KEY_NOT_FOUND_EXIT)
    if isinstance(found, Value):
        print_json(_described(key, content, found) | ({} if told is None else {"explain": told}))
    else:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()


def delete(
    namespace: NamespaceArgument,
    key: KeyArgument,
    wait: WaitOption = None,
    wait_timeout: WaitTimeoutOption = None,
    near: NearOption = None,
    from_: FromOption = None,
    pop: PopOption = None,
    data: DataOption = DATA_DEFAULT,
    json_: JsonOption = False,
) -> None:
    """Delete a key, and print the version as of which it is gone. A key that isn't there is no error.

    With --wait, once so many PoPs know; if the time is over before, the exit code is 1.
    """
    waiting = _waiting(wait, wait_timeout)

    async def run() -> Version | Receipt:
        async with open_network(data, near, pop, from_) as net:
            source = net.namespace(checked_text(namespace, "namespace"))
            outcome: Version | Receipt = await source.delete(checked_key(key), **waiting)
            return outcome

    _print_outcome(asyncio.run(run()), json_=json_)


def list_keys(
    namespace: NamespaceArgument,
    prefix: Annotated[str, typer.Option("--prefix", help="Only keys that start so.")] = "",
    limit: Annotated[int | None, typer.Option("--limit", min=0, help="At most so many keys.")] = None,
    at_least: AtLeastOption = None,
    max_staleness: MaxStalenessOption = None,
    near: NearOption = None,
    from_: FromOption = None,
    pop: PopOption = None,
    data: DataOption = DATA_DEFAULT,
    json_: JsonOption = False,
) -> None:
    """Print the keys of a namespace, one a line, in the order of their bytes."""
    fresh = FreshOptions(at_least=checked_version(at_least), max_staleness_ms=max_staleness)

    async def run() -> list[ListedKey]:
        keys = []
        async with open_network(data, near, pop, from_) as net:
            source = net.namespace(checked_text(namespace, "namespace"))
            async for listed in source.keys(prefix=checked_text(prefix, "prefix"), limit=limit, **fresh):
                if json_:
                    keys.append(listed)
                else:
                    typer.echo(listed.name)
        return keys

    keys = asyncio.run(run())
    if json_:
        print_json([_listed(listed) for listed in keys])


def _content(value: str | None, path: Path | None) -> bytes:
    """Return the bytes to store.

    Raises:
        ConfigError: two sources or none, or a file that can't be read.
    """
    if value is not None and path is not None:
        raise ConfigError("VALUE and --path each say what to store: give one of them")
    if value is not None:
        return os.fsencode(value)  # exactly the bytes that the shell passed
    if path is not None:
        try:
            return path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{path} can't be read ({error.strerror}): name a file that can") from None
    if sys.stdin.isatty():
        raise ConfigError("there is no value: write it behind the key, name a file with --path, or pipe it in")
    return sys.stdin.buffer.read()


def _metadata(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON number")

    try:
        return json.loads(checked_text(text, "metadata"), parse_constant=refuse)
    except ValueError as error:
        raise ConfigError(f"--metadata is not JSON ({error}): quote it for the shell, as '{{\"a\": 1}}'") from None


def _waiting(wait: str | None, timeout_ms: int | None) -> dict[str, Any]:
    """Return what a write waits for, as the client takes it.

    Raises:
        ConfigError: there is a time, and nothing to wait for.
    """
    if wait is None and timeout_ms is not None:
        raise ConfigError("--wait-timeout says for how long: say with --wait for what, local, 99% or all")
    return {"wait": wait, "wait_timeout_ms": timeout_ms}


def _chosen(near: str | None, from_: str | None, pop: str | None) -> str:
    """Return why the edge that is asked first is the one."""
    if pop is not None:
        return "the only one to be asked"
    if near is not None:
        return f"the nearest to {near}"
    return "the fastest as measured" if from_ is None else f"the nearest to {from_}, where the client is"


def _print_outcome(outcome: Version | Receipt, *, json_: bool) -> None:
    """Print a write's version and, of one that was waited for, how far it has spread.

    Raises:
        KvnetError: it isn't where it was to be; printed all the same, since it is durable.
    """
    if not isinstance(outcome, Receipt):
        if json_:
            print_json({"version": str(outcome)})
        else:
            typer.echo(str(outcome))
        return
    if json_:
        print_json(asdict(outcome) | {"version": str(outcome.version)})
    else:
        typer.echo(str(outcome.version))
    if not outcome.complete:
        lacking = ", ".join(outcome.missing[:SHOWN_MISSING]) or "not told which lack it"
        more = len(outcome.missing) - SHOWN_MISSING
        raise KvnetError(
            f"{outcome.version} is durable, and in {outcome.applied} of {outcome.of} PoPs (missing: {lacking}"
            f"{f' and {more} more' if more > 0 else ''}): it goes on spreading, `kvnet why-stale` shows how"
        )


def _described(key: str, content: bytes, found: Value[bytes]) -> dict[str, Any]:
    """Return what `get --json` prints; a value that isn't text is in base64 under another name."""
    try:
        value = {"value": content.decode()}
    except UnicodeDecodeError:
        value = {"value_base64": base64.b64encode(content).decode()}
    return {
        "key": key,
        **value,
        "metadata": found.metadata,
        "expiration": found.expires_at,
        "version": str(found.version),
        "pop": found.pop,
        "staleness_ms": found.staleness_ms,
    }


def _listed(listed: ListedKey) -> dict[str, Any]:
    """Return a key as the API lists it: what isn't set is left out."""
    more = {"expiration": listed.expiration, "metadata": listed.metadata}
    return {"name": listed.name} | {name: value for name, value in more.items() if value is not None}
