"""Which Workers run here: a folder for each in the run folder, locked while it runs.

workers/<name>/running.json     {"name", "pid", "pops": {code: url}} while it runs
workers/<name>/config.capnp     what the runtime reads; it holds a token
workers/<name>/bundle/          what wrangler made, where it had to
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kvnet.errors import ConfigError, KvnetError
from nodes.cluster import WORKERS
from nodes.files import PRIVATE, replace_file

FILE: Final = "running.json"
LOCK: Final = "lock"
FLOCK: Final = struct.Struct("@hhqqi4x")
"""`struct flock` of Linux: type, whence, start, length, and a pid that must be 0."""


@dataclass(frozen=True, slots=True)
class Running:
    """A Worker that runs."""

    name: str
    pid: int
    """Of the kvnet that runs it."""
    pops: Mapping[str, str]
    """Addresses by the PoPs' codes."""


class WorkerFolder:
    """Where one Worker's files are."""

    def __init__(self, data: Path, name: str) -> None:
        self.name = name
        self.path = data / WORKERS / name
        self.configuration = self.path / "config.capnp"
        self.bundle = self.path / "bundle"
        self.running = self.path / FILE

    def make(self) -> None:
        """Have the folder, for its owner alone.

        Raises:
            OSError: the disk refused.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep the name to oneself; at the end nothing of it runs any more.

        Raises:
            ConfigError: a Worker of this name runs.
            OSError: the disk refused.
        """
        self.make()
        lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, PRIVATE)
        try:
            fcntl.fcntl(lock, fcntl.F_OFD_SETLK, _exclusive())
        except BlockingIOError:
            os.close(lock)
            running = read_running(self.running)
            whose = f" by pid {running.pid}" if running else ""
            raise ConfigError(
                f"a Worker called {self.name} is run already{whose}: end it, or choose another --name"
            ) from None
        try:
            self.running.unlink(missing_ok=True)
            yield
        finally:
            self.running.unlink(missing_ok=True)
            os.close(lock)

    def tell(self, pops: Mapping[str, str]) -> Running:
        """Write that the Worker runs, at these addresses.

        Raises:
            OSError: the disk refused.
        """
        running = Running(self.name, os.getpid(), dict(pops))
        document = {"name": running.name, "pid": running.pid, "pops": running.pops}
        replace_file(self.running, json.dumps(document).encode() + b"\n", durable=False)
        return running


def read_running(file: Path) -> Running | None:
    """Return what a file tells of a Worker, None if it doesn't run any more.

    Whether it runs, its lock says: the pid may be another process's by now.
    """
    try:
        told = json.loads(file.read_bytes())
        running = Running(str(told["name"]), int(told["pid"]), dict(told["pops"]))
        return running if _is_locked(file.with_name(LOCK)) else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _is_locked(file: Path) -> bool:
    """Whether somebody holds the lock, asked without taking it: who looks must not keep others from starting."""
    with file.open("rb+") as lock:
        found = FLOCK.unpack(fcntl.fcntl(lock, fcntl.F_OFD_GETLK, _exclusive()))
    return bool(found[0] != fcntl.F_UNLCK)


def _exclusive() -> bytes:
    """Return what describes a lock on a whole file; it belongs to the open file, not to the process."""
    return FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def find_running(data: Path, name: str | None) -> Running:
    """Return the Worker called `name`, or the only one that runs.

    Raises:
        ConfigError: several run and none is named.
        KvnetError: none runs, or none of that name.
    """
    found = [running for file in sorted((data / WORKERS).glob(f"*/{FILE}")) if (running := read_running(file))]
    names = ", ".join(running.name for running in found)
    if not found:
        raise KvnetError("no Worker runs here: `kvnet workers dev SCRIPT` starts one")
    if name is None:
        if len(found) > 1:
            raise ConfigError(f"several Workers run here: choose one with --worker ({names})")
        return found[0]
    for running in found:
        if running.name == name:
            return running
    raise KvnetError(f"no Worker called {name!r} runs here: those that do are {names}")
