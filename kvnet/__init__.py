"""kvnet: a replicated key-value store for a global network of points of presence."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvnet.client import connect

__version__ = "0.1.0"
__all__ = ["__version__", "connect"]


def __getattr__(name: str) -> Any:
    """Return what is loaded with its first use: a node needs no client, and shares its memory with none."""
    if name == "connect":
        return import_module("kvnet.client").connect
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
