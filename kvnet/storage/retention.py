"""How much of its journal a node keeps."""

from __future__ import annotations

from typing import NamedTuple


class Retention(NamedTuple):
    """What a journal drops: frames that are older than `age_ms`, and the oldest of one that is over `bytes_max`.

    None is no limit. Both are kept to within an eighth, since a few hundred neighbours dropped at a time dirty far
    fewer pages than one per commit. The last frame always stays.
    """

    bytes_max: int | None = None
    """Of frames."""
    age_ms: int | None = None
    """By a frame's stamp, beside the newest one's: a node whose clock is wrong, or that is idle, drops nothing."""


KEEP_ALL = Retention()
