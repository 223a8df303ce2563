"""`kvnet sim` by itself: how fast a network is, under one seed or several, and what that costs."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any, Final

import typer
from msgspec import to_builtins
from msgspec.structs import replace
from rich import box
from rich.table import Table
from rich.text import Text

from kvnet import __version__
from kvnet.cli.advance import Advance, advance, span
from kvnet.cli.output import print_report
from kvnet.cli.pool import in_order
from kvnet.simulator.measure import Experiment, Measured, Measuring
from kvnet.simulator.trace import Trace
from kvnet.simulator.world import World
from kvnet.topology.schema import Topology
from kvnet.topology.wan import Wan

BOUND_BROKEN: Final = 3
FORMING_MS: Final = 3000.0
"""About how long a network takes to form; only how far the bar is depends on it."""
BEAT_MS: Final = 250.0
MEDIANS: Final = (
    "formed_ms",
    "converge_p50_ms",
    "converge_p99_ms",
    "converge_max_ms",
    "stretch_p50",
    "stretch_p99",
    "redundancy",
    "coordinator_copies",
)


@dataclass(frozen=True, slots=True)
class Timed:
    """What was measured, and how long that took here."""

    measured: Measured
    seconds: float


def measure_one(
    network: Topology,
    experiment: Experiment,
    *,
    trace: Callable[[str], None] | None = None,
    only: Sequence[str] = (),
    json_: bool = False,
) -> int:
    """Measure a network under one seed and print it; return the exit code.

    With a `trace` its lines are the product, and the table goes to stderr.
    """
    with advance(silent=trace is not None) as teller:
        timed = _measure(network, experiment, trace=trace, only=only, teller=teller)
    if json_:
        typer.echo(json.dumps(document(network, timed)))
    else:
        print_report(*_told(network, experiment, timed), to_stderr=trace is not None)
    return _code([timed.measured])


def measure_many(
    network: Topology, experiment: Experiment, seeds: Sequence[int], jobs: int, *, json_: bool = False
) -> int:
    """Measure a network under several seeds and print a row for each; return the exit code."""
    experiments = [replace(experiment, seed=seed) for seed in seeds]
    timed: list[Timed] = []
    with advance() as teller:
        teller.tell(0.0, f"0 of {len(seeds)} seeds")
        for one in in_order(partial(_measure, network), experiments, jobs):
            timed.append(one)
            teller.tell(len(timed) / len(seeds), f"{len(timed)} of {len(seeds)} seeds")
    runs = [one.measured for one in timed]
    if json_:
        medians = {name: median(getattr(run, name) for run in runs) for name in MEDIANS}
        told = {"runs": [document(network, one) for one in timed], "medians": _finite(medians)}
        typer.echo(json.dumps(told))
    else:
        print_report(
            Text(f"{heading(network)}, {len(seeds)} seeds"), _table(runs), _verdict(network, experiment, runs)
        )
    return _code(runs)


def document(network: Topology, timed: Timed) -> dict[str, Any]:
    """Return what `--json` prints of a run; what never came is null."""
    told: dict[str, Any] = _finite(to_builtins(timed.measured))
    more = {"kvnet": __version__, "network": network.name, "bound_ms": network.timers.bound_ms}
    return more | told | {"seconds": round(timed.seconds, 3)}


def heading(network: Topology) -> str:
    """Return what a network is, in a line."""
    wan = network.wan
    loss = f"{100 * wan.loss:.3g} % of all packets lost" if wan.loss else "no packets lost"
    return f"{network.name}: {len(network.pops)} PoPs, {wan.profile}, {loss}"


def milliseconds(value: float) -> str:
    """Return a time with as many digits as matter."""
    return f"{value:,.1f} ms" if value < 100 else f"{value:,.0f} ms" if math.isfinite(value) else "never"


def _measure(
    network: Topology,
    experiment: Experiment,
    *,
    trace: Callable[[str], None] | None = None,
    only: Sequence[str] = (),
    teller: Advance | None = None,
) -> Timed:
    began_s = time.monotonic()
    measuring = Measuring(network, experiment)
    if trace is not None:
        measuring.world.trace = Trace(trace, only=only)
    if teller is not None:
        _follow(measuring.world, experiment, teller)
    measured = measuring.run()
    return Timed(measured, time.monotonic() - began_s)


def _follow(world: World, experiment: Experiment, teller: Advance) -> None:
    """Tell, every now and then in virtual time, how far the world is."""
    writing_ms = 1000 * experiment.writes / experiment.rate
    if experiment.cut:
        writing_ms = min(writing_ms, experiment.cut_ms)
    whole_ms = FORMING_MS + experiment.warm_up_ms + writing_ms

    def beat(_: object) -> None:
        done = min(1.0, world.now / whole_ms)
        teller.tell(done, f"{span(world.now / 1000)} of virtual time, {world.events:,} events")
        world.at(world.now + BEAT_MS, beat, None)

    beat(None)


# -- what is printed ---------------------------------------------------------------------------------------------


def _told(network: Topology, experiment: Experiment, timed: Timed) -> list[Table | Text]:
    measured = timed.measured
    wan = Wan(network)
    far = max((pop.code for pop in network.pops), key=lambda code: wan.one_way_ms("coordinator", code))
    grid = figures(
        [
            ("everywhere after", _percentiles(measured)),
            ("the network's floor", f"{milliseconds(measured.floor_ms)}, the way to {_place(network, far)}"),
            ("stretch", f"p50 {measured.stretch_p50:.2f}   p99 {measured.stretch_p99:.2f}"),
            ("redundancy", f"{measured.redundancy:.2f}, bytes received ÷ bytes needed"),
            ("coordinator's copies", f"{measured.coordinator_copies:.2f} of each frame"),
            *_healing(measured),
            ("formed after", milliseconds(measured.formed_ms)),
            ("control messages", _control(measured)),
            ("longest path", f"{measured.hops_max} nodes from the coordinator"),
            ("busiest relay", f"{_place(network, measured.busiest_relay)}, {_bits(measured.busiest_relay_bps)}"),
            ("coordinator sends", _bits(measured.coordinator_bps)),
            ("a PoP receives", f"{_bits(measured.node_received_bps)} in the mean"),
            ("slowest PoPs", _slowest(network, measured)),
            ("simulated", _speed(timed)),
        ]
    )
    title = Text(f"{heading(network)}, coordinator in {network.pop_of('coordinator').city}, seed {measured.seed}")
    load = Text(_load(experiment, measured), style="dim")
    return [title, load, Text(), grid, Text(), _verdict(network, experiment, [measured])]


def figures(rows: Sequence[tuple[str, str]]) -> Table:
    """Return names and values below each other; values that are long go on below themselves."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(Text(f"  {name}"), Text(value))
    return grid


