"""A project: the Worker's script and what it is given, from one file or from wrangler's configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kvnet.errors import ConfigError

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
VARIABLE: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
PLAIN: Final = frozenset({".js", ".mjs"})
"""What the runtime takes as it stands."""
BUNDLED: Final = frozenset({".ts", ".mts", ".tsx", ".jsx"})
"""What has to become plain first."""


@dataclass(frozen=True, slots=True)
class KvBinding:
    """One of `kv_namespaces`."""

    name: str
    """The variable in `env`."""
    id: str | None = None
    """32 hex digits."""
    preview_id: str | None = None

    def chosen_id(self, *, preview: bool) -> str | None:
        """Return the id to use; None for a namespace that is titled as the binding."""
        return self.preview_id or self.id if preview else self.id or self.preview_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """One Worker as its author describes it."""

    name: str
    main: Path
    folder: Path
    """Where the author works: that of the configuration, or else of the script."""
    config: Path | None = None
    """Wrangler's configuration, if there is one."""
    compatibility_date: str | None = None
    compatibility_flags: tuple[str, ...] = ()
    kv_namespaces: tuple[KvBinding, ...] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)
    """By their name in `env`: text as it is, everything else as JSON."""
    bundling: str | None = None
    """Why the script can't run as it stands, as far as its configuration tells."""
    warnings: tuple[str, ...] = ()
    """A line for each thing that was asked for and isn't provided here."""


def from_script(script: Path) -> Project:
    """Return the project of a script that stands alone.

    Raises:
        ConfigError: there is no such file, or it isn't JavaScript or TypeScript.
    """
    check_script(script, "the script")
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", script.stem).strip("-_")[:63] or "worker"
    return Project(name=name, main=script, folder=script.parent, bundling=why_bundled(script))


def check_script(script: Path, what: str) -> None:
    """Return if `script` is a file that can become a Worker.

    Raises:
        ConfigError: it can't; the text begins with `what`.
    """
    if script.suffix == ".py":
        raise ConfigError(f"{what} {script} is Python, which isn't run here: write the Worker in JavaScript")
    if not script.is_file():
        raise ConfigError(f"{what} {script} is not a file: name one that ends in .js, .mjs or .ts")
    if script.suffix not in PLAIN | BUNDLED:
        raise ConfigError(f"{what} {script} is not a script: name one that ends in .js, .mjs or .ts")


def why_bundled(script: Path) -> str | None:
    """Return why a script has to be bundled, as far as its name tells."""
    return f"{script.name} is not plain JavaScript" if script.suffix in BUNDLED else None


def check_name(name: str) -> str:
    """Return the name of a Worker if it can be a folder's.

    Raises:
        ConfigError: it can't.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"a Worker can't be called {name!r}: use up to 63 letters, digits, - and _, a letter or digit first"
        )
    return name
