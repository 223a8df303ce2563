"""`kvnet put`, `get`, `delete`, `list`: single pairs, and the keys of a namespace."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kvnet.cli.connection import (
    KeyArgument,
    NamespaceArgument,
    NearOption,
    PopOption,
    checked_key,
    checked_text,
    open_network,
    print_json,
)
from kvnet.cli.options import DATA_DEFAULT, DataOption, JsonOption
from kvnet.client import ListedKey, Value
from kvnet.core.versions import Version
from kvnet.errors import ConfigError

KEY_NOT_FOUND_EXIT = 4


def put(
    namespace: NamespaceArgument,
    key: KeyArgument,
    value: Annotated[str | None, typer.Argument(metavar="[VALUE]", show_default="standard input")] = None,
    path: Annotated[Path | None, typer.Option("--path", help="Store this file's bytes.")] = None,
    ttl: Annotated[int | None, typer.Option("--ttl", help="Seconds until it expires.")] = None,
    expiration: Annotated[int | None, typer.Option("--expiration", help="Unix seconds when it expires.")] = None,
    metadata: Annotated[str | None, typer.Option("--metadata", help="JSON kept beside the value.")] = None,
    near: NearOption = None,
    pop: PopOption = None,
    data: DataOption = DATA_DEFAULT,
    json_: JsonOption = False,
) -> None:
    """Store a value, and print its version once it is durable."""
    content = _content(value, path)
    described = None if metadata is None else _metadata(metadata)

    async def run() -> Version:
        async with open_network(data, near, pop) as net:
            target = net.namespace(checked_text(namespace, "namespace"))
            return await target.put(
                checked_key(key), content, expiration_ttl=ttl, expiration=expiration, metadata=described
            )

    _print_version(asyncio.run(run()), json_=json_)


def get(
    namespace: NamespaceArgument,
    key: KeyArgument,
    at_least: Annotated[
        str | None, typer.Option("--at-least", help="Wait until the PoP has this version.", metavar="VERSION")
    ] = None,
    near: NearOption = None,
    pop: PopOption = None,
    data: DataOption = DATA_DEFAULT,
    json_: JsonOption = False,
) -> None:
    """Write a value's bytes to standard output, as the nearest PoP has them. Exit code 4: it has none."""
    version = None if at_least is None else _version(at_least)

    async def run() -> Value[bytes] | bytes | None:
        async with open_network(data, near, pop) as net:
            source = net.namespace(checked_text(namespace, "namespace"))
            wanted = checked_key(key)
            if json_:
                return await source.get_with_metadata(wanted, "bytes", at_least=version)
            return await source.get(wanted, "bytes", at_least=version)

    found = asyncio.run(run())
    content = found.value if isinstance(found, Value) else found
    if content is None:
        typer.echo(f"kvnet: there is no key {key!r} in {namespace!r} at the PoP that was asked", err=True)
        raise typer.Exit(KEY_NOT_FOUND_EXIT)
    if isinstance(found, Value):
        print_json(_described(key, content, found))
    else:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()


def delete(
    namespace: NamespaceArgument,
    key: KeyArgument,
    near: NearOption = None,
    pop: PopOption = None,
    data: DataOption = DATA_DEFAULT,
    json_: JsonOption = False,
) -> None:
    """Delete a key, and print the version as of which it is gone. A key that isn't there is no error."""

    async def run() -> Version:
        async with open_network(data, near, pop) as net:
            return await net.namespace(checked_text(namespace, "namespace")).delete(checked_key(key))

    _print_version(asyncio.run(run()), json_=json_)


def list_keys(
    namespace: NamespaceArgument,
    prefix: Annotated[str, typer.Option("--prefix", help="Only keys that start so.")] = "",
    limit: Annotated[int | None, typer.Option("--limit", min=0, help="At most so many keys.")] = None,
    near: NearOption = None,
    pop: PopOption = None,
    data: DataOption = DATA_DEFAULT,
    json_: JsonOption = False,
) -> None:
    """Print the keys of a namespace, one a line, in the order of their bytes."""

    async def run() -> list[ListedKey]:
        keys = []
        async with open_network(data, near, pop) as net:
            source = net.namespace(checked_text(namespace, "namespace"))
            async for listed in source.keys(prefix=checked_text(prefix, "prefix"), limit=limit):
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


def _version(text: str) -> Version:
    try:
        return Version.parse(text)
    except ValueError as error:
        raise ConfigError(f"--at-least: {error}") from None


def _print_version(version: Version, *, json_: bool) -> None:
    if json_:
        print_json({"version": str(version)})
    else:
        typer.echo(str(version))


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
