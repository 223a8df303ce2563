"""Files that are whole at every moment: written beside the old one, then put in its place."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Final

PRIVATE: Final = 0o600


def replace_file(path: Path, content: bytes, *, durable: bool) -> None:
    """Put `content` in the place of `path`, readable by its owner alone; a reader sees the old or the new file.

    `durable` also survives a power cut from here on; without it the file may be the older one then.

    Raises:
        OSError: the disk refused; the old file is untouched.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE), "wb") as file:  # noqa: PTH123
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def store_folder(node_folder: Path) -> Path:
    """Where a node keeps its replica."""
    return node_folder / "store"


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_to_log(path: Path) -> None:
    """Append this process's output and errors to `path` from here on, line by line.

    Raises:
        OSError: the disk refused; they go where they went.
    """
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE)
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        stream.flush()
        os.dup2(log, number)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    os.close(log)
