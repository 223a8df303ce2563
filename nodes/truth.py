"""Ground truth for the monitor: which PoPs are up, and what the launcher does to the network between them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from kvnet.topology.wan_state import WanState
from nodes.files import replace_file


def write_truth(path: Path, up_since_ms: Mapping[str, float | None], wan: WanState, written_ms: float) -> None:
    """Replace truth.json; times in unix milliseconds, None for a PoP that isn't up.

    Not durable: after a power cut no node of it runs.

    Raises:
        OSError: the disk refused; the file is as it was.
    """
    pops = {code: {"up_since_ms": since} for code, since in up_since_ms.items()}
    document = {"pops": pops, "wan": wan.to_dict(), "written_ms": written_ms}
    replace_file(path, json.dumps(document).encode(), durable=False)
