"""Unix sockets in a run folder, however deep that folder is: a socket's address has room for 108 bytes only."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Give `path` a name that fits, for as long as the context lasts."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def bound_socket(path: Path, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """Return a socket at `path` that only its owner may speak to.

    Whoever calls has locked the folder: a socket that is there already is a dead process's.

    Raises:
        OSError: it can't be made there.
    """
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, kind)
    mask = os.umask(0o177)
    try:
        with short_path(path) as name:
            made.bind(name)
    except OSError:
        made.close()
        raise
    finally:
        os.umask(mask)
    return made
