"""`kvnet why-stale`: which PoPs have a key's newest version, and where it is held up on its way to the others."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
import typer
from rich import box
from rich.table import Table
from yarl import URL

from kvnet.cli.connection import KeyArgument, NamespaceArgument, checked_key, checked_text
from kvnet.cli.held_up import Sight, Spread
from kvnet.cli.options import DATA_DEFAULT, DataOption, JsonOption, run_folder
from kvnet.cli.output import print_report
from kvnet.cli.polling import AT_ONCE, TIMEOUT_S, Answer, ask, ask_statuses, require_some, urls_of
from kvnet.client.wire import segment
from kvnet.core.versions import Version
from kvnet.errors import ConfigError, KvnetError
from kvnet.topology.fields import COORDINATOR
from kvnet.topology.wan_state import WanState

SOME_LACK_IT_EXIT: Final = 1
KEY_NOT_FOUND_EXIT: Final = 4
WAN_PATH: Final = "/peer/v1/wan"

_ID: Final = re.compile(r"[0-9a-fA-F]{32}")


def why_stale(
    namespace: NamespaceArgument,
    key: KeyArgument,
    data: DataOption = DATA_DEFAULT,
    json_: JsonOption = False,
) -> None:
    """Show which PoPs have a key's newest version, and where it is held up on its way to the others.

    Exit code 0: all have it; 1: some don't, no node answers, or there is no such namespace; 4: it is nowhere.
    """
    spread, cities = asyncio.run(_look(data, checked_text(namespace, "namespace"), checked_key(key)))
    if not spread.is_anywhere:
        typer.echo(f"kvnet: there is no key {key!r} in {namespace!r} at any node that answers", err=True)
        raise typer.Exit(KEY_NOT_FOUND_EXIT)
    rows = sorted(spread.pops, key=lambda sight: _badness(spread, sight), reverse=True)
    if json_:
        typer.echo(json.dumps(_document(spread, rows, key), ensure_ascii=False))
    else:
        print_report(_table(spread, rows, cities), spread.conclusion())
    if spread.causes:
        raise typer.Exit(SOME_LACK_IT_EXIT)


async def _look(data: Path, namespace: str, key: str) -> tuple[Spread, Mapping[str, str]]:
    """Ask every node for itself, then the coordinator and after it the PoPs for the key."""
    folder = run_folder(data)
    cluster = folder.cluster()
    urls = urls_of(cluster)
    statuses = await ask_statuses(folder, cluster)
    require_some(statuses, data)
    cities = {code: str(pop["city"]) for code, pop in cluster["pops"].items()}
    id_ = _id_of(namespace, statuses)
    if id_ is None:
        raise KvnetError(f"there is no namespace {namespace!r}: `kvnet namespace list` shows them")
    base = f"/client/v4/accounts/{cluster['account_id']}/storage/kv/namespaces/{id_}/metadata/{segment(key)}"
    gate = asyncio.Semaphore(AT_ONCE)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    headers = {"Authorization": f"Bearer {cluster['tokens']['read']}"}
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:

        async def see(name: str) -> Sight:
            async with gate:
                return await _see(session, name, urls[name] + base, statuses[name])

        first = await see(COORDINATOR)
        others = await asyncio.gather(*(see(name) for name in urls if name != COORDINATOR))
    return Spread([first, *others], await _wan_state(cluster, statuses)), cities


def _id_of(namespace: str, statuses: Mapping[str, Answer]) -> str | None:
    """Return the id of the namespace with this title or id, as the first node that knows one tells."""
    for status in statuses.values():
        known = {} if isinstance(status, str) else status.get("namespaces", {})
        for id_, told in known.items():
            if told["title"] == namespace:
                return str(id_)
    return namespace.lower() if _ID.fullmatch(namespace) else None


async def _see(session: aiohttp.ClientSession, name: str, url: str, status: Answer) -> Sight:
    """Return one replica with what it has of the key; a value isn't needed for that, only its version."""
    try:
        async with session.get(URL(url, encoded=True)) as response:
            told = response.headers
            position = Version.parse(told["KV-Position"]) if "KV-Position" in told else None
            if position is not None and response.status in {200, 404}:
                version = Version.parse(told["KV-Version"]) if response.status == 200 else None
                return Sight(name, None, version, position, status)
            problem = "not ready" if response.status in {401, 503} else f"HTTP {response.status}"
    except TimeoutError:
        problem = "no answer in time"
    except aiohttp.ClientConnectorError:
        return Sight(name, "down", None, None, "down")
    except (aiohttp.ClientError, ValueError) as error:
        problem = f"no answer ({type(error).__name__})"
    return Sight(name, problem, None, _position_of(status), status)


