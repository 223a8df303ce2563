"""`kvnet sim`: the deterministic simulator. Here is what may be asked of it; each answer has a module of its own.

(nothing)   sim_measure.py   how fast the network is
--swarm     sim_checks.py    what breaks under seeds that draw network, load and faults
--faults    sim_checks.py    what breaks under a schedule of one's own
--plan      sim_plan.py      what a network will need, and what breaks first
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from msgspec.structs import replace

from kvnet.cli.options import JsonOption, TopologyOption
from kvnet.cli.pool import cores
from kvnet.cli.sim_cases import Case, Number, ScheduleCase, SwarmCase
from kvnet.cli.sim_checks import run_checks, trace_check
from kvnet.cli.sim_measure import measure_many, measure_one
from kvnet.cli.sim_plan import EFFORT_S, plan_one
from kvnet.cli.sim_results import Results, world_id
from kvnet.errors import ConfigError
from kvnet.simulator.measure import Experiment
from kvnet.simulator.scripted import load_schedule
from kvnet.simulator.swarm import Mode
from kvnet.simulator.world import ROOT
from kvnet.topology.generation import POPS_MAX, generated
from kvnet.topology.load import load
from kvnet.topology.schema import Topology
from kvnet.topology.suggest import unknown
from kvnet.topology.wan_state import parse_loss

SEEDS_DEFAULT: Final = 100
POPS_MIN: Final = 2
SIZE_MIN: Final = 8
SIGMA_MAX: Final = 2.0
RATE_MAX: Final = 10_000.0
WARM_UP_S_MAX: Final = 86_400.0
EFFORT_S_MAX: Final = 86_400.0
CLOSED_PIPE: Final = 141
"""As a shell counts a program that wrote where nobody reads any more."""

LOAD: Final = "Load and network"
BREAKING: Final = "Breaking it"
PLANNING: Final = "Planning"
SWARM: Final = "Swarm"
TRACE: Final = "Trace"


class Profile(StrEnum):
    """How distance becomes delay."""

    INTERNET = "internet"
    BACKBONE = "backbone"
    NONE = "none"


class TcpModel(StrEnum):
    """What a lost packet costs."""

    FLIGHT = "flight"
    SACK = "sack"


class ModeChoice(StrEnum):
    """What a swarm is after."""

    ALL = "all"
    SAFETY = "safety"
    LIVENESS = "liveness"
    TORTURE = "torture"


def sim(
    topology: TopologyOption = None,
    pops: Annotated[
        int | None,
        typer.Option(
            "--pops",
            metavar="N",
            help="So many PoPs, 2 to 10,000: the best-spread ones, or all and more around their cities. "
            "A swarm's seeds draw 12 to 60.",
            show_default=False,
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option("--loss", metavar="P", help="Packet loss on every link: 0.2 or 20%.", show_default=False),
    ] = None,
    tcp: Annotated[
        TcpModel,
        typer.Option("--tcp", help="A lost packet holds up all behind it, or is repaired as by modern TCP."),
    ] = TcpModel.FLIGHT,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", metavar="S", min=0, help="This seed; the same seed is the same run.", show_default="1"
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", metavar="N", min=1, help="N seeds, from 1 on.", show_default="100 in a swarm"),
    ] = None,
    first: Annotated[
        int | None, typer.Option("--from", metavar="S", min=0, help="The first of the seeds.", show_default="1")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", metavar="J", min=1, help="Processes that share several seeds.", show_default="cores"
        ),
    ] = None,
    json_: JsonOption = False,
    rate: Annotated[
        float | None,
        typer.Option("--rate", help="Writes a second.", rich_help_panel=LOAD, show_default="20"),
    ] = None,
    writes: Annotated[
        int | None,
        typer.Option("--writes", min=1, help="How many.", rich_help_panel=LOAD, show_default="1200"),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option("--size", help="Bytes of a value.", rich_help_panel=LOAD, show_default="100"),
    ] = None,
    warm_up: Annotated[
        float | None,
        typer.Option(
            "--warm-up",
            metavar="SECONDS",
            help="Virtual time from when the network has formed until the first write.",
            rich_help_panel=LOAD,
            show_default="20",
        ),
    ] = None,
    profile: Annotated[
        Profile | None,
        typer.Option(
            "--profile",
            help="How distance becomes delay.",
            rich_help_panel=LOAD,
            show_default="the topology's",
        ),
    ] = None,
    jitter: Annotated[
        float | None,
        typer.Option(
            "--jitter",
            metavar="SIGMA",
            help="Spread of the delay, as a fraction of it.",
            rich_help_panel=LOAD,
            show_default="the topology's",
        ),
    ] = None,
    crash: Annotated[
        str | None,
        typer.Option(
            "--crash",
            metavar="SHARE",
            help="This share of the PoPs (0.1 or 10%) loses power as the writes begin, and nobody is told.",
            rich_help_panel=BREAKING,
            show_default=False,
        ),
    ] = None,
    cut: Annotated[
        str | None,
        typer.Option(
            "--cut",
            metavar="SHARE",
            help="This share of the PoPs is cut off for 20 s as the writes begin; the others are judged.",
            rich_help_panel=BREAKING,
            show_default=False,
        ),
    ] = None,
    faults: Annotated[
        Path | None,
        typer.Option(
            "--faults",
            metavar="FILE",
            help="A schedule of faults in JSON (docs/simulator.md), while every property is watched.",
            rich_help_panel=BREAKING,
            show_default=False,
        ),
    ] = None,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="What the network needs at this rate, and what breaks first when it's raised.",
            rich_help_panel=PLANNING,
        ),
    ] = False,
    sizes: Annotated[
        str | None,
        typer.Option(
            "--sizes",
            metavar="BYTES",
            help="Sizes of values: 100, 100-5000, or 100:0.9,50000:0.1.",
            rich_help_panel=PLANNING,
            show_default="100",
        ),
    ] = None,
    link_mbps: Annotated[
        float | None,
        typer.Option(
            "--link-mbps",
            metavar="MBIT",
            help="Mbit/s of each connection and direction.",
            rich_help_panel=PLANNING,
            show_default="the topology's",
        ),
    ] = None,
    uplink_mbps: Annotated[
        float | None,
        typer.Option(
            "--uplink-mbps",
            metavar="MBIT",
            help="Mbit/s that a node may send in all.",
            rich_help_panel=PLANNING,
            show_default="no limit",
        ),
    ] = None,
    effort: Annotated[
        float | None,
        typer.Option(
            "--effort",
            metavar="SECONDS",
            help="About how long to look for what breaks first; at least twice what the first trial takes.",
            rich_help_panel=PLANNING,
            show_default="120",
        ),
    ] = None,
    swarm: Annotated[
        bool,
        typer.Option("--swarm", help="Let each seed draw network, load and faults.", rich_help_panel=SWARM),
    ] = False,
    mode: Annotated[
        ModeChoice | None,
        typer.Option(
            "--mode",
            help="What the seeds are run for; all runs each of them three times.",
            rich_help_panel=SWARM,
            show_default="all",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            metavar="FILE",
            help="Add what came of each run to FILE, and don't run again what is there.",
            rich_help_panel=SWARM,
            show_default=False,
        ),
    ] = None,
    trace: Annotated[
        bool,
        typer.Option(
            "--trace",
            help="Print everything that happens, a line each; the table goes to stderr.",
            rich_help_panel=TRACE,
        ),
    ] = False,
    only: Annotated[
        str | None,
        typer.Option(
            "--only",
            metavar="NODE[,NODE]",
            help="Trace these nodes alone.",
            rich_help_panel=TRACE,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Simulate a network in virtual time: measure it, or break it.

    The nodes run the real protocol; clock, disks and network are simulated, so a seed is the same run each time.
    Exit code 1: a property didn't hold. Exit code 3: the bound was broken.
    """
    asked = Asked(
        {
            "--topology": topology,
            "--pops": pops,
            "--loss": loss,
            "--tcp": None if tcp is TcpModel.FLIGHT else tcp,
            "--seed": seed,
            "--seeds": seeds,
            "--from": first,
            "--jobs": jobs,
            "--json": json_ or None,
            "--rate": rate,
            "--writes": writes,
            "--size": size,
            "--warm-up": warm_up,
            "--profile": profile,
            "--jitter": jitter,
            "--crash": crash,
            "--cut": cut,
            "--faults": faults,
            "--plan": plan or None,
            "--sizes": sizes,
            "--link-mbps": link_mbps,
            "--uplink-mbps": uplink_mbps,
            "--effort": effort,
            "--swarm": swarm or None,
            "--mode": mode,
            "--resume": resume,
            "--trace": trace or None,
            "--only": only,
        }
    )
    asked.refuse_contradictions()
    try:
        code = _run(asked)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left has nowhere to go
        code = CLOSED_PIPE
    if code:
        raise typer.Exit(code)


