"""Bytes as people read them."""

from __future__ import annotations

from typing import Final

UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def bytes_in_words(size: float) -> str:
    """Return `312 B`, `4.1 MiB`, `128 GiB`: two or three digits that count."""
    for unit in UNITS:
        if size < 1000 or unit == UNITS[-1]:
            digits = 0 if unit == "B" or size >= 100 else 1
            return f"{size:.{digits}f} {unit}"
        size /= 1024
    raise AssertionError("the last unit takes everything")
