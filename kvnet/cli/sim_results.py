"""The file of `kvnet sim --swarm --resume`: what came of each run, a JSON line each, so that a swarm can go on."""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec
from msgspec import Struct

from kvnet import __version__
from kvnet.errors import ConfigError
from kvnet.simulator.swarm import Mode
from kvnet.simulator.watched import Outcome
from kvnet.topology.schema import Topology

FORMAT: Final = "kvnet sim --swarm"
BEGINNING: Final = b'{"results_of":'


class Line(Struct, frozen=True, kw_only=True):
    """One run."""

    results_of: str
    """FORMAT, so that no other file is taken for one of these."""
    kvnet: str
    """The version that ran it."""
    world: str
    """What else decides a run, beside seed and mode, as a hash."""
    outcome: Outcome


def world_id(network: Topology, pops: int | None, loss: float | None, tcp: str) -> str:
    """Return a hash of all that decides what comes of a seed, but for the code."""
    told = msgspec.json.encode([msgspec.to_builtins(network), pops, loss, tcp])
    return blake2b(told, digest_size=8).hexdigest()


class Results:
    """The file, while runs are added to it."""

    def __init__(self, path: Path, world: str) -> None:
        """Read what is there.

        Raises:
            ConfigError: it can't be read or written, or is a file of another kind.
        """
        self.path = path
        self.known: dict[tuple[int, Mode], Outcome] = {}
        """What came of the runs of this version and world."""
        self.others = 0
        """Runs of another version or world."""
        self._world = world
        try:
            data = path.read_bytes() if path.exists() else b""
            *lines, rest = data.split(b"\n")
            for number, text in enumerate(lines, 1):
                self._read(text, number)
            self._file = path.open("r+b" if path.exists() else "x+b")
        except OSError as error:
            raise ConfigError(f"--resume {path}: {error.strerror}; name a file that can be written") from None
        if not BEGINNING.startswith(rest[: len(BEGINNING)]):
            self._file.close()
            raise self._foreign(len(lines) + 1)
        self._file.truncate(len(data) - len(rest))  # a run that was cut off while it was written
        self._file.seek(0, os.SEEK_END)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, outcome: Outcome) -> None:
        """Write down what came of a run."""
        line = Line(results_of=FORMAT, kvnet=__version__, world=self._world, outcome=outcome)
        self._file.write(msgspec.json.encode(line) + b"\n")
        self._file.flush()
        self.known[outcome.seed, outcome.mode] = outcome

    def of(self, runs: Iterable[tuple[int, Mode]]) -> list[Outcome]:
        """Return what came of those of these runs that are known."""
        return [self.known[run] for run in runs if run in self.known]

    def _read(self, text: bytes, number: int) -> None:
        try:
            line = msgspec.json.decode(text, type=Line)
        except msgspec.DecodeError:
            raise self._foreign(number) from None
        if line.results_of != FORMAT:
            raise self._foreign(number)
        if (line.kvnet, line.world) == (__version__, self._world):
            self.known[line.outcome.seed, line.outcome.mode] = line.outcome
        else:
            self.others += 1

    def _foreign(self, number: int) -> ConfigError:
        return ConfigError(
            f"--resume {self.path}: line {number} is not a result of a swarm; name a new file, or one that "
            "--resume has made"
        )
