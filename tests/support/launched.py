"""A launcher in a process of its own, over fake nodes: `python -m tests.support.launched DATA [options]`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from kvnet.errors import ConfigError, KvnetError
from kvnet.topology.load import load
from nodes.background import run_in_background
from nodes.cluster import RunFolder
from nodes.launcher import Launch, run
from nodes.roster import Progress
from tests.support.fake_nodes import MAINS


class PrintingReporter:
    """One JSON object per line on stdout."""

    def progress(self, progress: Progress) -> None:
        """Not told: tests wait for states, not for their order."""

    def formed(self, formed_ms: float) -> None:
        _tell(formed_ms=formed_ms)

    def notice(self, text: str) -> None:
        _tell(notice=text)


def _tell(**report: object) -> None:
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--pops", type=int, default=3)
    parser.add_argument("--port-base", type=int)
    parser.add_argument("--wipe", action="store_true")
    parser.add_argument("--detach", action="store_true")
    options = parser.parse_args()
    launch = Launch(
        topology=load("world-2018").with_pops(options.pops),
        folder=RunFolder(options.data),
        port_base=options.port_base,
        wipe=options.wipe,
        mains=MAINS,
    )
    try:
        (run_in_background if options.detach else run)(launch, PrintingReporter())
    except KvnetError as error:
        sys.stderr.write(f"kvnet: {error}\n")
        return 2 if isinstance(error, ConfigError) else 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
