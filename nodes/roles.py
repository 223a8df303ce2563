"""The three kinds of node, and where each begins."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Final, cast

from kvnet.topology.fields import COORDINATOR, MONITOR
from nodes.context import NodeContext

EDGE: Final = "edge"

MAINS: Final[Mapping[str, str]] = {
    COORDINATOR: "nodes.coordinator:main",
    MONITOR: "nodes.monitor:main",
    EDGE: "nodes.edge:main",
}
"""Role to `module:function`; a main runs until SIGTERM and returns the exit code."""

NodeMain = Callable[[NodeContext], int]


def role_of(name: str) -> str:
    """Return the role of the node called `name`."""
    return name if name in {COORDINATOR, MONITOR} else EDGE


def load_main(reference: str) -> NodeMain:
    """Import and return the main that `module:function` names.

    Raises:
        ImportError: there is no such module.
    """
    module, _, function = reference.partition(":")
    return cast("NodeMain", getattr(importlib.import_module(module), function))
