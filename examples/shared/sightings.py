"""When each PoP saw a change: all of them are asked again and again while it travels."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table

from examples.shared.network import Stage

TIMEOUT_S = 20.0
"""Twice the bound that the network promises."""


@dataclass(slots=True)
class Sighting:
    """One PoP's view of a change; times in milliseconds since just before it was asked for."""

    pop: str
    old_until_ms: float | None = None
    """When the last question was asked that still got the old answer; None: no answer was old."""
    new_since_ms: float = math.inf
    """When the first new answer came."""
    stale_answers: int = 0
    """Old answers to questions that were asked after the change was acknowledged."""
    went_back: bool = False
    """An old answer came after a new one: a replica must never do that."""


async def watch(
    pops: Iterable[str],
    ask: Callable[[str], Awaitable[bool]],
    change: Callable[[], Awaitable[None]],
    *,
    poll_ms: float,
) -> list[Sighting]:
    """Return, in the order of `pops`, when each had the change; `ask` tells whether a PoP's answer is the new one.

    Raises:
        TimeoutError: some PoP didn't have it in time.
    """
    sightings = [Sighting(pop) for pop in pops]
    polling_since = asyncio.Event()
    acknowledged = math.inf
    began = 0.0

    def now_ms() -> float:
        return (perf_counter() - began) * 1000

    async def poll(sighting: Sighting, phase: float) -> None:
        await asyncio.sleep(phase * poll_ms / 1000)
        rounds_after = 0
        while rounds_after < 2:  # one more question, to see that it doesn't go back
            await polling_since.wait()
            asked_ms = now_ms()
            new = await ask(sighting.pop)
            if new:
                rounds_after += 1
                sighting.new_since_ms = min(sighting.new_since_ms, now_ms())
            else:
                sighting.went_back = sighting.went_back or rounds_after > 0
                sighting.old_until_ms = asked_ms
                sighting.stale_answers += asked_ms > acknowledged
            await asyncio.sleep(max(0.0, (asked_ms + poll_ms - now_ms()) / 1000))

    async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as tasks:
        for number, sighting in enumerate(sightings):
            tasks.create_task(poll(sighting, number / len(sightings)))
        began = perf_counter()
        polling_since.set()
        await change()
        acknowledged = now_ms()
    return sightings


def show(stage: Stage, title: str, sightings: Sequence[Sighting], *, old: str, new: str) -> None:
    """Print a table of what each PoP answered, the slowest last."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("PoP")
    table.add_column("city")
    table.add_column(f"{old} until", justify="right")
    table.add_column(f"{new} after", justify="right")
    table.add_column("stale answers", justify="right")
    for each in sorted(sightings, key=lambda sighting: sighting.new_since_ms):
        until = "–" if each.old_until_ms is None else f"{each.old_until_ms:.0f} ms"
        table.add_row(
            each.pop, stage.city(each.pop), until, f"{each.new_since_ms:.0f} ms", str(each.stale_answers)
        )
    console = Console()
    console.print(table)
    console.print()


def told(sightings: Sequence[Sighting]) -> list[Mapping[str, Any]]:
    """Return the sightings for a program."""
    return [
        {
            "pop": each.pop,
            "old_until_ms": None if each.old_until_ms is None else round(each.old_until_ms, 1),
            "new_since_ms": round(each.new_since_ms, 1),
            "stale_answers": each.stale_answers,
            "went_back": each.went_back,
        }
        for each in sightings
    ]
