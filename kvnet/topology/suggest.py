"""What to say when a name is not known."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Final

SHOWN_MAX: Final = 8


def unknown(kind: str, name: str, known: Sequence[str]) -> str:
    """Return that no `kind` is called `name`, and what the reader may have meant."""
    close = get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    shown = [*known[:SHOWN_MAX], "…"] if len(known) > SHOWN_MAX else known
    cure = f"did you mean {', '.join(close)}?" if close else f"choose one of {', '.join(shown)}"
    return f"no {kind} is called {name!r}: {cure}"
