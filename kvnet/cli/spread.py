"""How a write spread, PoP by PoP, as text with small bars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

BAR_CELLS: Final = 10
CELL_GAP: Final = "   "
EIGHTHS: Final = " ▏▎▍▌▋▊▉"


def spread_lines(per_pop: Mapping[str, Mapping[str, Any]], width: int) -> list[str]:
    """Return every PoP with the median time at which it had the writes, the first to have them first.

    `per_pop` is the monitor's; the columns read downwards and fill `width` characters. A PoP without a write has
    a dash, and comes last.
    """
    times = {code: pop["p50_ms"] for code, pop in per_pop.items()}
    order = sorted(times, key=lambda code: (times[code] is None, times[code], code))
    longest = max((time for time in times.values() if time is not None), default=0.0)
    code_width = max(map(len, times), default=0)
    cells = [f"{code:<{code_width}} {_bar(times[code], longest)} {_shown(times[code])}" for code in order]
    if not cells:
        return []
    columns = max(1, (width + len(CELL_GAP)) // (len(cells[0]) + len(CELL_GAP)))
    rows = -(-len(cells) // columns)
    return [CELL_GAP.join(cells[row::rows]) for row in range(rows)]


def _bar(time: float | None, longest: float) -> str:
    eighths = 0 if time is None or longest <= 0 else round(8 * BAR_CELLS * time / longest)
    whole, part = divmod(eighths, 8)
    return ("█" * whole + EIGHTHS[part] * (part > 0)).ljust(BAR_CELLS)


def _shown(time: float | None) -> str:
    return f"{'–' if time is None else round(time):>5} ms"
