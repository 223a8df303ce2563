"""What `kvnet get --explain` tells: which edges there were, which one answered and why, and what it said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rich import box
from rich.table import Table

from kvnet.cli.output import print_report
from kvnet.client import Call, Network
from kvnet.errors import RequestError

CANDIDATES: Final = 5
"""Edges that are shown; who is further away than these is asked when they all fail."""
VALUES: Final = "/values/"


async def explain(net: Network, calls: Sequence[Call], chosen: str) -> dict[str, Any]:
    """Return how the value of these calls was read; `chosen` says why the preferred edge is preferred."""
    call = next(call for call in reversed(calls) if VALUES in call.path)
    lookups = [each.took_ms or 0.0 for each in calls[: calls.index(call)] if VALUES not in each.path]
    asked = net.preferred
    answered = call.answered_by
    pop = call.headers.get("KV-Pop")
    return {
        "candidates": [
            {
                "pop": each.code,
                "city": each.city,
                "distance_km": _rounded(each.distance_km, 0),
                "expected_ms": _rounded(each.expected_ms),
                "measured_ms": _rounded(each.measured_ms),
                "state": "away" if each.away else "up",
            }
            for each in await net.candidates(CANDIDATES)
        ],
        "choice": {"pop": asked.code, "why": chosen},
        "answer": {
            "pop": pop,
            "asked": None if answered is None else answered.code,
            "relayed_by": call.headers.get("KV-Relayed-By"),
            "version": call.headers.get("KV-Version"),
            "position": call.headers.get("KV-Position"),
            "staleness_ms": _number(call.headers.get("KV-Staleness-Ms")),
            **await _way(net, pop),
        },
        "took_ms": _rounded(call.took_ms),
        "lookup_ms": _rounded(sum(lookups)),
        "hedged": call.hedged,
        "failed_over": call.failed_over,
        "attempts": [
            {
                "pop": attempt.edge.code,
                "why": attempt.why,
                "outcome": attempt.outcome,
                "error": attempt.error or None,
                "began_ms": _rounded(attempt.began_ms),
                "took_ms": _rounded(attempt.took_ms),
            }
            for attempt in call.attempts
        ],
    }


async def _way(net: Network, pop: str | None) -> dict[str, Any]:
    """Return how writes come to a PoP; None where it doesn't tell."""
    unknown = {"path": None, "hops": None, "path_ms": None}
    if pop is None:
        return unknown
    try:
        status = await net.status(pop)
        nodes = [*status["path"], pop]
    except (KeyError, TypeError, RequestError):
        return unknown
    return {"path": nodes, "hops": len(nodes) - 1, "path_ms": status.get("latency_ms")}


def print_explained(told: dict[str, Any]) -> None:
    """Print it to standard error, beside the value and not in it."""
    print_report(_table(told), *_lines(told), to_stderr=True)


def _table(told: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE)
    table.add_column("PoP", no_wrap=True)
    table.add_column("city", overflow="ellipsis")
    for heading in ("km", "expected ms", "measured ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    by_pop = {attempt["pop"]: attempt["outcome"] for attempt in told["attempts"]}
    for each in told["candidates"]:
        state = ", ".join([each["state"], *([str(by_pop[each["pop"]])] if each["pop"] in by_pop else [])])
        cells = [each["city"], each["distance_km"], each["expected_ms"], each["measured_ms"]]
        table.add_row(each["pop"], *("-" if cell is None else str(cell) for cell in cells), state)
    return table


def _lines(told: dict[str, Any]) -> list[str]:
    answer = told["answer"]
    version = answer["version"] or "no such key"
    age = "of unknown age" if answer["staleness_ms"] is None else f"at most {answer['staleness_ms']} ms old"
    lines = [
        f"choice  {told['choice']['pop']}, {told['choice']['why']}",
        f"answer  {answer['pop']}: {version}, {age}, at position {answer['position']}",
    ]
    if answer["relayed_by"]:
        lines.append(f"relay   {answer['relayed_by']} was asked, and asked {answer['pop']}")
    if answer["path"]:
        hops = "1 hop" if answer["hops"] == 1 else f"{answer['hops']} hops"
        lines.append(f"path    {' → '.join(answer['path'])}: {hops}, {answer['path_ms']} ms from the coordinator")
    lines.append(f"took    {told['took_ms']} ms{_course(told)}; finding the namespace {told['lookup_ms']} ms")
    return lines


def _course(told: dict[str, Any]) -> str:
    """Return what happened on the way, if anything did."""
    parts = []
    if told["failed_over"]:
        failed = [each["pop"] for each in told["attempts"] if each["outcome"] in {"failed", "refused"}]
        parts.append(f"failed over from {', '.join(failed)}")
    if told["hedged"]:
        parts.append("hedged: a second edge was asked, since the first was slow")
    return "".join(f", {part}" for part in parts) or ", at the first edge asked"


def _rounded(number: float | None, digits: int = 1) -> float | int | None:
    if number is None:
        return None
    return round(number, digits) if digits else round(number)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
