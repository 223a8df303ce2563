"""`kvnet sim --swarm` and `--faults`: runs that break things, what held, and the story of the first failure."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any, Final, get_args

import typer
from msgspec import to_builtins
from rich.table import Table
from rich.text import Text

from kvnet import __version__
from kvnet.cli.advance import advance, span
from kvnet.cli.output import print_report
from kvnet.cli.pool import in_order
from kvnet.cli.sim_cases import Case, Number, ScheduleCase, check, story_of
from kvnet.cli.sim_measure import figures, milliseconds
from kvnet.cli.sim_results import Results
from kvnet.simulator.faults import AnyFault
from kvnet.simulator.liveness import Deliveries
from kvnet.simulator.measure import percentile
from kvnet.simulator.story import Story, outcome_of
from kvnet.simulator.trace import Trace
from kvnet.simulator.watched import Outcome
from kvnet.topology.schema import Topology

FAILED: Final = 1
BOUND_BROKEN: Final = 3
INTERRUPTED: Final = 130
RUNS_SHOWN: Final = 12
"""So few are told one by one as well."""
FAILURES_SHOWN: Final = 10
IN_TIME: Final = "in time"
ABANDONED: Final = "abandoned"
KINDS: Final = tuple(str(kind.__struct_config__.tag) for kind in get_args(AnyFault))


def run_checks(
    case: Case, numbers: Sequence[Number], *, jobs: int, results: Results | None = None, json_: bool = False
) -> int:
    """Run all of them, print what came of it, and return the exit code."""
    known = results.of(numbers) if results is not None else []
    have = {(outcome.seed, outcome.mode) for outcome in known}
    left = [number for number in numbers if number not in have]
    with advance() as teller:
        if results is not None and (known or results.others):
            others = f"; {results.others} of another version or network are left alone" if results.others else ""
            teller.say(f"{len(known)} of {len(numbers)} runs are in {results.path}, {len(left)} to go{others}")
        outcomes = list(known)
        interrupted = False
        began_s = time.monotonic()
        teller.tell(0.0, f"0 of {len(left)} runs")
        work = _in_pieces(case, teller.tell) if len(left) == 1 else partial(check, case)
        with closing(in_order(work, left, jobs)) as coming:
            try:
                for done, outcome in enumerate(coming, 1):
                    outcomes.append(outcome)
                    if results is not None:
                        results.add(outcome)
                    failures = sum(bool(outcome.failed) for outcome in outcomes)
                    if outcome.failed and len(numbers) > 1 and failures <= FAILURES_SHOWN:
                        teller.say(f"FAILED  seed {outcome.seed} {outcome.mode}: {outcome.failed}")
                    teller.tell(done / len(left), _pace(done, len(left), failures, time.monotonic() - began_s))
            except KeyboardInterrupt:
                interrupted = True
        seconds = time.monotonic() - began_s
        order = {number: place for place, number in enumerate(numbers)}
        outcomes.sort(key=lambda outcome: order[outcome.seed, outcome.mode])
        failed = [outcome for outcome in outcomes if outcome.failed]
        story = None
        if failed and not interrupted:
            teller.tell(1.0, f"once more, for its story: seed {failed[0].seed} {failed[0].mode}")
            story = story_of(case, failed[0])
    if json_:
        typer.echo(json.dumps(_document(case, outcomes, failed, story)))
    elif outcomes:
        print_report(*_report(case, outcomes, failed, seconds, len(left)))
        if failed:
            print_report(*_failures(case, failed, story))
    if interrupted:
        resume = "" if results is None else f"; the same command goes on from {results.path}"
        typer.echo(f"interrupted after {len(outcomes)} of {len(numbers)} runs{resume}", err=True)
        return INTERRUPTED
    return _code(case, failed)


def trace_check(case: Case, number: Number, write: Callable[[str], None], *, only: tuple[str, ...]) -> int:
    """Run one of them with its trace as the product; the report goes to stderr."""
    began_s = time.monotonic()
    outcome = outcome_of(case.build(number, trace=Trace(write, only=only)))
    failed = [outcome] if outcome.failed else []
    print_report(*_report(case, [outcome], failed, time.monotonic() - began_s, 1), to_stderr=True)
    if failed:
        print_report(*_failures(case, failed, None), to_stderr=True)
    return _code(case, failed)


def _in_pieces(case: Case, tell: Callable[[float, str], None]) -> Callable[[Number], Outcome]:
    """One run alone says how far it is, where it can."""
    return lambda number: outcome_of(case.build(number, progress=lambda done: tell(done, "written and broken")))


def _pace(done: int, whole: int, failures: int, seconds: float) -> str:
    per_s = done / max(seconds, 1e-6)
    failed = f"{failures} failed" if failures else "none failed"
    pace = f"{per_s:.1f} a second" if per_s >= 1 else f"{60 * per_s:.1f} a minute"
    return f"{done} of {whole} runs, {failed}, {pace}, {span((whole - done) / per_s)} left"


def _code(case: Case, failed: Sequence[Outcome]) -> int:
    if not failed:
        return 0
    late = all(property_of(outcome) == Deliveries.name for outcome in failed)
    return BOUND_BROKEN if late and isinstance(case, ScheduleCase) else FAILED


def property_of(outcome: Outcome) -> str:
    """Return what doesn't hold, in a word or two."""
    return outcome.failed.partition(":")[0]


