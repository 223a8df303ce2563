"""wrangler as a process for each command, as a user starts it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.conformance.environments import Node
from tests.conformance.places import Place

COMMAND_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Wrangler:
    node: Node
    packages: Path
    """The folder whose `node_modules` has it."""
    folder: Path
    """Where it is started; nothing there configures it."""
    variables: Mapping[str, str]

    def run(self, place: Place, *arguments: object, without: str = "") -> subprocess.CompletedProcess[bytes]:
        """Run `wrangler kv …` to its end, at this node, `without` one of the variables that name it."""
        named = {name: value for name, value in place.variables.items() if name != without}
        return subprocess.run(
            [
                self.node.program,
                self.packages / "node_modules/wrangler/bin/wrangler.js",
                "kv",
                *map(str, arguments),
            ],
            cwd=self.folder,
            env={**self.variables, **named, "WRANGLER_SEND_METRICS": "false", "NO_COLOR": "1", "CI": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_S,
            check=False,
        )

    def __call__(self, place: Place, *arguments: object, without: str = "") -> bytes:
        """Return what a command prints that must work."""
        ended = self.run(place, *arguments, without=without)
        assert ended.returncode == 0, (arguments, ended)
        return ended.stdout

    def fail(self, place: Place, *arguments: object) -> str:
        """Return all that a command prints that must fail."""
        ended = self.run(place, *arguments)
        assert ended.returncode == 1, (arguments, ended)
        return (ended.stdout + ended.stderr).decode()


def at_once(calls: Iterable[Callable[[], Any]]) -> list[Any]:
    """Return what each call returns, made at the same time: a command takes a second, mostly to start."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]
