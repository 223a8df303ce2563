"""Tables of sweeps, series and bars, and their values for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Final

from rich import box
from rich.table import Table
from rich.text import Text

from bench._support.bars import Judged, Verdict
from bench._support.simulated import Case, Condition, Ran, Seeds, document, shown
from bench._support.sweeps import (
    CONDITIONS,
    SIZE_CONDITIONS,
    TCP_MODELS,
    Sweep,
    Values,
    loss_condition,
    setting_text,
)
from kvnet.topology.wan import Tcp

Done = Mapping[Case, Ran]

COLUMNS: Final = (
    ("p50, ms", "converge_p50_ms", 0, True),
    ("p99, ms", "converge_p99_ms", 0, True),
    ("p50\n× floor", "stretch_p50", 2, False),
    ("p99\n× floor", "stretch_p99", 2, False),
    ("redundancy", "redundancy", 2, True),
    ("copies", "coordinator_copies", 1, False),
    ("control,\nidle", "control_idle_per_s", 1, False),
    ("control,\nbusy", "control_busy_per_s", 1, False),
    ("healed, ms", "healed_ms", 0, True),
)
"""Heading, field of `Measured`, digits, whether the range stands beside the median."""
CAPTION: Final = "* the default. Control messages: per node and second. Under a cut: times of the others"
VERDICT_STYLES: Final = {Verdict.PASS: "green", Verdict.MEDIAN: "yellow", Verdict.FAIL: "bold red"}


# -- which runs belong together ----------------------------------------------------------------------------------


def seeds_of(
    done: Done,
    *,
    pops: int,
    condition: Condition,
    changes: tuple[tuple[str, float], ...] = (),
    tcp: Tcp = "flight",
) -> Seeds:
    """Return what was run of one case, under all seeds."""
    return Seeds(
        tuple(
            ran
            for case, ran in done.items()
            if (case.pops, case.condition, case.changes, case.tcp, case.profile)
            == (pops, condition, changes, tcp, "backbone")
        )
    )


def of_sweep(done: Done, sweep: Sweep, pops: int) -> dict[tuple[Condition, Values], Seeds]:
    return {
        (condition, values): seeds_of(done, pops=pops, condition=condition, changes=sweep.changes(values))
        for condition in CONDITIONS
        for values in sweep.settings()
    }


def of_sizes(done: Done, sizes: Sequence[int]) -> dict[tuple[Condition, int], Seeds]:
    return {
        (condition, pops): seeds_of(done, pops=pops, condition=condition)
        for condition in SIZE_CONDITIONS
        for pops in sizes
    }


def of_losses(done: Done, pops: int, losses: Sequence[float]) -> dict[tuple[Tcp, float], Seeds]:
    return {
        (tcp, loss): seeds_of(done, pops=pops, condition=loss_condition(loss), tcp=tcp)
        for tcp in TCP_MODELS
        for loss in losses
    }


# -- tables ------------------------------------------------------------------------------------------------------


def sweep_table(sweep: Sweep, pops: int, found: Mapping[tuple[Condition, Values], Seeds]) -> Table:
    """Return a row per condition and setting, each beside the default."""
    table = _table(f"{sweep.question}  {pops:,} PoPs", ("", "\n".join(sweep.knobs)), more=("p99 ÷\ndefault's",))
    for condition in CONDITIONS:
        default = found[condition, sweep.defaults()]
        for number, values in enumerate(sweep.settings()):
            seeds = found[condition, values]
            chosen = values == sweep.defaults()
            table.add_row(
                "" if number else condition.name,
                setting_text(values) + (" *" if chosen else ""),
                *_cells(seeds),
                _ratio(seeds, default),
                style="bold" if chosen else None,
            )
        table.add_section()
    table.caption = CAPTION
    return table


def size_table(found: Mapping[tuple[Condition, int], Seeds]) -> Table:
    """Return a row per condition and size."""
    table = _table("How do time and cost grow with the network?", ("", "PoPs"))
    for condition in SIZE_CONDITIONS:
        for number, pops in enumerate(pops for which, pops in found if which == condition):
            table.add_row("" if number else condition.name, f"{pops:,}", *_cells(found[condition, pops]))
        table.add_section()
    return table


def loss_table(pops: int, found: Mapping[tuple[Tcp, float], Seeds]) -> Table:
    """Return a row per model of TCP and loss."""
    table = _table(f"Where does the bound of 10 s end?  {pops:,} PoPs", ("TCP", "loss"))
    for tcp in TCP_MODELS:
        for number, loss in enumerate(loss for which, loss in found if which == tcp):
            table.add_row("" if number else tcp, f"{100 * loss:g} %", *_cells(found[tcp, loss]))
        table.add_section()
    return table


def bars_table(judged: Sequence[Judged], title: str) -> Table:
    """Return a row per bar: measured beside it, and whether it holds."""
    table = Table(title=title, box=box.SIMPLE_HEAD)
    for name in ("experiment", "measured"):
        table.add_column(name)
    for name in ("bar", "median", "worst", "seeds"):
        table.add_column(name, justify="right")
    table.add_column("")
    before = ""
    for each in judged:
        if before and each.trial != before:
            table.add_section()
        bar, summed = each.bar, each.summed
        table.add_row(
            "" if each.trial == before else each.trial,
            Text(f"{bar.what}, {bar.unit}" if bar.unit else bar.what),
            f"{'≥' if bar.at_least else '≤'} {_bar_text(bar.bar)}",
            shown(summed.median, bar.digits),
            shown(bar.worst(summed), bar.digits),
            str(len(each.values)),
            Text(each.verdict, style=VERDICT_STYLES[each.verdict]),
        )
        before = each.trial
    return table


def _table(title: str, keys: Sequence[str], more: Sequence[str] = ()) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD)
    for name in keys:
        table.add_column(name, no_wrap=True)
    for name in (*(heading for heading, *_ in COLUMNS), "violations", *more):
        table.add_column(name, justify="right")
    return table


def _cells(seeds: Seeds) -> list[str | Text]:
    cells: list[str | Text] = []
    for _, field, digits, has_range in COLUMNS:
        spread = seeds.spread(field)
        if spread is None:
            cells.append("")
        else:
            cells.append(spread.text(digits) if has_range else shown(spread.median, digits))
    if seeds.unformed:
        return [*cells, Text(f"{seeds.unformed} of {len(seeds.runs)} not formed", style="bold red")]
    late = f"{seeds.violations:,} of {seeds.writes:,}"
    return [*cells, Text(late, style="bold red") if seeds.violations else "0"]


def _ratio(seeds: Seeds, default: Seeds) -> str:
    ours, its = seeds.spread("converge_p99_ms"), default.spread("converge_p99_ms")
    if ours is None or its is None or not isfinite(its.median) or not its.median:
        return ""
    return shown(ours.median / its.median, 2)


def _bar_text(value: float) -> str:
    return f"{value:,.2f}" if value % 1 else f"{value:,.0f}"


# -- JSON --------------------------------------------------------------------------------------------------------


def sweep_document(sweep: Sweep, pops: int, found: Mapping[tuple[Condition, Values], Seeds]) -> dict[str, Any]:
    """Return a sweep's runs; the medians are left to whoever reads them."""
    rows = [
        {
            "condition": condition.name,
            "setting": dict(zip(sweep.knobs, values, strict=True)),
            "is_default": values == sweep.defaults(),
            "runs": _runs(seeds),
        }
        for (condition, values), seeds in found.items()
    ]
    return {"sweep": sweep.name, "question": sweep.question, "pops": pops, "rows": rows}


