"""Pictures of sweeps, series and bars, as SVG: medians as marks, the range over the seeds as bars and bands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite, nan
from pathlib import Path
from typing import Any, Final

from bench._support.bars import Judged, Verdict
from bench._support.simulated import Condition, Seeds, shown
from bench._support.sweeps import CONDITIONS, SIZE_CONDITIONS, TCP_MODELS, Sweep, Values, setting_text
from kvnet.topology.wan import Tcp

INK: Final = "#1f2933"
QUIET: Final = "#8a94a0"
GRID: Final = "#e4e7eb"
BLUE, ORANGE, RED, GREEN, YELLOW = "#2f6fb3", "#d98324", "#b8383b", "#2b8a6b", "#c9a227"
CONDITION_STYLES: Final = dict(
    zip(
        (condition.name for condition in CONDITIONS),
        (
            (INK, "o"),
            ("#a3c4e6", "o"),
            ("#5d97cf", "o"),
            ("#1d5591", "o"),
            ("#eba75d", "s"),
            ("#b85c0c", "s"),
            (GREEN, "D"),
        ),
        strict=True,
    )
)
"""Losses are blue, the darker the worse; crashes brown; the cut green."""
BESIDE: Final = 0.3
"""How far the marks of a setting are drawn apart, so that none hides another; settings are 1 apart."""
BOUND_MS: Final = 10_000.0
VERDICT_COLOURS: Final = {Verdict.PASS: GREEN, Verdict.MEDIAN: YELLOW, Verdict.FAIL: RED}
LOOK: Final = {
    "font.size": 9.5,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "svg.hashsalt": "kvnet",
}
"""One look for all; the salt makes the same picture the same file."""

Axes = Any
Points = Sequence[tuple[float, Seeds]]


def plot_sweep(sweep: Sweep, pops: int, found: Mapping[tuple[Condition, Values], Seeds], path: Path) -> None:
    """Draw what each setting gives and costs: p50, p99, redundancy, control messages."""
    settings = sweep.settings()
    with _figure(path, 10.4, 7.0) as figure:
        figure.suptitle(f"{sweep.question}", x=0.012, ha="left", fontsize=13, fontweight="bold", color=INK)
        (p50, p99), (redundancy, control) = figure.subplots(2, 2)
        _log_ms(p50, "p50 of convergence, ms")
        _log_ms(p99, "p99 of convergence, ms")
        for axes in (p50, p99, redundancy, control):
            _mark_default(axes, settings, sweep.defaults())
        for place, condition in enumerate(CONDITIONS):
            aside = BESIDE * (place / (len(CONDITIONS) - 1) - 0.5)
            points = [(number + aside, found[condition, values]) for number, values in enumerate(settings)]
            for axes, field in ((p50, "converge_p50_ms"), (p99, "converge_p99_ms"), (redundancy, "redundancy")):
                _line(axes, points, field, condition.name)
            if condition == CONDITIONS[0]:
                _line(control, points, "control_idle_per_s", condition.name, label="idle", dashed=True)
            _line(control, points, "control_busy_per_s", condition.name)
        redundancy.set_title("redundancy: bytes received ÷ needed")
        redundancy.set_ylim(bottom=min(1.0, redundancy.get_ylim()[0]))
        control.set_title("control messages per node and second")
        control.set_ylim(bottom=0)
        for axes in (redundancy, control):
            axes.set_xlabel(" / ".join(sweep.knobs))
        handles, labels = p99.get_legend_handles_labels()
        idle = control.get_legend_handles_labels()
        handles, labels = [*handles, idle[0][idle[1].index("idle")]], [*labels, "idle, no loss"]
        figure.legend(
            handles, labels, loc="outside right upper", title=f"{pops:,} PoPs, 20 writes/s", alignment="left"
        )


def plot_sizes(found: Mapping[tuple[Condition, int], Seeds], path: Path) -> None:
    """Draw convergence and stretch over the network's size."""
    sizes = sorted({pops for _, pops in found})
    with _figure(path, 10.4, 4.4) as figure:
        time, stretch = figure.subplots(1, 2)
        floors = [(float(pops), found[SIZE_CONDITIONS[0], pops]) for pops in sizes]
        time.plot(*_medians(floors, "floor_ms"), color=QUIET, linewidth=1.4, zorder=1)
        _label_end(time, floors, "floor_ms", "floor", QUIET)
        for condition in SIZE_CONDITIONS:
            points = [(float(pops), found[condition, pops]) for pops in sizes]
            for share, dashed in ((50, True), (99, False)):
                for axes, field in ((time, f"converge_p{share}_ms"), (stretch, f"stretch_p{share}")):
                    _line(axes, points, field, condition.name, label=f"{condition.name}, p{share}", dashed=dashed)
        _log_ms(time, "until a write is everywhere, ms")
        stretch.set_title("the same ÷ the floor")
        stretch.set_ylim(bottom=0)
        stretch.axhline(1, color=QUIET, linewidth=1.4, zorder=1)
        for axes in (time, stretch):
            axes.set_xscale("log")
            axes.set_xticks(sizes, [f"{pops:,}" for pops in sizes])
            axes.minorticks_off() if axes is stretch else axes.tick_params(axis="x", which="minor", bottom=False)
            axes.set_xlabel("PoPs")
        time.legend(loc="best")