# -- what is printed ---------------------------------------------------------------------------------------------


def _report(
    case: Case, outcomes: Sequence[Outcome], failed: Sequence[Outcome], seconds: float, ran: int
) -> list[Table | Text]:
    sizes = sorted({outcome.pops for outcome in outcomes})
    pops = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    seeds = sorted({outcome.seed for outcome in outcomes})
    told = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    parts: list[Table | Text] = [Text(f"{case.network.name}, {pops} PoPs, {told}"), Text()]
    if len(outcomes) <= RUNS_SHOWN:
        parts += [_runs(outcomes), Text()]
    parts += [figures(_sums(outcomes, seconds, ran)), Text()]
    if failed:
        return [*parts, Text(f"FAILED: {len(failed)} of {_count(len(outcomes), 'run')}", style="bold red")]
    verdict = (
        "every property held in this run"
        if len(outcomes) == 1
        else f"every property held in all {len(outcomes):,} runs"
    )
    return [*parts, Text(f"HELD: {verdict}", style="bold green")]


def _runs(outcomes: Sequence[Outcome]) -> Table:
    """A row for each run."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("  seed", "mode"):
        table.add_column(heading, no_wrap=True)
    for heading in ("PoPs", "written", "equal after"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what broke", overflow="fold")
    for outcome in outcomes:
        equal = "–" if outcome.converged_ms is None else milliseconds(outcome.converged_ms)
        broke = ", ".join(f"{name} {count}" for name, count in outcome.faults.items())
        row = (
            f"  {outcome.seed}",
            str(outcome.mode),
            str(outcome.pops),
            f"{outcome.acknowledged:,}",
            equal,
            broke,
        )
        table.add_row(*map(Text, row), style="red" if outcome.failed else None)
    return table


def _sums(outcomes: Sequence[Outcome], seconds: float, ran: int) -> list[tuple[str, str]]:
    modes = Counter(str(outcome.mode) for outcome in outcomes)
    by_mode = ", ".join(f"{mode} {count:,}" for mode, count in modes.items())
    events = sum(outcome.events for outcome in outcomes)
    virtual = span(sum(outcome.virtual_ms for outcome in outcomes) / 1000)
    failures = Counter(property_of(outcome) for outcome in outcomes if outcome.failed)
    speed = f", in {span(seconds)}" if ran else ""
    rows = [
        ("runs", f"{len(outcomes):,}: {by_mode}{speed}"),
        ("failures", f"{failures.total():,}: {_listed(failures)}" if failures else "none"),
        ("events", f"{events:,} in {virtual} of virtual time"),
        ("acknowledged writes", f"{sum(outcome.acknowledged for outcome in outcomes):,}"),
        ("replicas made of pages", f"{sum(outcome.made_anew for outcome in outcomes):,}"),
        ("large values shown", f"{sum(outcome.large_values for outcome in outcomes):,}"),
        ("expired records", _expired(outcomes)),
        ("pages, chunks altered", f"{sum(outcome.altered for outcome in outcomes):,}"),
        ("faults that took effect", _faults(outcomes)),
        ("equal after the heal", _convergence(outcomes)),
        *_ledger(outcomes),
        ("longest loop of parents", milliseconds(max(outcome.loop_ms for outcome in outcomes))),
        ("control messages", f"at most {max(o.storm_per_s for o in outcomes):.1f} a node in any second"),
    ]
    excused = [outcome for outcome in outcomes if outcome.excuses]
    why = Counter(excuse for outcome in excused for excuse in outcome.excuses)
    return [*rows, ("excused runs", f"{len(excused):,}: {_listed(why)}" if excused else "none")]


def _expired(outcomes: Sequence[Outcome]) -> str:
    hidden, removed = (sum(getattr(outcome, field) for outcome in outcomes) for field in ("hidden", "removed"))
    return f"{removed:,} removed, hidden {hidden:,} times before"


def _faults(outcomes: Sequence[Outcome]) -> str:
    counts: Counter[str] = Counter()
    for outcome in outcomes:
        counts.update(outcome.faults)
    told = _listed(counts) or "none"
    never = [kind for kind in KINDS if kind not in counts]
    return f"{told}; never {', '.join(never)}" if never and len(outcomes) > RUNS_SHOWN else told


def _convergence(outcomes: Sequence[Outcome]) -> str:
    times = sorted(outcome.converged_ms for outcome in outcomes if outcome.converged_ms is not None)
    if not times:
        return "not looked at"
    if len(times) == 1:
        return milliseconds(times[0])
    slowest = max(outcomes, key=lambda outcome: outcome.converged_ms or 0.0)
    told = (("p50", percentile(times, 0.5)), ("p99", percentile(times, 0.99)), ("max", times[-1]))
    shown = "   ".join(f"{name} {milliseconds(value)}" for name, value in told)
    return f"{shown}, seed {slowest.seed} {slowest.mode}"


def _ledger(outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    """Deliveries: in time; missing, by what explains it; and those that nothing explains, each of which failed."""
    ledger = ledger_of(outcomes)
    in_time, abandoned = ledger.pop(IN_TIME, 0), ledger.pop(ABANDONED, 0)
    unexplained = sum(property_of(outcome) == Deliveries.name for outcome in outcomes)
    rows = [("deliveries", f"{in_time:,} in time, {ledger.total():,} excused, {unexplained:,} unexplained")]
    if ledger:
        rows.append(("  excused", _listed(ledger)))
    if abandoned:
        rows.append(("  abandoned", f"{abandoned:,}, of histories that the network left"))
    return rows


def ledger_of(outcomes: Sequence[Outcome]) -> Counter[str]:
    """Return all ledgers together."""
    ledger: Counter[str] = Counter()
    for outcome in outcomes:
        ledger.update({name: count for name, count in outcome.ledger.items() if count})
    return ledger


def _failures(case: Case, failed: Sequence[Outcome], story: Story | None) -> list[Table | Text]:
    first = failed[0]
    network = case.network_of(first.seed)
    at = f"at {first.at_ms:,.3f} ms of virtual time, {first.pops} PoPs"
    parts: list[Table | Text] = [
        Text(),
        Text(first.failed, style="bold"),
        Text(f"seed {first.seed}, {first.mode}, {at}"),
    ]
    if story is not None:
        parts += _told(network, story)
    parts += [Text(), Text("replay", style="bold"), Text(f"  {case.command((first.seed, first.mode))}")]
    if first.node:
        parts.append(Text(f"  … --trace --only {first.node.partition('~')[0]} shows all that it did", style="dim"))
    others = failed[1:]
    if others:
        parts += [Text(), Text("the other failures", style="bold")]
        parts += [
            Text(f"  {case.command((o.seed, o.mode))}   # {property_of(o)}") for o in others[:FAILURES_SHOWN]
        ]
        if len(others) > FAILURES_SHOWN:
            parts.append(Text(f"  … and {len(others) - FAILURES_SHOWN} more"))
    return parts


def _told(network: Topology, story: Story) -> list[Table | Text]:
    name = story.node.partition("~")[0]
    who = name if name == story.node else f"{story.node}, a second {name},"
    lines = Table.grid(padding=(0, 2, 0, 0))
    lines.add_column(justify="right", no_wrap=True)
    lines.add_column(no_wrap=True, style="cyan")
    lines.add_column(overflow="fold")
    for line in story.lines:
        style = "yellow" if not line.node else "dim" if line.node != story.node else ""
        lines.add_row(Text(f"{line.at_ms:14.3f}"), Text(line.node), Text(line.text, style=style))
    parts: list[Table | Text] = [Text(), Text(f"what {who} in {network.pop_of(name).city} did last", style="bold")]
    parts += [lines, Text(), Text(f"what {who} knew then", style="bold"), figures(list(story.knew))]
    if not story.same:
        parts.append(Text("it did not fail the same way again: something here isn't deterministic", style="red"))
    return parts


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common())


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _document(
    case: Case, outcomes: Sequence[Outcome], failed: Sequence[Outcome], story: Story | None
) -> dict[str, Any]:
    """Return what `--json` prints."""
    times = sorted(outcome.converged_ms for outcome in outcomes if outcome.converged_ms is not None)
    faults: Counter[str] = Counter()
    for outcome in outcomes:
        faults.update(outcome.faults)
    return {
        "kvnet": __version__,
        "network": case.network.name,
        "runs": len(outcomes),
        "modes": dict(Counter(str(outcome.mode) for outcome in outcomes)),
        "failed": len(failed),
        "events": sum(outcome.events for outcome in outcomes),
        "virtual_ms": round(sum(outcome.virtual_ms for outcome in outcomes), 3),
        "acknowledged": sum(outcome.acknowledged for outcome in outcomes),
        "faults": dict(faults),
        "converged_p50_ms": percentile(times, 0.5) if times else None,
        "converged_p99_ms": percentile(times, 0.99) if times else None,
        "converged_max_ms": times[-1] if times else None,
        "ledger": dict(ledger_of(outcomes)),
        "unexplained": sum(property_of(outcome) == Deliveries.name for outcome in outcomes),
        "loop_ms": max((outcome.loop_ms for outcome in outcomes), default=0.0),
        "storm_per_s": max((outcome.storm_per_s for outcome in outcomes), default=0.0),
        "excused": dict(Counter(excuse for outcome in outcomes for excuse in outcome.excuses)),
        "failures": [
            to_builtins(outcome) | {"replay": case.command((outcome.seed, outcome.mode))} for outcome in failed
        ],
        "story": None if story is None else to_builtins(story),
    }
