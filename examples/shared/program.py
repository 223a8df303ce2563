"""The command line that the four example programs have in common."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from kvnet.errors import KvnetError


@dataclass(frozen=True, slots=True)
class Options:
    data: Path
    """The run folder of `kvnet up`."""
    times: int
    """How often the change is made."""
    poll_ms: float
    """How often each PoP is asked."""
    json: bool
    project: Path | None = None
    """Another wrangler.jsonc than the example's own, as one with other addresses."""


def run(main: Callable[[Options], Coroutine[Any, Any, dict[str, object]]], usage: str | None) -> None:
    """Run an example's `main` and print what it returns; exit code 1 says that it couldn't, or what went wrong."""
    parser = argparse.ArgumentParser(description=usage, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(".kvnet"), help="the run folder (default .kvnet)")
    parser.add_argument("--times", type=_at_least_one, default=1, help="how often the change is made (default 1)")
    parser.add_argument("--poll-ms", type=float, default=50.0, help="how often each PoP is asked (default 50)")
    parser.add_argument("--project", type=Path, help="another wrangler.jsonc, as one with other addresses")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = Options(**vars(parser.parse_args()))
    try:
        result = asyncio.run(main(options))
    except Exception as error:
        expected = KvnetError, RuntimeError, OSError, aiohttp.ClientError, TimeoutError
        causes = list(_leaves(error))
        if not all(isinstance(cause, expected) for cause in causes):
            raise
        print(f"error: {str(causes[0]) or type(causes[0]).__name__}", file=sys.stderr)
        sys.exit(1)
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        if not isinstance(value, list):
            print(f"{name.replace('_', ' ')}: {value}")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield what really went wrong: of a group of tasks, each one's own."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the smallest of `ordered` (ascending) that so many percent don't exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number
