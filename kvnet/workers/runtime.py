"""Where workerd is: the runtime of Workers, one program that npm installs."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from kvnet.errors import ConfigError

INSTALL: Final = "npm install --save-dev workerd"
IN_PROJECT: Final = Path("node_modules") / ".bin" / "workerd"
VERSION_S: Final = 10.0
_ELF: Final = b"\x7fELF"
_PACKAGE: Final = {"x86_64": "workerd-linux-64", "aarch64": "workerd-linux-arm64"}
_VERSION: Final = re.compile(r"\d{4}-\d{2}-\d{2}")


def find_workerd(named: Path | None, folders: Iterable[Path], search_path: str | None) -> Path:
    """Return the program: the one that is named, else of a folder or one above it, else of the search path.

    Raises:
        ConfigError: there is none, or what is named can't be run; names the command that installs it.
    """
    if named is not None:
        if not os.access(named, os.X_OK) or not named.is_file():
            raise ConfigError(f"{named} is not a program: name workerd itself, or install it with `{INSTALL}`")
        return _program(named)
    for folder in folders:
        for place in (folder.resolve(), *folder.resolve().parents):
            if os.access(place / IN_PROJECT, os.X_OK):
                return _program(place / IN_PROJECT)
    found = shutil.which("workerd", path=search_path)
    if found is None:
        raise ConfigError(f"workerd, which runs Workers, is not here: install it with `{INSTALL}`")
    return _program(Path(found))


def version_of(program: Path) -> str:
    """Return the day of the runtime's release, `2026-11-17`: a compatibility date that it knows.

    Raises:
        ConfigError: the program doesn't run, or isn't workerd.
    """
    try:
        told = subprocess.run(  # noqa: S603 - the program that its user chose
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=VERSION_S,
            check=False,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(f"{program} doesn't run ({error}): install workerd anew with `{INSTALL}`") from None
    date = _VERSION.search(told)
    if date is None:
        raise ConfigError(f"{program} is not workerd: install it with `{INSTALL}`")
    return date[0]


def _program(found: Path) -> Path:
    """Return the program itself: npm may have put a script there that only starts it, and can't end with us."""
    program = found.resolve()
    if _is_binary(program):
        return program
    package = Path("@cloudflare") / _PACKAGE.get(platform.machine(), "") / "bin" / "workerd"
    for folder in program.parents:
        for candidate in (folder / package, folder / "node_modules" / package):
            if candidate.is_file() and _is_binary(candidate):
                return candidate
    raise ConfigError(f"{found} is a script without its program: install workerd anew with `{INSTALL}`")


def _is_binary(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_ELF)) == _ELF
    except OSError as error:
        raise ConfigError(
            f"{path} can't be read ({error.strerror}): install workerd anew with `{INSTALL}`"
        ) from None
