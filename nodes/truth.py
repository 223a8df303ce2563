"""Ground truth for the monitor: which PoPs are up, and what the launcher does to the network between them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from kvnet.topology.fields import COORDINATOR
from kvnet.topology.wan_state import WanState
from nodes.files import replace_file


def write_truth(path: Path, up_since_ms: Mapping[str, float | None], wan: WanState, written_ms: float) -> None:
    """Replace truth.json; times in unix milliseconds by PoP and for the coordinator, None for who isn't up.

    Not durable: after a power cut no node of it runs.

    Raises:
        OSError: the disk refused; the file is as it was.
    """
    nodes = {name: {"up_since_ms": since} for name, since in up_since_ms.items()}
    document = {
        COORDINATOR: nodes.pop(COORDINATOR),
        "pops": nodes,
        "wan": wan.to_dict(),
        "written_ms": written_ms,
    }
    replace_file(path, json.dumps(document).encode(), durable=False)
