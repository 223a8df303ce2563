"""What a result depends on besides the question: commit, host, versions, time."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("aiohttp", "lmdb", "msgpack", "uvloop")


def surroundings() -> dict[str, Any]:
    """Return commit (with `+` when files are changed), host and versions, for a result's JSON."""
    return {
        "commit": _commit(),
        "host": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str:
    commit = _git("rev-parse", "--short", "HEAD")
    return (commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")) or "unknown"


def _git(*arguments: str) -> str:
    try:
        told = subprocess.run(
            ["git", *arguments],  # noqa: S607 - git is found as in any shell
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parent,
        )
    except OSError:
        return ""
    return told.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