def plot_losses(pops: int, found: Mapping[tuple[Tcp, float], Seeds], path: Path) -> None:
    """Draw convergence over packet loss, and how many writes were too late."""
    losses = sorted({loss for _, loss in found})
    colours = dict(zip(TCP_MODELS, (BLUE, ORANGE), strict=True))
    with _figure(path, 8.2, 6.2) as figure:
        time, late = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        for tcp in TCP_MODELS:
            points = [(100 * loss, found[tcp, loss]) for loss in losses]
            for share, dashed in ((50, True), (99, False)):
                _line(
                    time,
                    points,
                    f"converge_p{share}_ms",
                    "",
                    f"{tcp}, p{share}",
                    dashed=dashed,
                    colour=colours[tcp],
                )
            x = [loss for loss, seeds in points if seeds.writes]
            y = [100 * seeds.violations / seeds.writes for _, seeds in points if seeds.writes]
            late.plot(x, y, color=colours[tcp], marker="o")
        time.axhline(BOUND_MS, color=RED, linewidth=1.2)
        time.annotate(
            "the bound, 10 s",
            (0, BOUND_MS),
            (2, 4),
            textcoords="offset points",
            color=RED,
            fontsize=9,
            va="bottom",
        )
        _log_ms(time, f"until a write is at all {pops:,} PoPs, ms")
        time.legend(loc="lower right", title="TCP model", alignment="left")
        late.set_xticks([round(100 * loss) for loss in losses if loss == 0 or loss >= LOSS_NAMED_MIN])
        late.set_title("writes later than 10 s, %")
        late.set_ylim(0, max(1.0, late.get_ylim()[1]))
        late.set_xlabel("packets lost on every link, %")


def plot_bars(judged: Sequence[Judged], title: str, path: Path) -> None:
    """Draw each bar as a share of what is allowed: the median as a dot, the range over the seeds as a line."""
    shares = [(each, _shares(each)) for each in judged if each.bar.bar]
    with _figure(path, 9.0, 1.3 + 0.27 * len(shares)) as figure:
        axes = figure.subplots()
        axes.set_title(title)
        for row, (each, values) in enumerate(shares):
            y, colour = len(shares) - row, VERDICT_COLOURS[each.verdict]
            low, middle, high = (min(value, MOST_SHOWN) for value in values)
            axes.plot([low, high], [y, y], color=colour, alpha=0.5, linewidth=3, solid_capstyle="round")
            axes.plot(middle, y, marker="o", color=colour, markersize=6)
            told = f"{shown(each.summed.median, each.bar.digits)} {each.bar.unit}".strip()
            axes.text(1.02, y, told, transform=axes.get_yaxis_transform(), va="center", fontsize=8, color=colour)
        axes.axvline(1, color=INK, linewidth=1.2)
        axes.set_yticks(
            range(len(shares), 0, -1), [f"{each.trial}: {each.bar.what.split(':')[0]}" for each, _ in shares]
        )
        axes.grid(visible=False, axis="y")
        axes.set_xlim(0, max(1.3, *(1.2 * min(values[2], MOST_SHOWN) for _, values in shares)))
        axes.set_xlabel("share of what the bar allows: left of 1 it holds")


