"""`kvnet workers dev` as a process, and requests to the Workers it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tests.support.network import DEADLINE_S, PROGRAM, ROOT

POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Dev:
    """One `kvnet workers dev --json`."""

    def __init__(self, arguments: Sequence[Any], folder: Path, environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as heard:
            self._process = subprocess.Popen(
                [*PROGRAM, "workers", "dev", "--json", *map(str, arguments)],
                cwd=folder,
                env={**environment, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=heard,
                text=True,
            )
        self.told: dict[str, Any] = {}

    def ready(self) -> Dev:
        """Wait until the Worker answers."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, f"it ended with {self.ended()}:\n{self.heard()}"
        self.told = json.loads(line)
        return self

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def codes(self) -> list[str]:
        return list(self.told["pops"])

    def url(self, at: str | None = None) -> str:
        """Return the Worker's address at a PoP, or at the first."""
        return str(self.told["pops"][at or self.codes[0]]["url"])

    def heard(self) -> str:
        """Return what was written to standard error so far."""
        return self._log.read_text()

    def ask(
        self, path: str, *, at: str | None = None, method: str = "GET", body: str | None = None, **headers: str
    ) -> Answer:
        """Return one Worker's answer."""
        where = urlsplit(self.url(at))
        connection = HTTPConnection(str(where.hostname), where.port, timeout=DEADLINE_S)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, None if body is None else body.encode(), sent)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read().decode())
        finally:
            connection.close()

    def until_answer(self, text: str, path: str = "/", *, at: str | None = None) -> None:
        """Wait until a Worker answers so."""
        self.until(lambda: self.ask(path, at=at).text == text, f"{text!r} is answered")

    def until_heard(self, text: str) -> None:
        """Wait until standard error has this in it."""
        self.until(lambda: text in self.heard(), f"{text!r} is heard")

    def until(self, condition: Any, what: str) -> None:
        give_up = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < give_up, f"never happened: {what}\n{self.heard()}"
            time.sleep(POLL_S)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def ended(self) -> int:
        """Wait for the end, and return the exit code."""
        return self._process.wait(DEADLINE_S)

    def close(self) -> None:
        if self._process.poll() is None:
            self.signal(signal.SIGTERM)
            self.ended()
        if self._process.stdout:
            self._process.stdout.close()


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started and that haven't ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # ended at this moment
            continue
        if fields[0] != "Z" and int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
