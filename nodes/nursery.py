"""The supervisor's side of the zygote: start it, have nodes forked and signalled, hear what becomes of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from kvnet.errors import KvnetError
from kvnet.topology.wan_state import WanState
from nodes.zygote import write_line

_ROOT: Final = str(Path(__file__).parents[1])
_PROGRAM: Final = "import sys; sys.path.append({root!r}); from nodes.zygote import main; main()"
_LINE_BYTES_MAX: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class ZygoteConfig:
    """What the zygote must know; everything else it reads in the run folder."""

    data: Path
    mains: Mapping[str, str]
    """Role to `module:function`."""
    secret_file: Path | None = None
    log_level: str = "info"

    def as_json(self) -> str:
        return json.dumps(
            {
                "data": str(self.data),
                "mains": dict(self.mains),
                "secret_file": str(self.secret_file) if self.secret_file else None,
                "log_level": self.log_level,
            }
        )


class Listener(Protocol):
    """Who hears of the nodes; called in the order of events."""

    def on_forked(self, name: str, pid: int) -> None: ...
    def on_said(self, name: str, line: str) -> None: ...
    def on_readers(self, name: str, pids: list[int]) -> None:
        """The node's readers are these processes."""

    def on_exited(self, name: str, status: int) -> None:
        """A node ended; `status` is waitpid's."""

    def on_zygote_lost(self) -> None:
        """The zygote ended and all nodes with it; nothing more comes from it."""


class Nursery:
    """A running zygote."""

    def __init__(self, process: subprocess.Popen[bytes], commands: int, reports: int) -> None:
        self._process = process
        self._commands = commands
        self._reports = reports

    @classmethod
    def open(cls, config: ZygoteConfig) -> Nursery:
        """Start a zygote, from the main thread; `listen` waits until it has imported everything.

        It has a session of its own, so that the terminal's Ctrl-C reaches the supervisor alone.
        """
        commands_theirs, commands = os.pipe()
        reports, reports_theirs = os.pipe()
        arguments = [str(commands_theirs), str(reports_theirs), str(os.getpid()), config.as_json()]
        # -P: the working folder is the user's, its modules are none of ours
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and program
            [sys.executable, "-P", "-c", _PROGRAM.format(root=_ROOT), *arguments],
            pass_fds=(commands_theirs, reports_theirs),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(commands_theirs)
        os.close(reports_theirs)
        return cls(process, commands, reports)

    async def listen(self, listener: Listener) -> asyncio.Task[None]:
        """Return, once the zygote serves, the task that passes its reports to `listener` until it ends.

        Raises:
            KvnetError: it can't serve.
        """
        reader = asyncio.StreamReader(limit=_LINE_BYTES_MAX)
        loop = asyncio.get_running_loop()
        pipe = os.fdopen(self._reports, "rb", buffering=0)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        match (await reader.readline()).decode().strip().partition(" "):
            case ("started", _, _):
                return loop.create_task(self._pass_on(reader, listener))
            case ("broken", _, message):
                raise KvnetError(message)
            case _:
                raise KvnetError("the process that starts the nodes ended before it began; its story is above")

    def fork(self, name: str, *flags: str) -> None:
        """Have a node forked; the listener hears its pid, or its end when that was impossible."""
        self._command(" ".join(("fork", name, *flags)))

    def signal(self, name: str, number: signal.Signals) -> None:
        """Signal a node; when it has ended, its readers are killed."""
        self._command(f"signal {name} {int(number)}")

    def set_wan(self, state: WanState) -> None:
        """Give this state of the WAN to every node forked from here on."""
        self._command(f"wan {json.dumps(state.to_dict(), separators=(',', ':'))}")

    def close(self) -> None:
        """End the zygote and every node that still runs; return when they are gone."""
        with contextlib.suppress(OSError):
            os.close(self._commands)
        self._process.wait()

    def _command(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # it is gone: the listener hears that from the other pipe
            write_line(self._commands, line)

    @staticmethod
    async def _pass_on(reader: asyncio.StreamReader, listener: Listener) -> None:
        while line := (await reader.readline()).decode().rstrip("\n"):
            kind, name, rest = line.split(" ", 2)
            match kind:
                case "pid":
                    listener.on_forked(name, int(rest))
                case "said":
                    listener.on_said(name, rest)
                case "readers":
                    listener.on_readers(name, [] if rest == "-" else [int(pid) for pid in rest.split(",")])
                case "exit":
                    listener.on_exited(name, int(rest.split()[1]))
                case _:
                    raise AssertionError(f"the zygote sent {line!r}")
        listener.on_zygote_lost()
