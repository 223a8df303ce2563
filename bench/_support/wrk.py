"""wrk, a load generator in C: as many requests as a few connections carry, kept alive."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kvnet.errors import ConfigError, KvnetError

_UNITS_MS: Final = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
_PERCENTILE: Final = re.compile(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s|m)$", re.MULTILINE)
_RATE: Final = re.compile(r"^Requests/sec:\s+([\d.]+)$", re.MULTILINE)
_BAD: Final = re.compile(r"Non-2xx or 3xx responses: (\d+)|Socket errors: .*")


@dataclass(frozen=True, slots=True)
class Load:
    """What one run saw."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float


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
    url: str, *, seconds: int, connections: int, headers: Mapping[str, str] | None = None, threads: int = 1
) -> Load:
    """Return what `url` does under this load.

    Raises:
        KvnetError: some answers failed, or none came.
    """
    told = [f"-H{name}: {value}" for name, value in (headers or {}).items()]
    command = [find_wrk(), f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--latency", *told, url]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    rate = _RATE.search(ended.stdout)
    bad = _BAD.search(ended.stdout)
    if ended.returncode or rate is None or bad is not None:
        raise KvnetError(f"{url} under load: {bad[0] if bad else ended.stdout + ended.stderr}")
    percentiles = {
        percent: float(number) * _UNITS_MS[unit] for percent, number, unit in _PERCENTILE.findall(ended.stdout)
    }
    return Load(float(rate[1]), percentiles["50"], percentiles["99"])
