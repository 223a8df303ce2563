"""A group of commands that are imported when they are run, so that `kvnet --help` needs none of them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True, slots=True)
class Entry:
    """One command as help lists it."""

    target: str
    """`module:function`, or `module:typer_app` for a group."""
    panel: str
    """Heading it stands under."""
    help: str
    """The first sentence of its own help."""


class LazyGroup(TyperGroup):
    """A group over a table of entries; subclass it with `entries`."""

    entries: dict[str, Entry]

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names, in the order of the table."""
        del ctx
        return list(self.entries)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return as much of the command as help shows; `resolve_command` returns what runs."""
        del ctx
        if (entry := self.entries.get(cmd_name)) is None:
            return None
        return TyperCommand(cmd_name, help=entry.help, rich_help_panel=entry.panel)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """Return the command that the arguments name, imported now."""
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and command is not None:
            command = load_command(name, self.entries[name].target)
        return name, command, rest


def load_command(name: str, target: str) -> Any:
    """Import `module:attribute` and return it as the command `name`."""
    module, _, attribute = target.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if isinstance(found, typer.Typer):
        group = typer.main.get_group(found)
        group.name = name
        return group
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(name)(found)
    return typer.main.get_command(app)