def _load(experiment: Experiment, measured: Measured) -> str:
    load = f"{measured.writes:,} writes of {experiment.size:,} bytes, {experiment.rate:g} a second"
    if experiment.crashed:
        load += f"; {100 * experiment.crashed:.3g} % of the PoPs lose power as they begin"
    if experiment.cut:
        load += f"; {100 * experiment.cut:.3g} % of the PoPs are cut off meanwhile"
    return load


def _percentiles(measured: Measured) -> str:
    times = (
        ("p50", measured.converge_p50_ms),
        ("p99", measured.converge_p99_ms),
        ("max", measured.converge_max_ms),
    )
    return "   ".join(f"{name} {milliseconds(value)}" for name, value in times)


def _healing(measured: Measured) -> list[tuple[str, str]]:
    if measured.healed_ms is None:
        return []
    return [("equal after the cut", f"{milliseconds(measured.healed_ms)} after its end")]


def _control(measured: Measured) -> str:
    idle, busy = measured.control_idle_per_s, measured.control_busy_per_s
    return f"{idle:.1f} a node and second when idle, {busy:.1f} when busy"


def _slowest(network: Topology, measured: Measured) -> str:
    return ", ".join(f"{_place(network, code)} {milliseconds(time_ms)}" for code, time_ms in measured.slowest)


def _place(network: Topology, code: str) -> str:
    return f"{network.pop(code).city} ({code})" if code else "nobody"


def _bits(per_second: float) -> str:
    return f"{per_second / 1e6:.2f} Mbit/s" if per_second >= 1e6 else f"{per_second / 1e3:.1f} kbit/s"


def _speed(timed: Timed) -> str:
    virtual = span(timed.measured.virtual_ms / 1000)
    events = timed.measured.events
    return f"{virtual} in {span(timed.seconds)}: {events:,} events, {events / timed.seconds:,.0f} a second"


def _table(runs: Sequence[Measured]) -> Table:
    table = Table(box=box.SIMPLE)
    headings = ("seed", "formed", "p50 ms", "p99 ms", "max ms", "stretch", "p99", "redundancy", "copies", "late")
    for name in headings:
        table.add_column(name, justify="right")
    for run in runs:
        late = bool(run.violations)
        table.add_row(str(run.seed), *_cells([run]), str(run.violations), style="red" if late else None)
    table.add_section()
    table.add_row("median", *_cells(runs), str(sum(run.violations for run in runs)), style="bold")
    return table


def _cells(runs: Sequence[Measured]) -> list[str]:
    values = [median(getattr(run, name) for run in runs) for name in MEDIANS]
    digits = (0, 0, 0, 0, 2, 2, 2, 2)
    return [f"{value:,.{count}f}" for value, count in zip(values, digits, strict=True)]


def _verdict(network: Topology, experiment: Experiment, runs: Sequence[Measured]) -> Text:
    bound = span(network.timers.bound_ms / 1000)
    writes = sum(run.writes for run in runs)
    edges = len(network.pops)
    judged = edges - round(experiment.crashed * edges) - round(experiment.cut * edges)
    seeds = "" if len(runs) == 1 else f" of {len(runs)} seeds"
    late = sum(run.violations for run in runs)
    if late:
        first = next(run for run in runs if run.violations)
        where = "" if len(runs) == 1 else f", the first under seed {first.seed}"
        told = f"{late:,} of {writes:,} writes{seeds} weren't in all {judged} connected PoPs within {bound}{where}"
        return Text(f"BROKEN: {told}", style="bold red")
    if any(run.healed_ms == math.inf for run in runs):
        return Text(
            f"BROKEN: what was cut off wasn't equal to the rest {bound} after it was healed", style="bold red"
        )
    told = f"each of {writes:,} writes{seeds} was in all {judged} connected PoPs within {bound}"
    return Text(f"KEPT: {told}", style="bold green")


def _code(runs: Sequence[Measured]) -> int:
    broken = any(run.violations or run.healed_ms == math.inf for run in runs)
    return BOUND_BROKEN if broken else 0


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