def _position_of(status: Answer) -> Version | None:
    try:
        return None if isinstance(status, str) else Version.parse(str(status.get("position")))
    except ValueError:
        return None


async def _wan_state(cluster: Mapping[str, Any], statuses: Mapping[str, Answer]) -> WanState:
    """Return what disturbs the simulated network, by the first node that tells; nothing without an admin token."""
    token = cluster["tokens"].get("admin")
    urls = urls_of(cluster)
    headers = {"Authorization": f"Bearer {token}"}
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        for name, status in statuses.items():
            if isinstance(status, str):
                continue
            answer = await ask(session, urls[name] + WAN_PATH)
            if isinstance(answer, str):
                continue
            try:
                return WanState.from_dict(answer)
            except ConfigError:
                continue
    return WanState()


def _badness(spread: Spread, sight: Sight) -> tuple[bool, bool, int, float]:
    """Sort what lacks the version to the top, the silent first."""
    lag = spread.lag(sight)
    return sight.name in spread.causes, sight.problem is not None, lag or 0, sight.staleness_ms or 0.0


def _table(spread: Spread, rows: list[Sight], cities: Mapping[str, str]) -> Table:
    table = Table(box=box.SIMPLE)
    table.add_column("PoP", no_wrap=True)
    table.add_column("city", overflow="ellipsis", no_wrap=True)
    table.add_column("version", no_wrap=True)
    table.add_column("position", no_wrap=True)
    for heading in ("behind", "stale ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("parent", no_wrap=True)
    table.add_column("its path from the coordinator", overflow="fold")
    table.add_column("held up", overflow="fold")
    for sight in rows:
        cause = spread.causes.get(sight.name)
        lag = spread.lag(sight)
        silent = isinstance(sight.status, str)
        table.add_row(
            sight.name,
            cities.get(sight.name, ""),
            sight.problem or str(sight.version or "none"),
            str(sight.position or ""),
            "" if silent else "?" if lag is None else str(lag),
            "" if sight.staleness_ms is None else f"{sight.staleness_ms:.0f}",
            "" if silent else sight.parent or "none",
            " → ".join([*sight.path, sight.name]) if sight.path else "",
            "" if cause is None else cause.in_words(),
            style=None if cause is None else "red" if silent else "yellow",
        )
    return table


def _document(spread: Spread, rows: list[Sight], key: str) -> dict[str, Any]:
    """Return what `--json` prints."""
    assert spread.reference is not None, "a key that is somewhere was told by somebody"
    pops: dict[str, Any] = {}
    for sight in rows:
        cause = spread.causes.get(sight.name)
        pops[sight.name] = {
            "has_it": cause is None,
            "problem": sight.problem,
            "version": _spelled(sight.version),
            "position": _spelled(sight.position),
            "behind": spread.lag(sight),
            "staleness_ms": sight.staleness_ms,
            "parent": sight.parent,
            "path": sight.path,
            "held_up_at": None if cause is None else cause.at,
            "why": None if cause is None else cause.why,
        }
    return {
        "key": key,
        "version": _spelled(spread.version),
        "told_by": spread.reference.name,
        "head": _spelled(spread.head),
        "pops": pops,
        "conclusion": spread.conclusion(),
    }


def _spelled(version: Version | None) -> str | None:
    return None if version is None else str(version)
