"""Logs that end: a file that grew too large becomes `<log>.1`, and the node writes on into the empty one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

LOG_BYTES_MAX: Final = 4 * 1024 * 1024
"""Size at which a log is turned over; a node keeps at most two of them."""


def rotate(log: Path, bytes_max: int = LOG_BYTES_MAX) -> bool:
    """Turn the log over if it is too large; whether it was.

    The writer has it open for appending and needs no word of this. A line written between the copy and the cut is
    lost; only a node that writes megabytes can lose one.
    """
    try:
        if log.stat().st_size <= bytes_max:
            return False
        shutil.copyfile(log, log.with_name(f"{log.name}.1"))
        os.truncate(log, 0)
    except FileNotFoundError:
        return False
    return True
