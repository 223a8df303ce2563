"""The report: what a window of measuring adds up to, as plain values and as a table. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kvnet.core.versions import Version
from kvnet.monitor.histogram import Histogram
from kvnet.monitor.judge import Overdue
from kvnet.monitor.tally import VIOLATIONS_LISTED_MAX, Tally

SLOWEST_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class PopState:
    """One PoP now."""

    code: str
    floor_ms: float
    """One way from the coordinator."""
    since_ms: float | None
    """Up and connected since."""
    position: Version
    lag_frames: int
    lag_ms: float
    """Age of the oldest frame it lacks; 0 without one."""
    heard_ms: float | None
    parent: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Everything a report is made of."""

    now_ms: float
    floor_ms: float
    """The largest one-way delay from the coordinator."""
    bound_ms: float
    window: Tally
    """All windows of the report in one."""
    pending: int
    """Writes that some connected PoP lacks."""
    overdue: Overdue
    growth: Mapping[str, Counter[str]]
    """By node, how much its counters grew in the window."""
    coordinator: str
    head: Version | None
    coordinator_heard_ms: float | None
    pops: Sequence[PopState]


def build_report(findings: Findings) -> dict[str, Any]:
    """Return what `/report` tells.

    A write that is overdue counts with the time it has taken already, so that none is missing from a percentile.
    """
    window = findings.window
    converge = _with_overdue(window.converge, findings.overdue)
    p50, p99 = converge.percentile(0.5), converge.percentile(0.99)
    received = sum(
        grown["frame_bytes_received"] for node, grown in findings.growth.items() if node != findings.coordinator
    )
    needed = window.frame_bytes * len(findings.pops)
    sent = findings.growth.get(findings.coordinator, Counter())["frame_bytes_sent"]
    violations = [*window.violations, *findings.overdue.violations]
    return {
        "since": {"name": window.name, "wall_ms": window.since_ms},
        "now_ms": findings.now_ms,
        "clock": "the host's",
        "writes": window.writes,
        "frames": window.frames,
        "frame_bytes": window.frame_bytes,
        "pops": len(findings.pops),
        "connected": sum(pop.since_ms is not None for pop in findings.pops),
        "bound_ms": findings.bound_ms,
        "floor_ms": _rounded(findings.floor_ms),
        "converge_p50_ms": _rounded(p50),
        "converge_p99_ms": _rounded(p99),
        "converge_max_ms": _rounded(converge.maximum) if converge.count else None,
        "stretch_p50": _ratio(p50, findings.floor_ms),
        "stretch_p99": _ratio(p99, findings.floor_ms),
        "redundancy": _ratio(received, needed),
        "coordinator_copies": _ratio(sent, window.frame_bytes),
        "pending": findings.pending,
        "unjudged": window.unjudged,
        "superseded": window.superseded,
        "violation_count": window.violation_count + findings.overdue.violation_count,
        "violations": [asdict(violation) for violation in violations[:VIOLATIONS_LISTED_MAX]],
        "counters": dict(sum(findings.growth.values(), Counter())),
        "head": None if findings.head is None else str(findings.head),
        "coordinator_heard_ms": findings.coordinator_heard_ms,
        "per_pop": {
            pop.code: _pop_report(pop, arrivals)
            for pop, arrivals in zip(findings.pops, window.arrivals, strict=True)
        },
    }


def report_text(report: Mapping[str, Any]) -> str:
    """Return `/report.txt`: the sums, the slowest PoPs, and what was violated."""
    since = report["since"]["name"]
    lines = [
        f"{report['writes']} writes to {report['pops']} PoPs ({report['connected']} connected), since {since}",
        "",
        f"  floor            {_shown(report['floor_ms'])} ms",
        f"  converged p50    {_shown(report['converge_p50_ms'])} ms   {_shown(report['stretch_p50'])} × floor",
        f"  converged p99    {_shown(report['converge_p99_ms'])} ms   {_shown(report['stretch_p99'])} × floor",
        f"  converged max    {_shown(report['converge_max_ms'])} ms",
        f"  redundancy       {_shown(report['redundancy'])}",
        f"  coordinator sent {_shown(report['coordinator_copies'])} copies",
        f"  pending          {report['pending']:>9}",
        f"  unjudged         {report['unjudged']:>9}",
        f"  violations       {report['violation_count']:>9}   of the bound of {report['bound_ms']:g} ms",
        "",
        "  slowest PoPs        p50        p99        max      floor ms   parent",
    ]
    for code, pop in slowest_pops(report["per_pop"], SLOWEST_SHOWN):
        lines.append(
            f"  {code:<12}{_shown(pop['p50_ms']):>11}{_shown(pop['p99_ms']):>11}{_shown(pop['max_ms']):>11}"
            f"{_shown(pop['floor_ms']):>11}      {pop['parent'] or '-'}"
        )
    if report["violations"]:
        lines += ["", "  violations"]
    for violation in report["violations"]:
        lines.append(
            f"  {violation['write']:<16} {violation['pop']:<8} {violation['lag_ms']:g} ms: {violation['why']}"
        )
    return "\n".join(lines) + "\n"


def slowest_pops(per_pop: Mapping[str, Mapping[str, Any]], count: int) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the `count` PoPs with the highest p99, the slowest first."""
    return sorted(per_pop.items(), key=lambda item: item[1]["p99_ms"] or 0.0, reverse=True)[:count]


def join(tallies: Sequence[Tally]) -> Tally:
    """Return consecutive windows as one; they themselves don't change."""
    first = tallies[0]
    joined = Tally(first.name, first.since_ms, len(first.arrivals), first.counters)
    for tally in tallies:
        joined.merge(tally)
    return joined


def _with_overdue(converge: Histogram, overdue: Overdue) -> Histogram:
    joined = Histogram()
    joined.merge(converge)
    for waited_ms, writes in overdue.waits:
        joined.add(waited_ms, writes)
    return joined


def _pop_report(pop: PopState, arrivals: Histogram) -> dict[str, Any]:
    p50 = arrivals.percentile(0.5)
    return {
        "writes": arrivals.count,
        "p50_ms": _rounded(p50),
        "p99_ms": _rounded(arrivals.percentile(0.99)),
        "max_ms": _rounded(arrivals.maximum) if arrivals.count else None,
        "floor_ms": _rounded(pop.floor_ms),
        "stretch_p50": _ratio(p50, pop.floor_ms),
        "position": str(pop.position),
        "lag_frames": pop.lag_frames,
        "lag_ms": _rounded(pop.lag_ms),
        "connected_since_ms": pop.since_ms,
        "heard_ms": pop.heard_ms,
        "parent": pop.parent,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _ratio(part: float | None, whole: float) -> float | None:
    return None if part is None or not whole else round(part / whole, 3)


def _shown(value: float | None) -> str:
    return f"{'-' if value is None else format(value, '.2f'):>9}"
