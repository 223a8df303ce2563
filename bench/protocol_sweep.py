"""The question: what does each knob of the protocol buy, and does the protocol reach its bars.

    python -m bench.protocol_sweep [--sweep NAME] [--pops N] [--seeds K] [--json FILE] [--plot FOLDER]
    python -m bench.protocol_sweep --against size --against loss
    python -m bench.protocol_sweep --bars

Simulates networks in virtual time; the protocol's code is the one that nodes run. A sweep sets one or two knobs
beside their defaults, under packet loss, silent crashes and a cut; `--against` goes through sizes or losses with
the defaults; `--bars` measures what the protocol has to reach (bench/_support/bars.py says how). Without any of
these: all sweeps. Coordinator in Ashburn, profile `backbone`, no jitter, 20 writes a second; the same seed gives
the same figures on every machine, but for processor time.
Exit code 1 when a bar doesn't hold or a process died, 2 for wrong options.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from os import sched_getaffinity
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench._support.arguments import count, new_file
from bench._support.bars import (
    POPS,
    POPS_LARGE,
    SLOW_CASES,
    SPEED_CASES,
    TRIALS,
    WRITES_QUICK,
    Judged,
    Verdict,
    judge,
    judge_speed,
)
from bench._support.plot import require_matplotlib
from bench._support.simulated import Case, Ran, in_order, run_case
from bench._support.surroundings import surroundings
from bench._support.sweep_plots import plot_bars, plot_losses, plot_sizes, plot_sweep
from bench._support.sweep_tables import (
    bars_document,
    bars_table,
    loss_document,
    loss_table,
    of_losses,
    of_sizes,
    of_sweep,
    size_document,
    size_table,
    sweep_document,
    sweep_table,
)
from bench._support.sweeps import (
    LOSSES,
    LOSSES_QUICK,
    SIZES,
    SIZES_QUICK,
    SWEEPS,
    TCP_MODELS,
    bound_end,
    loss_cases,
    size_cases,
    sweep_cases,
)
from kvnet.errors import ConfigError, KvnetError
from kvnet.topology.generation import POPS_MAX

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
SEEDS, SEEDS_BARS, SEEDS_LARGE = 3, 5, 1
WRITES: Final = 600
POPS_SWEPT: Final = 152
POPS_QUICK: Final = 50
WIDTH: Final = 200
"""Columns of a table that goes into a file."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    options = parse(arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    program = Program(options, console)
    try:
        if options.plot is not None:
            require_matplotlib()
            options.plot.mkdir(parents=True, exist_ok=True)
        return program.run()
    except (KvnetError, OSError) as error:
        print(f"bench.protocol_sweep: {error}", file=sys.stderr)
        return USAGE if isinstance(error, ConfigError) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; a wrong one exits with 2."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.protocol_sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--sweep", action="append", choices=SWEEPS, metavar="NAME",
        help=f"only this one; may be repeated: {', '.join(SWEEPS)}",
    )  # fmt: skip
    parser.add_argument(
        "--against", action="append", choices=("size", "loss"), help="the defaults, against size or packet loss"
    )
    parser.add_argument("--bars", action="store_true", help="what the protocol has to reach; exit code 1 if not")
    parser.add_argument(
        "--pops", action="append", type=count, metavar="N",
        help="may be repeated; default: 152 for sweeps, 330 against loss, 10 to 10000 against size, "
        "330 and 10000 for bars",
    )  # fmt: skip
    parser.add_argument(
        "--seeds",
        type=count,
        metavar="K",
        help="runs of each case (default: 3; for bars 5, and 1 with 10000 PoPs)",
    )
    parser.add_argument(
        "--writes", type=count, metavar="N", help=f"per run (default: {WRITES}; bars have their own)"
    )
    parser.add_argument("--quick", action="store_true", help="small networks, few writes, one seed: does it work?")
    parser.add_argument(
        "--jobs", type=count, default=len(sched_getaffinity(0)), metavar="J",
        help="processes at once (default: one per core)",
    )  # fmt: skip
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write the results here, as they come")
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="draw pictures into this folder (.svg)")
    options = parser.parse_args(arguments)
    options.sweep = list(dict.fromkeys(options.sweep or ()))
    options.against = list(dict.fromkeys(options.against or ()))
    if not (options.sweep or options.against or options.bars):
        options.sweep = list(SWEEPS)
    if any(pops > POPS_MAX for pops in options.pops or ()):
        parser.error(f"--pops: the largest network that can be generated has {POPS_MAX:,} PoPs")
    if options.bars and not {POPS, POPS_LARGE} >= set(options.pops or ()):
        parser.error(f"--bars are for {POPS} and {POPS_LARGE} PoPs: leave out --pops, or ask for one of them")
    if options.bars and options.writes is not None:
        parser.error("--bars say themselves how much is written: leave out --writes")
    return options


