"""`kvnet verify`: replicas recomputed from their stored bytes, and the keys in which they differ."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import aiohttp
import typer
from rich import box
from rich.table import Table

from kvnet.cli.differences import FINDINGS_MAX, Differences, Finding
from kvnet.cli.options import DATA_DEFAULT, DataOption, JsonOption, run_folder
from kvnet.cli.output import print_report
from kvnet.cli.polling import AT_ONCE, Answer, ask, require_some, urls_of
from kvnet.cli.tally import plural
from kvnet.errors import KvnetError
from kvnet.topology.fields import COORDINATOR

VERIFY_TIMEOUT_S: Final = 3600.0
"""A replica of a billion keys is read for many minutes."""
PATH: Final = "/peer/v1/verify"


def verify(data: DataOption = DATA_DEFAULT, json_: JsonOption = False) -> None:
    """Recompute every replica's digest and compare them.

    Reads all that is stored on every node. A damaged PoP stops serving, and is made anew from the network.
    """
    cluster = run_folder(data).cluster()
    answers, findings = asyncio.run(_verify(cluster, data))
    silent = [name for name, answer in answers.items() if isinstance(answer, str)]
    if json_:
        told = {
            "replicas": answers,
            "problems": [finding.line for finding in findings],
            "findings": [asdict(finding) for finding in findings],
        }
        typer.echo(json.dumps(told, ensure_ascii=False))
    else:
        print_report(_table(answers, findings), *_lines(findings))
    if findings:
        cures = {
            str(answer["cure"]) for answer in answers.values() if not isinstance(answer, str) and "cure" in answer
        }
        more = f"; {'; '.join(sorted(cures))}" if cures else "; `kvnet stop` that node, wipe its store, start it"
        names = list(dict.fromkeys(finding.node for finding in findings))
        raise KvnetError(f"{plural(len(findings), 'finding')} at {', '.join(names[:5])}{more}")
    if silent:
        raise KvnetError(
            f"{plural(len(silent), 'replica')} didn't answer: {', '.join(silent[:5])}; `kvnet ps` shows why"
        )


async def _verify(cluster: Mapping[str, Any], folder: object) -> tuple[dict[str, Answer], list[Finding]]:
    """Ask the coordinator first: the others wait until they stand where it stood."""
    urls = urls_of(cluster)
    gate = asyncio.Semaphore(AT_ONCE)
    headers = {"Authorization": f"Bearer {cluster['tokens']['admin']}"}
    timeout = aiohttp.ClientTimeout(total=VERIFY_TIMEOUT_S, sock_connect=5.0)
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:

        async def ask_node(name: str, **query: str) -> Answer:
            async with gate:
                return await ask(session, f"{urls[name]}{PATH}", query)

        first = await ask_node(COORDINATOR)
        at = {} if isinstance(first, str) or "position" not in first else {"at": str(first["position"])}
        edges = [name for name in urls if name != COORDINATOR]
        differences = Differences(ask_node, first)

        async def look(name: str) -> tuple[Answer, list[Finding]]:
            answer = await ask_node(name, **at)
            return answer, await differences.of(name, answer)

        found = await asyncio.gather(*(look(name) for name in edges))
    answers = {COORDINATOR: first} | {name: answer for name, (answer, _) in zip(edges, found, strict=True)}
    require_some(answers, folder)
    findings = differences.of_coordinator()
    for _, more in found:
        findings += more
    return answers, findings


def _table(answers: Mapping[str, Answer], findings: list[Finding]) -> Table:
    """One line for each position at which replicas are equal, and one for each that isn't what it should be."""
    bad = {finding.node for finding in findings}
    groups: dict[tuple[str, str, str], list[str]] = {}
    for name, answer in answers.items():
        if isinstance(answer, str):
            groups.setdefault(("", "", answer), []).append(name)
        elif name in bad:
            groups.setdefault(
                (str(answer.get("position", "")), str(answer.get("recomputed", "")), name), []
            ).append(name)
        else:
            groups.setdefault((str(answer["position"]), str(answer["recomputed"]), "equal"), []).append(name)
    table = Table(box=box.SIMPLE)
    for heading in ("replicas", "position", "recomputed digest", "result"):
        table.add_column(heading, overflow="fold")
    for (position, digest, result), names in groups.items():
        who = names[0] if len(names) == 1 else f"{len(names)}, {names[0]} to {names[-1]}"
        if names[0] in bad:
            count = sum(finding.node == names[0] for finding in findings)
            table.add_row(who, position, digest[:16], plural(count, "finding"), style="red")
        else:
            table.add_row(who, position, digest[:16], result, style=None if result == "equal" else "yellow")
    return table


def _lines(findings: list[Finding]) -> list[str]:
    """Return a line for each finding, so many of each node."""
    told: dict[str, int] = {}
    lines = []
    for finding in findings:
        told[finding.node] = told.get(finding.node, 0) + 1
        if told[finding.node] <= FINDINGS_MAX:
            lines.append(finding.line)
    more = sum(max(0, count - FINDINGS_MAX) for count in told.values())
    return [*lines, f"and {more:,} more: --json names them"] if more else lines