class Asked:
    """What was given on the command line, by option."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._given = {name: value for name, value in options.items() if value is not None}

    def __contains__(self, name: str) -> bool:
        return name in self._given

    def get(self, name: str, default: Any = None) -> Any:
        return self._given.get(name, default)

    def typed(self, *names: str) -> tuple[str, ...]:
        """Return those of these options that were given, as they could be typed again."""
        return tuple(word for name in names if name in self for word in (name, f"{self._given[name]}"))

    def refuse_contradictions(self) -> None:
        """Refuse what can't be meant.

        Raises:
            ConfigError: two options exclude each other; says which, and what to do.
        """
        one_run = "--seed" in self or not ("--seeds" in self or "--swarm" in self)
        for names, cure in EXCLUDING:
            given = [name for name in names if name in self]
            if len(given) > 1:
                raise ConfigError(f"{' and '.join(given)} exclude each other: {cure}")
        if "--plan" in self:
            if others := [name for name in NOT_PLANNED if name in self]:
                raise ConfigError(f"{others[0]} has no place in a plan: leave out {others[0]} or --plan")
        elif only_plan := [name for name in ONLY_PLAN if name in self]:
            raise ConfigError(f"{only_plan[0]} belongs to a plan: add --plan")
        if "--swarm" in self:
            if drawn := [name for name in DRAWN if name in self]:
                raise ConfigError(
                    f"{drawn[0]} can't be set: with --swarm the seed decides that; leave one of them out"
                )
        elif only_swarm := [name for name in ONLY_SWARM if name in self]:
            raise ConfigError(f"{only_swarm[0]} belongs to a swarm: add --swarm")
        if "--from" in self and "--seeds" not in self and "--swarm" not in self:
            raise ConfigError("--from begins a row of seeds: say how many with --seeds N")
        if "--only" in self and "--trace" not in self:
            raise ConfigError("--only says what --trace shows: add --trace")
        if "--trace" in self and not one_run:
            raise ConfigError("--trace shows one run: say which with --seed S")
        if "--trace" in self and "--swarm" in self and self.get("--mode", ModeChoice.ALL) is ModeChoice.ALL:
            raise ConfigError(
                "--trace shows one run, and a swarm runs each seed in three modes: add --mode safety"
            )

    def seeds(self, default: int) -> range:
        """Return the seeds to run."""
        if "--seed" in self:
            return range(self.get("--seed"), self.get("--seed") + 1)
        first = self.get("--from", 1)
        return range(first, first + self.get("--seeds", default))

    def loss(self) -> float | None:
        """Return the packet loss asked for."""
        return None if "--loss" not in self else parse_loss(self.get("--loss"))

    def share(self, name: str) -> float:
        """Return a share of the PoPs; 0 where none was given.

        Raises:
            ConfigError: neither 0.2 nor 20%, or not below 1.
        """
        if name not in self:
            return 0.0
        text = str(self.get(name)).strip()
        try:
            share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            raise ConfigError(f"{name} {text!r} is not a share of the PoPs: write 0.2, or 20%") from None
        if not 0 < share < 1:
            raise ConfigError(f"{name} {text} must be above 0 and below 1: 0.2 and 20% are every fifth PoP")
        return share

    def number(self, name: str, default: float, least: float, most: float, unit: str) -> float:
        """Return a number within bounds."""
        value = self.get(name, default)
        if not (isfinite(value) and least <= value <= most):
            raise ConfigError(f"{name} {value:g} can't be simulated: give {least:g} to {most:,g} {unit}")
        return float(value)


EXCLUDING: Final[Sequence[tuple[tuple[str, ...], str]]] = (
    (("--seed", "--seeds"), "--seed S runs one, --seeds N the first N"),
    (("--seed", "--from"), "--from S --seeds N runs a row, --seed S one"),
    (("--seed", "--resume"), "--resume is for many seeds"),
    (("--trace", "--seeds"), "--trace shows one run: say which with --seed S"),
    (("--trace", "--json"), "both write to stdout"),
    (("--trace", "--resume"), "--trace shows one run, --resume is for many"),
    (("--size", "--sizes"), "--sizes 100 says the same as --size 100"),
    (("--faults", "--crash"), "put it into the schedule, or leave --faults out"),
    (("--faults", "--cut"), "put it into the schedule, or leave --faults out"),
)
"""Options of which one may be given, and what to do."""

DRAWN: Final = (
    "--rate",
    "--writes",
    "--size",
    "--warm-up",
    "--profile",
    "--jitter",
    "--crash",
    "--cut",
    "--faults",
)
"""What the seeds of a swarm decide."""

ONLY_PLAN: Final = ("--sizes", "--link-mbps", "--uplink-mbps", "--effort")

NOT_PLANNED: Final = (
    "--swarm",
    "--mode",
    "--resume",
    "--faults",
    "--crash",
    "--cut",
    "--writes",
    "--warm-up",
    "--seeds",
    "--from",
    "--jobs",
    "--trace",
    "--only",
)
"""What a plan decides itself, or is another way to use the simulator."""

ONLY_SWARM: Final = ("--mode", "--resume")

DECIDING: Final = ("--topology", "--pops", "--loss", "--tcp")
"""What decides any run, and is part of the command that replays it."""

DECIDING_LOAD: Final = ("--faults", "--rate", "--writes", "--size", "--warm-up", "--profile", "--jitter")


def _run(asked: Asked) -> int:
    """Do what was asked; return the exit code. A further way to use the simulator begins here."""
    if "--swarm" in asked:
        return _swarm(asked)
    network = _with_wan(asked, _network(asked))
    if "--plan" in asked:
        return _plan(asked, network)
    if "--faults" in asked:
        return _schedule(asked, network)
    return _measure(asked, network)


def _swarm(asked: Asked) -> int:
    network, loss, pops = _network(asked), asked.loss(), asked.get("--pops")
    if loss is not None:
        network.with_loss(loss)  # refuses what is none
    case = SwarmCase(network, asked.typed(*DECIDING), pops, loss, asked.get("--tcp", TcpModel.FLIGHT).value)
    chosen = asked.get("--mode", ModeChoice.ALL)
    modes = tuple(Mode) if chosen is ModeChoice.ALL else (Mode(chosen.value),)
    numbers = [(seed, mode) for seed in asked.seeds(SEEDS_DEFAULT) for mode in modes]
    if "--resume" not in asked:
        return _check(asked, case, numbers)
    with Results(asked.get("--resume"), world_id(network, pops, loss, case.tcp)) as results:
        return _check(asked, case, numbers, results)


def _schedule(asked: Asked, network: Topology) -> int:
    experiment = _experiment(asked, network)
    schedule = tuple(load_schedule(asked.get("--faults"), network))
    case = ScheduleCase(network, asked.typed(*DECIDING_LOAD, *DECIDING), experiment, schedule)
    return _check(asked, case, [(seed, case.mode) for seed in asked.seeds(1)])


def _plan(asked: Asked, network: Topology) -> int:
    return plan_one(
        network,
        asked.get("--rate", Experiment().rate),
        asked.get("--sizes", f"{asked.get('--size', Experiment().size)}"),
        link_mbps=asked.get("--link-mbps"),
        uplink_mbps=asked.get("--uplink-mbps"),
        tcp=asked.get("--tcp", TcpModel.FLIGHT).value,
        seed=asked.seeds(1)[0],
        effort_s=asked.number("--effort", EFFORT_S, 0.0, EFFORT_S_MAX, "seconds"),
        json_="--json" in asked,
    )


def _measure(asked: Asked, network: Topology) -> int:
    experiment = _experiment(asked, network)
    seeds = asked.seeds(1)
    if len(seeds) > 1 or "--seeds" in asked:
        return measure_many(network, experiment, seeds, asked.get("--jobs", cores()), json_="--json" in asked)
    return measure_one(
        network,
        replace(experiment, seed=seeds[0]),
        trace=_tracer(asked),
        only=_only(asked, network),
        json_="--json" in asked,
    )


def _check(asked: Asked, case: Case, numbers: Sequence[Number], results: Results | None = None) -> int:
    if (write := _tracer(asked)) is not None:
        number = numbers[0]
        return trace_check(case, number, write, only=_only(asked, case.network_of(number[0])))
    return run_checks(case, numbers, jobs=asked.get("--jobs", cores()), results=results, json_="--json" in asked)


def _network(asked: Asked) -> Topology:
    """Return the network, as large as was asked for.

    Raises:
        ConfigError: too small to spread anything, or too large.
    """
    topology = load(asked.get("--topology"))
    pops = asked.get("--pops")
    most = max(POPS_MAX, len(topology.pops))
    if pops is not None and not POPS_MIN <= pops <= most:
        raise ConfigError(f"--pops {pops} can't be simulated: give {POPS_MIN} to {most}")
    if pops is not None:
        topology = generated(topology, pops)
    if len(topology.pops) < POPS_MIN:
        raise ConfigError(
            f"{topology.name} has one PoP, and nothing spreads in it: add PoPs to the file, or give --pops N"
        )
    return topology


def _with_wan(asked: Asked, network: Topology) -> Topology:
    if (loss := asked.loss()) is not None:
        network = network.with_loss(loss)
    wan = network.wan
    if "--profile" in asked:
        wan = replace(wan, profile=asked.get("--profile").value, matrix=None)
    if "--jitter" in asked:
        wan = replace(wan, jitter_sigma=asked.number("--jitter", 0.0, 0.0, SIGMA_MAX, "of the delay"))
    return replace(network, wan=wan)


def _experiment(asked: Asked, network: Topology) -> Experiment:
    """Return what is written and broken.

    Raises:
        ConfigError: out of bounds, or nobody would be left to judge.
    """
    value_bytes_max = network.limits.resolve().value_bytes_max
    usual = Experiment()
    crashed, cut = asked.share("--crash"), asked.share("--cut")
    edges = len(network.pops)
    if round(crashed * edges) + round(cut * edges) >= edges:
        raise ConfigError(f"of {edges} PoPs none would be left to judge: lower --crash or --cut, or raise --pops")
    return replace(
        usual,
        writes=asked.get("--writes", usual.writes),
        rate=asked.number("--rate", usual.rate, 0.01, RATE_MAX, "writes a second"),
        size=int(asked.number("--size", usual.size, SIZE_MIN, value_bytes_max, "bytes")),
        warm_up_ms=1000 * asked.number("--warm-up", usual.warm_up_ms / 1000, 0.0, WARM_UP_S_MAX, "seconds"),
        crashed=crashed,
        cut=cut,
        tcp=asked.get("--tcp", TcpModel.FLIGHT).value,
    )


def _tracer(asked: Asked) -> Callable[[str], None] | None:
    if "--trace" not in asked:
        return None
    write = sys.stdout.write

    def line(text: str) -> None:
        write(f"{text}\n")

    return line


def _only(asked: Asked, network: Topology) -> tuple[str, ...]:
    """Return the nodes that are traced; none means all.

    Raises:
        ConfigError: the network has no such node.
    """
    if "--only" not in asked:
        return ()
    known = [ROOT, *(pop.code for pop in network.pops)]
    names = tuple(name.strip().lower() for name in asked.get("--only").split(",") if name.strip())
    for name in names:
        if name not in known:
            raise ConfigError(f"--only: {unknown('node', name, known)}")
    if not names:
        raise ConfigError("--only names no node: write --only coordinator,fra")
    return names