MOST_SHOWN: Final = 3.0
LOSS_NAMED_MIN: Final = 0.05
"""Smaller ones stand too near to each other on the axis."""


def _shares(each: Judged) -> tuple[float, float, float]:
    summed, bar = each.summed, each.bar.bar
    shares = [value / bar for value in (summed.low, summed.median, summed.high)]
    if each.bar.at_least:
        shares = [1 / share if share else MOST_SHOWN for share in reversed(shares)]
    return shares[0], shares[1], shares[2]


# -- parts -------------------------------------------------------------------------------------------------------


@contextmanager
def _figure(path: Path, width: float, height: float) -> Iterator[Any]:
    """Yield a figure that is saved at the end."""
    from matplotlib import rc_context  # noqa: PLC0415 - slow, and not everybody has it
    from matplotlib.figure import Figure  # noqa: PLC0415

    with rc_context(LOOK):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, metadata=metadata, dpi=110)


def _medians(points: Points, field: str) -> tuple[list[float], list[float]]:
    """Return x and median; what didn't form or never came is a gap."""
    return [x for x, _ in points], [_middle(seeds, field) for _, seeds in points]


def _middle(seeds: Seeds, field: str) -> float:
    spread = seeds.spread(field)
    return spread.median if spread and isfinite(spread.median) else nan


def _line(
    axes: Axes,
    points: Points,
    field: str,
    condition: str,
    label: str | None = None,
    *,
    dashed: bool = False,
    colour: str | None = None,
) -> None:
    """Draw the medians over x, with the range of the seeds."""
    own, marker = CONDITION_STYLES.get(condition, (INK, "o"))
    colour = colour or own
    x, y = _medians(points, field)
    line = {"linestyle": (0, (4, 2)), "markerfacecolor": "white"} if dashed else {}
    axes.plot(x, y, color=colour, marker=marker, label=label or condition, zorder=3, **line)
    for at, (_, seeds) in zip(x, points, strict=True):
        spread = seeds.spread(field)
        if spread and isfinite(spread.high) and spread.high > spread.low:
            axes.plot([at, at], [spread.low, spread.high], color=colour, alpha=0.4, linewidth=3, zorder=2)


def _label_end(axes: Axes, points: Points, field: str, text: str, colour: str) -> None:
    x, y = _medians(points, field)
    axes.annotate(text, (x[-1], y[-1]), (0, -11), textcoords="offset points", color=colour, fontsize=9, ha="right")


def _mark_default(axes: Axes, settings: Sequence[Values], default: Values) -> None:
    """Name the settings below, and shade the chosen one."""
    at = settings.index(default)
    axes.axvspan(at - 0.3, at + 0.3, color=GRID, alpha=0.7, linewidth=0, zorder=0)
    axes.annotate(
        "default", (at, 1), (0, -2), xycoords=("data", "axes fraction"), textcoords="offset points",
        ha="center", va="top", fontsize=8, color=QUIET,
    )  # fmt: skip
    axes.set_xticks(range(len(settings)), [setting_text(values) for values in settings])
    axes.set_xlim(-0.5, len(settings) - 0.5)
    axes.grid(visible=False, axis="x")


def _log_ms(axes: Axes, title: str) -> None:
    """Have times on a logarithmic axis, with readable numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415

    axes.set_title(title)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.yaxis.set_minor_formatter(NullFormatter())


_thousands: Callable[[float, int], str] = lambda value, _: f"{value:,.0f}"  # noqa: E731 - matplotlib's signature