class Program:
    """What was asked for, one after the other; results are told and kept as they come."""

    def __init__(self, options: argparse.Namespace, console: Console) -> None:
        self.options = options
        self.console = console
        self.done: dict[Case, Ran] = {}
        """Of sweeps and series; several of them have the default in common."""
        self.results: list[dict[str, Any]] = []

    def run(self) -> int:
        """Do it all; return the exit code."""
        options = self.options
        for pops in self._pops(POPS_SWEPT):
            for name in options.sweep:
                self._sweep(name, pops)
        if "size" in options.against:
            self._against_size()
        if "loss" in options.against:
            for pops in self._pops(POPS):
                self._against_loss(pops)
        return self._bars() if options.bars else OK

    # -- sweeps and series -----------------------------------------------------------------------------------

    def _sweep(self, name: str, pops: int) -> None:
        sweep = SWEEPS[name]
        self._simulate(sweep_cases(sweep, pops, self._writes(), self._seeds(SEEDS)), f"{name}, {pops} PoPs")
        found = of_sweep(self.done, sweep, pops)
        self._tell(sweep_table(sweep, pops, found), sweep_document(sweep, pops, found))
        if self.options.plot is not None:
            plot_sweep(sweep, pops, found, self.options.plot / f"{name}-{pops}.svg")

    def _against_size(self) -> None:
        sizes = sorted(set(self.options.pops or (SIZES_QUICK if self.options.quick else SIZES)))
        self._simulate(size_cases(sizes, self._writes(), self._seeds(SEEDS)), "sizes")
        found = of_sizes(self.done, sizes)
        self._tell(size_table(found), size_document(found))
        if self.options.plot is not None:
            plot_sizes(found, self.options.plot / "against-size.svg")

    def _against_loss(self, pops: int) -> None:
        losses = LOSSES_QUICK if self.options.quick else LOSSES
        self._simulate(loss_cases(pops, losses, self._writes(), self._seeds(SEEDS)), f"losses, {pops} PoPs")
        found = of_losses(self.done, pops, losses)
        self._tell(loss_table(pops, found), loss_document(pops, found))
        for tcp in TCP_MODELS:
            end = bound_end({loss: found[tcp, loss].violations for loss in losses})
            held = f"held up to {losses[-1]:.0%}" if end is None else f"first broken at {end:.0%}"
            self.console.print(f"TCP model {tcp}: the bound was {held} packet loss")
        if self.options.plot is not None:
            plot_losses(pops, found, self.options.plot / f"against-loss-{pops}.svg")

    # -- bars ------------------------------------------------------------------------------------------------

    def _bars(self) -> int:
        options = self.options
        sizes = set(options.pops or ([POPS] if options.quick else [POPS, POPS_LARGE]))
        trials = [trial for trial in TRIALS if trial.case.pops in sizes]
        writes = WRITES_QUICK if options.quick else None
        cases = [
            case
            for trial in trials
            for case in trial.cases(
                self._seeds(SEEDS_LARGE if trial.case.pops == POPS_LARGE else SEEDS_BARS), writes
            )
        ]
        done = self._run(cases, "bars")
        judged = judge(trials, done)
        runs = list(done.values())
        if POPS in sizes:
            speed = self._run(SPEED_CASES[:1] if options.quick else SPEED_CASES, "speed", jobs=1)
            slow = self._run(SLOW_CASES[:1] if options.quick else SLOW_CASES, "speed", jobs=1)
            judged += judge_speed(list(speed.values()), list(slow.values()))
            runs += [*speed.values(), *slow.values()]
        title = "The bars: coordinator in Ashburn, backbone, no jitter, 20 writes/s"
        if options.quick:
            title += f"; quick, with {writes} writes: not the bars themselves"
        self._tell(bars_table(judged, title), bars_document(judged, runs))
        self._tell_unformed(runs)
        if options.plot is not None:
            plot_bars(judged, title, options.plot / "bars.svg")
        return self._verdict(judged)

    def _tell_unformed(self, runs: Iterable[Ran]) -> None:
        for ran in runs:
            if ran.measured is None:
                condition = ran.case.condition.name
                self.console.print(f"{condition}, seed {ran.case.seed}: {ran.why}", style="red", markup=False)

    def _verdict(self, judged: Sequence[Judged]) -> int:
        failed = [each for each in judged if each.verdict is Verdict.FAIL]
        self.console.print(f"{len(judged) - len(failed)} of {len(judged)} bars hold")
        return FAILED if failed else OK

    # -- what all of them need -------------------------------------------------------------------------------

    def _pops(self, default: int) -> list[int]:
        options = self.options
        return list(dict.fromkeys(options.pops or [POPS_QUICK if options.quick else default]))

    def _writes(self) -> int:
        return int(self.options.writes or (WRITES_QUICK if self.options.quick else WRITES))

    def _seeds(self, default: int) -> range:
        return range(1, 1 + (self.options.seeds or (1 if self.options.quick else default)))

    def _simulate(self, cases: Sequence[Case], what: str) -> None:
        self.done |= self._run([case for case in cases if case not in self.done], what)

    def _run(self, cases: Sequence[Case], what: str, jobs: int | None = None) -> dict[Case, Ran]:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        done = {}
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(what, total=len(cases))
            for ran in in_order(run_case, cases, jobs or self.options.jobs):
                done[ran.case] = ran
                progress.advance(task)
        return done

    def _tell(self, table: Any, result: dict[str, Any]) -> None:
        self.console.print(table)
        self.results.append(result)
        if self.options.json is not None:
            told = surroundings() | {"quick": self.options.quick, "results": self.results}
            self.options.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
