"""`kvnet fetch`: one request to a Worker, as a client in some city would send it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import aiohttp
import typer
from multidict import CIMultiDict
from yarl import URL

from kvnet.cli.options import DATA_DEFAULT, DataOption
from kvnet.client.directory import Directory
from kvnet.client.route import nearest_first
from kvnet.client.route import place_of as named_place
from kvnet.errors import ConfigError, KvnetError
from kvnet.topology.geography import Located, nearest
from kvnet.topology.load import SHIPPED, load
from kvnet.workers.build import directory_of
from kvnet.workers.preface import CF_HEADER, place_of
from kvnet.workers.running import Running, find_running

REFUSED_FROM: Final = 400
PIECE_BYTES: Final = 65_536
CONNECT_S: Final = 5.0


def fetch(
    url: Annotated[str, typer.Argument(metavar="URL", help="A path, or a URL, whose host is sent as Host.")],
    near: Annotated[
        str | None,
        typer.Option(
            "--near", help="Send it from this city, code or lat,lon.", show_default="from the Worker's first PoP"
        ),
    ] = None,
    pop: Annotated[
        str | None, typer.Option("--pop", metavar="CODE", help="Send it to the Worker at this PoP.")
    ] = None,
    method: Annotated[
        str | None, typer.Option("-X", "--request", metavar="METHOD", show_default="GET, with -d POST")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("-H", "--header", metavar="'NAME: VALUE'", help="May be repeated.")
    ] = None,
    body: Annotated[
        str | None, typer.Option("-d", "--data-raw", metavar="BODY", help="The body, or @FILE; @- is stdin.")
    ] = None,
    include: Annotated[bool, typer.Option("-i", "--include", help="Print status and headers first.")] = False,
    worker: Annotated[
        str | None, typer.Option("--worker", metavar="NAME", help="Which Worker, where several run.")
    ] = None,
    data: DataOption = DATA_DEFAULT,
) -> None:
    """Send a request to the Worker nearest to a city, and print the answer's body.

    The Worker finds the sender's place in request.cf, and its own PoP in request.cf.colo. With a status of 400 or
    above the exit code is 1. Redirects aren't followed.
    """
    if near is not None and pop is not None:
        raise ConfigError("--near and --pop each say where the request goes: give one of them")
    directory = directory_of(data, None)
    running = find_running(data, worker)
    place, target = _route(directory, running, near, pop)
    headers = _headers(header or [])
    if place is not None:
        headers[CF_HEADER] = place
    content = _body(body)
    address, host = _address(url, target)
    if host is not None:
        headers.setdefault("Host", host)
    verb = method or ("GET" if content is None else "POST")
    status = asyncio.run(_send(verb, address, headers, content, include=include))
    if status >= REFUSED_FROM:
        raise typer.Exit(1)


def _route(directory: Directory, running: Running, near: str | None, pop: str | None) -> tuple[str | None, str]:
    """Return the sender's place, as the header tells it, and the Worker's address.

    Raises:
        ConfigError: there is no such place, or the Worker doesn't run at that PoP.
    """
    if near is not None:
        by_distance = nearest_first(directory, near)
        known: list[Located] = [*directory.placed, *load(SHIPPED[0]).pops]
        sender = json.dumps(place_of(nearest(named_place(near, directory.placed), known)[0]))
        for edge in by_distance:
            if edge.code in running.pops:
                return sender, running.pops[edge.code]
        raise ConfigError(f"{running.name} runs at no PoP of this network: start it again")
    if pop is None:
        return None, next(iter(running.pops.values()))
    code = directory.only(pop).edges[0].code
    if code not in running.pops:
        raise ConfigError(f"{running.name} doesn't run at {code}, but at {_few(list(running.pops))}")
    return None, running.pops[code]


def _few(codes: Sequence[str]) -> str:
    return ", ".join(codes[:10]) + (f" and {len(codes) - 10} more" if len(codes) > 10 else "")


def _address(url: str, target: str) -> tuple[URL, str | None]:
    """Return where to send to, and the host that the URL names."""
    try:
        wanted = URL(url)
        if wanted.scheme in {"http", "https"} and wanted.host:
            base = URL(target)
            return wanted.with_scheme("http").with_host(str(base.host)).with_port(
                base.port
            ), wanted.host_port_subcomponent
        if url.startswith("/"):
            return URL(f"{target}{url}"), None
    except ValueError:
        pass
    raise ConfigError(f"{url!r} won't do: write a path such as /, or http://host/path")


def _headers(lines: Sequence[str]) -> CIMultiDict[str]:
    headers: CIMultiDict[str] = CIMultiDict()
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise ConfigError(f"-H {line!r} won't do: write 'NAME: VALUE'")
        headers.add(name.strip(), value.strip())
    return headers


def _body(text: str | None) -> bytes | None:
    """Return the body as bytes.

    Raises:
        ConfigError: its file can't be read.
    """
    if text is None or not text.startswith("@"):
        return None if text is None else text.encode("utf-8", "surrogateescape")
    if text == "@-":
        return sys.stdin.buffer.read()
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise ConfigError(f"-d {text}: the file can't be read ({error.strerror})") from None


async def _send(method: str, url: URL, headers: CIMultiDict[str], body: bytes | None, *, include: bool) -> int:
    """Print the answer as it comes, and return its status."""

    async def pieces(content: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(content), PIECE_BYTES):
            yield content[start : start + PIECE_BYTES]

    if body is not None:
        headers.setdefault("Content-Length", str(len(body)))
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
    try:
        async with (
            aiohttp.ClientSession(
                timeout=timeout, auto_decompress=False, skip_auto_headers=("Accept-Encoding",)
            ) as session,
            session.request(
                method,
                url,
                headers=headers,
                data=None if body is None else pieces(body),
                allow_redirects=False,
            ) as response,
        ):
            out = sys.stdout.buffer
            if include:
                lines = [f"HTTP/1.1 {response.status} {response.reason or ''}".rstrip()]
                lines += [f"{name}: {value}" for name, value in response.headers.items()]
                out.write(("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape"))
            async for piece in response.content.iter_any():
                out.write(piece)
                out.flush()
            out.flush()
            return response.status
    except (aiohttp.ClientError, TimeoutError) as error:
        raise KvnetError(f"the Worker at {url.origin()} doesn't answer ({error!s:.200})") from None
    except ValueError as error:  # a method or a header that can't be one
        raise ConfigError(f"this can't be sent: {error!s:.200}") from None
