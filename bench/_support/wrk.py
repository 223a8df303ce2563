"""wrk and redis-benchmark: load from one core, as many requests as a few connections carry, kept alive."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kvnet.errors import ConfigError, KvnetError
from nodes.procfs import cpu_seconds

_UNITS_MS: Final = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
_UNITS_BYTES: Final = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
_PERCENTILE: Final = re.compile(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s|m)$", re.MULTILINE)
_RATE: Final = re.compile(r"^Requests/sec:\s+([\d.]+)$", re.MULTILINE)
_COUNT: Final = re.compile(r"^\s+(\d+) requests in", re.MULTILINE)
_BYTES: Final = re.compile(r"^Transfer/sec:\s+([\d.]+)(B|KB|MB|GB)$", re.MULTILINE)
_BAD: Final = re.compile(r"Non-2xx or 3xx responses: (\d+)|Socket errors: .*")


@dataclass(frozen=True, slots=True)
class Load:
    """What one run saw."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    bytes_per_s: float
    """Of answers, heads included."""
    requests_per_cpu_s: float
    """By the seconds of a processor that the server used; 0 where its process isn't named."""


def find_wrk() -> str:
    """Return the program.

    Raises:
        ConfigError: it isn't installed.
    """
    program = shutil.which("wrk")
    if program is None:
        raise ConfigError("wrk isn't installed: `apt-get install wrk`, or your system's way to it")
    return program


def load(
    url: str,
    *,
    seconds: float,
    connections: int,
    headers: Mapping[str, str] | None = None,
    script: tuple[Path, Sequence[str]] | None = None,
    pid: int | None = None,
    core: int | None = None,
    missing: bool = False,
) -> Load:
    """Return what `url` does under this load, from one thread, on `core` if one is given.

    `script` and its arguments make other requests than one GET; `pid` is the process that answers. Where all that
    is asked for is `missing`, answers of other statuses count as well.

    Raises:
        KvnetError: some answers failed, or none came.
    """
    command = [find_wrk(), "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    command += [f"-H{name}: {value}" for name, value in (headers or {}).items()]
    arguments: Sequence[str] = ()
    if script is not None:
        command += ["-s", str(script[0])]
        arguments = ["--", *script[1]]
    before_s = (cpu_seconds(pid) or 0.0) if pid is not None else 0.0
    told = _run([*command, url, *arguments], core)
    used_s = (cpu_seconds(pid) or 0.0) - before_s if pid is not None else 0.0
    rate, count, size, bad = (pattern.search(told) for pattern in (_RATE, _COUNT, _BYTES, _BAD))
    if rate is None or count is None or size is None or (bad is not None and not (missing and bad[1])):
        raise KvnetError(f"{url} under load: {bad[0] if bad else told}")
    percentiles = {percent: float(number) * _UNITS_MS[unit] for percent, number, unit in _PERCENTILE.findall(told)}
    return Load(
        float(rate[1]),
        percentiles["50"],
        percentiles["99"],
        float(size[1]) * _UNITS_BYTES[size[2]],
        int(count[1]) / used_s if used_s else 0.0,
    )


def redis_load(
    port: int, *, requests: int, connections: int, keys: int | None, pid: int, core: int | None
) -> Load:
    """Return what Redis does with so many GETs without pipelining, of `hot` or of keys at random.

    Raises:
        ConfigError: redis-benchmark isn't installed.
        KvnetError: it failed.
    """
    program = shutil.which("redis-benchmark")
    if program is None:
        raise ConfigError("redis-benchmark isn't installed: `apt-get install redis-tools`")
    command = [program, "-p", str(port), "-c", str(connections), "-n", str(requests), "--csv", "--precision", "3"]
    command += ["GET", "hot"] if keys is None else ["-r", str(keys), "GET", "key:__rand_int__"]
    before_s = cpu_seconds(pid) or 0.0
    told = _run(command, core)
    used_s = (cpu_seconds(pid) or 0.0) - before_s
    row = list(csv.DictReader(told.splitlines()))[-1]
    rate = float(row["rps"])
    return Load(rate, float(row["p50_latency_ms"]), float(row["p99_latency_ms"]), rate * 108, requests / used_s)


def _run(command: Sequence[str], core: int | None) -> str:
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=None if core is None else lambda: os.sched_setaffinity(0, {core}),
    )
    if ended.returncode:
        raise KvnetError(f"{' '.join(command[:6])} …: {ended.stdout}{ended.stderr}")
    return ended.stdout
