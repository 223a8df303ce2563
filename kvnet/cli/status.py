"""`kvnet status`: how far every PoP is, now or continuously."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kvnet.cli.health import condition, keys_of
from kvnet.cli.options import DATA_DEFAULT, DataOption, JsonOption, run_folder
from kvnet.cli.output import print_report
from kvnet.cli.polling import Answer, ask_all, ask_statuses, require_some
from kvnet.cli.stored import furthest, namespaces_table, usage_lines
from kvnet.core.versions import Version

WATCH_INTERVAL_S = 1.0
LINES_AROUND = 8
"""Lines of a terminal that the table's frame and the summary take."""


@dataclass(frozen=True, slots=True)
class Row:
    """One PoP as `status` shows it."""

    code: str
    city: str
    problem: str | None
    """Why it says nothing; then the rest is empty."""
    position: str = ""
    lag: int | None = None
    """Entries behind the coordinator's head; None while that isn't known."""
    parent: str | None = None
    staleness_ms: float | None = None
    children: int = 0
    links: int = 0
    state: str = ""
    """What is the matter with its replica."""

    @property
    def badness(self) -> tuple[bool, bool, int, float]:
        """Sorts what needs an eye to the top."""
        return self.problem is not None, bool(self.state), self.lag or 0, self.staleness_ms or 0.0


@dataclass(frozen=True, slots=True)
class View:
    """The network at one moment."""

    head: str | None
    coordinator: Answer
    rows: list[Row]
    report: Answer

    @classmethod
    def of(cls, cluster: dict[str, Any], answers: dict[str, Answer], report: Answer) -> View:
        coordinator = answers["coordinator"]
        head = None if isinstance(coordinator, str) else coordinator.get("head") or coordinator.get("position")
        whole = max((keys_of(answer) for answer in answers.values() if not isinstance(answer, str)), default=0)
        rows = [_row(code, pop["city"], answers[code], head, whole) for code, pop in cluster["pops"].items()]
        return cls(head, coordinator, rows, report)

    def summary(self) -> list[str]:
        """Return a few lines on the whole."""
        alive = [row for row in self.rows if row.problem is None]
        level = sum(row.lag == 0 for row in alive)
        stalest = max((row.staleness_ms or 0.0 for row in alive), default=0.0)
        who = f"coordinator {self.coordinator}" if isinstance(self.coordinator, str) else f"head {self.head}"
        silent = len(self.rows) - len(alive)
        held = f"{level} of {len(self.rows)} PoPs hold it, {silent} don't answer"
        lines = [f"{who}: {held}, stalest view {stalest:.0f} ms"]
        if not isinstance(self.coordinator, str) and (state := condition(self.coordinator)):
            why = self.coordinator.get("damaged")
            lines.append(f"coordinator: {why or state}")
        if isinstance(self.report, str):
            lines.append(f"monitor {self.report}")
        elif self.report.get("writes"):
            violations = self.report.get("violation_count", 0)
            bound = f"the bound was broken {violations} times" if violations else "the bound held"
            p50_ms, p99_ms = (self.report.get(f"converge_{p}_ms") for p in ("p50", "p99"))
            times = (
                "none judged yet"
                if p50_ms is None
                else f"everywhere after {p50_ms} ms (median), {p99_ms} ms (p99)"
            )
            told = f"{self.report['writes']} writes, {times}"
            lines.append(f"monitor: {told}; {bound}")
        return lines


def status(
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on, what needs an eye first; Ctrl-C ends it.")
    ] = False,
    data: DataOption = DATA_DEFAULT,
    json_: JsonOption = False,
) -> None:
    """Show how far every PoP is."""
    asyncio.run(_watch(data) if watch else _show(data, json_=json_))


async def _show(data: Path, *, json_: bool) -> None:
    folder = run_folder(data)
    cluster = folder.cluster()
    answers = await ask_statuses(folder, cluster)
    if json_:
        require_some(answers, data)
        typer.echo(json.dumps(_document(answers), ensure_ascii=False))
        return
    view = await _look(cluster, answers)
    require_some(answers, data)
    stored = furthest(answers)
    namespaces = None if stored is None else namespaces_table(stored)
    print_report(
        _table(view.rows),
        *view.summary(),
        *([] if namespaces is None else [namespaces]),
        *usage_lines(answers),
    )


async def _watch(data: Path) -> None:
    folder = run_folder(data)
    console = Console()
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while True:
            cluster = folder.cluster()  # the network may have been started again meanwhile
            answers = await ask_statuses(folder, cluster)
            view = await _look(cluster, answers)
            room = max(console.height - LINES_AROUND, 1)
            worst = sorted(view.rows, key=lambda row: row.badness, reverse=True)[:room]
            live.update(Group(_table(worst), *map(Text, view.summary())), refresh=True)
            await asyncio.sleep(WATCH_INTERVAL_S)


async def _look(cluster: dict[str, Any], answers: dict[str, Answer]) -> View:
    monitor = {"monitor": cluster["monitor"]["url"]}
    report = await ask_all(monitor, "/report", cluster["tokens"]["read"])
    return View.of(cluster, answers, report["monitor"])


def _row(code: str, city: str, answer: Answer, head: str | None, keys_in_all: int) -> Row:
    if isinstance(answer, str):
        return Row(code, city, answer)
    return Row(
        code,
        city,
        None,
        position=str(answer.get("position", "")),
        lag=_lag(str(answer.get("position", "")), head),
        parent=answer.get("parent"),
        staleness_ms=answer.get("staleness_ms"),
        children=_count(answer.get("children")),
        links=_count(answer.get("links")),
        state=condition(answer, keys_in_all),
    )


def _lag(position: str, head: str | None) -> int | None:
    try:
        return max(Version.parse(head or "").seq - Version.parse(position).seq, 0)
    except ValueError:
        return None


def _count(items: Any) -> int:
    """How many, whether a node tells the number or the items."""
    return items if isinstance(items, int) else len(items or ())


def _table(rows: list[Row]) -> Table:
    """Where something is the matter with a replica, a column tells it in the place of lesser things."""
    with_state = any(row.state for row in rows)
    table = Table(box=box.SIMPLE)
    table.add_column("PoP", no_wrap=True)
    table.add_column("city", overflow="ellipsis")
    table.add_column("position", min_width=8)
    for heading in ("lag", "stale ms", *([] if with_state else ["children", "links"])):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("parent", no_wrap=True)
    if with_state:
        table.add_column("replica", no_wrap=True)
    for row in rows:
        if row.problem is not None:
            table.add_row(row.code, row.city, row.problem, style="red")
            continue
        staleness = "" if row.staleness_ms is None else f"{row.staleness_ms:.0f}"
        table.add_row(
            row.code,
            row.city,
            row.position,
            "?" if row.lag is None else str(row.lag),
            staleness,
            *([] if with_state else [str(row.children), str(row.links)]),
            row.parent or "none",
            *([row.state] if with_state else []),
            style="yellow" if row.lag or row.parent is None or row.state else None,
        )
    return table


def _document(answers: dict[str, Answer]) -> dict[str, Any]:
    """Return what `--json` prints: every node's own status, or its problem."""
    told = {name: {"problem": answer} if isinstance(answer, str) else answer for name, answer in answers.items()}
    return {"coordinator": told.pop("coordinator"), "pops": told}
