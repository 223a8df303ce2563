"""What Linux tells about processes, ports and memory; None or 0 where it tells this user nothing."""

from __future__ import annotations

import ctypes
import os
import re
import struct
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_LISTENING: Final = "0A"
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_PSS: Final = re.compile(rb"^Pss:\s+(\d+) kB", re.MULTILINE)
_ANONYMOUS: Final = re.compile(rb"^RssAnon:\s+(\d+) kB", re.MULTILINE)
_AVAILABLE: Final = re.compile(rb"^MemAvailable:\s+(\d+) kB", re.MULTILINE)
_TIMEX: Final = struct.Struct("@lli")
"""Of struct timex: maximum and estimated error in microseconds, status."""
_TIMEX_OFFSET: Final = 3 * struct.calcsize("l")
_TIME_ERROR: Final = 5
_STA_UNSYNC: Final = 0x40


def pss_bytes(pid: int) -> int | None:
    """Return the process's memory, each shared page divided by its sharers."""
    found = _PSS.search(_read(_PROC / str(pid) / "smaps_rollup"))
    return int(found[1]) * 1024 if found else None


def anonymous_bytes(pid: int) -> int | None:
    """Return the memory that is the process's own: no file's pages, none that others share by a file."""
    found = _ANONYMOUS.search(_read(_PROC / str(pid) / "status"))
    return int(found[1]) * 1024 if found else None


def cpu_seconds(pid: int) -> float | None:
    """Return the processor time that the process has used so far."""
    stat = _read(_PROC / str(pid) / "stat")
    if not stat:
        return None
    fields = stat.rpartition(b")")[2].split()  # the name before it may hold anything
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def memory_available_bytes() -> int | None:
    """Return what new processes can use without swapping, of the machine or of the control group we are in."""
    found = _AVAILABLE.search(_read(_PROC / "meminfo"))
    machine = int(found[1]) * 1024 if found else None
    group = _group_available()
    return min((value for value in (machine, group) if value is not None), default=None)


def files_free() -> int | None:
    """Return how many more files the whole machine can have open."""
    fields = _read(_PROC / "sys" / "fs" / "file-nr").split()
    return int(fields[2]) - int(fields[0]) if len(fields) == 3 else None


def listener_of(port: int) -> tuple[int, str] | None:
    """Return pid and name of the process that listens on a TCP port, if this user may see it."""
    sockets = {
        f"socket:[{fields[9].decode()}]"
        for table in ("tcp", "tcp6")
        for line in _read(_PROC / "net" / table).splitlines()[1:]
        if (fields := line.split())[3].decode() == _LISTENING and int(fields[1].rpartition(b":")[2], 16) == port
    }
    if not sockets:
        return None
    for process in _PROC.iterdir():
        if process.name.isdecimal() and sockets & _links(process / "fd"):
            return int(process.name), command_of(int(process.name))
    return None


def command_of(pid: int) -> str:
    """Return the first words of the process's command line, empty when there is no such process."""
    words = _read(_PROC / str(pid) / "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
    return words if len(words) <= 60 else words[:59] + "…"


def clock_error_ms() -> float | None:
    """Return by how much the clock may be wrong at most; None when nothing keeps it right."""
    timex = ctypes.create_string_buffer(256)  # struct timex, all zero: only read
    state = ctypes.CDLL(None).adjtimex(timex)
    maximum_us, _, status = _TIMEX.unpack_from(timex, _TIMEX_OFFSET)
    unsynchronised = state == _TIME_ERROR or status & _STA_UNSYNC
    return None if unsynchronised else maximum_us / 1000


def _group_available() -> int | None:
    """What is left below the memory limit of our control group (version 2)."""
    path = _read(_PROC / "self" / "cgroup").decode().partition("0::")[2].strip().lstrip("/")
    group = Path("/sys/fs/cgroup") / path
    limit, used = _read(group / "memory.max").strip(), _read(group / "memory.current").strip()
    return int(limit) - int(used) if limit.isdigit() and used.isdigit() else None


def _links(folder: Path) -> set[str]:
    found: set[str] = set()
    try:
        entries = list(folder.iterdir())
    except OSError:  # another user's process, or one that has just ended
        return found
    for entry in entries:
        try:
            found.add(str(entry.readlink()))
        except OSError:
            continue
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
