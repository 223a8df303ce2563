"""What a Worker, its runtime or wrangler says: passed on to standard error, whoever listens there."""

from __future__ import annotations

import sys
from contextlib import suppress


def tell(line: str) -> None:
    """Write one line to standard error; whoever said it never waits for a reader that has gone."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - standard error is where a Worker is heard