def size_document(found: Mapping[tuple[Condition, int], Seeds]) -> dict[str, Any]:
    rows = [
        {"condition": condition.name, "pops": pops, "runs": _runs(seeds)}
        for (condition, pops), seeds in found.items()
    ]
    return {"against": "size", "rows": rows}


def loss_document(pops: int, found: Mapping[tuple[Tcp, float], Seeds]) -> dict[str, Any]:
    rows = [{"tcp": tcp, "loss": loss, "runs": _runs(seeds)} for (tcp, loss), seeds in found.items()]
    return {"against": "loss", "pops": pops, "rows": rows}


def bars_document(judged: Sequence[Judged], runs: Sequence[Ran]) -> dict[str, Any]:
    """Return the verdicts and the runs that they rest on."""
    bars = [
        {
            "experiment": each.trial,
            "measured": each.bar.what,
            "unit": each.bar.unit,
            "bar": each.bar.bar,
            "at_least": each.bar.at_least,
            "values": [value if isfinite(value) else None for value in each.values],
            "verdict": str(each.verdict),
        }
        for each in judged
    ]
    return {"bars": bars, "runs": [_case(ran.case) | document(ran) for ran in runs]}


def _case(case: Case) -> dict[str, Any]:
    return {"condition": case.condition.name, "profile": case.profile, "pops": case.pops}


def _runs(seeds: Seeds) -> list[dict[str, Any]]:
    return [document(ran) for ran in seeds.runs]
