"""A network that stays when its starter leaves: its launcher in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from dataclasses import replace
from datetime import datetime
from typing import Any, NoReturn

from kvnet.errors import ConfigError, KvnetError
from nodes import entry
from nodes.launcher import Launch, run
from nodes.life import describe_status
from nodes.roster import Progress
from nodes.supervisor import Reporter
from nodes.zygote import write_line


def run_in_background(launch: Launch, reporter: Reporter) -> None:
    """Return when the network is formed; it runs on until `kvnet down`. Call it before there are threads or loops.

    An interrupt before that stops what was started.

    Raises:
        ConfigError: it can't be started here; nothing was.
        KvnetError: it was started and failed; nothing of it runs any more.
    """
    reports, theirs = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reports)
        _live(replace(launch, in_background=True), theirs)
    os.close(theirs)
    try:
        with os.fdopen(reports, "rb") as lines:
            for line in lines:
                if _pass_on(json.loads(line), reporter):
                    return
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        raise
    _, status = os.waitpid(pid, 0)
    raise KvnetError(f"the launcher {describe_status(status)}; `kvnet logs launcher` may say why")


class _PipeReporter:
    """Tells the starter until the network is formed, and the log for ever."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def progress(self, progress: Progress) -> None:
        self._tell(progress=[progress.up, progress.formed, progress.pops])

    def formed(self, formed_ms: float) -> None:
        self._tell(formed_ms=formed_ms)
        print_notice(f"formed after {formed_ms / 1000:.1f} s")
        self._hang_up()

    def notice(self, text: str) -> None:
        self._tell(notice=text)
        print_notice(text)

    def failed(self, error: KvnetError) -> None:
        self._tell(failed=str(error), usage=isinstance(error, ConfigError))
        if self._descriptor is None:  # the starter didn't hear it, and tell it
            print_notice(str(error))

    def _tell(self, **report: Any) -> None:
        if self._descriptor is not None:
            try:
                write_line(self._descriptor, json.dumps(report))
            except BrokenPipeError:  # the starter left early; the network goes on
                self._hang_up()

    def _hang_up(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def print_notice(text: str) -> None:
    """Write one line with its time to the launcher's log."""
    moment = datetime.now().astimezone().isoformat(timespec="seconds")
    print(f"{moment} {text}", file=sys.stderr, flush=True)  # noqa: T201 - this process's stderr is its log


def _live(launch: Launch, descriptor: int) -> NoReturn:
    """Be the launcher: in the child, never back."""
    status = entry.FAILED
    reporter = _PipeReporter(descriptor)
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        run(launch, reporter)
        status = entry.OK
    except KvnetError as error:
        status = entry.USAGE if isinstance(error, ConfigError) else entry.FAILED
        reporter.failed(error)
    except OSError as error:
        reporter.failed(KvnetError(str(error)))
    except BaseException:  # noqa: BLE001 - nothing may climb back into the starter's program
        traceback.print_exc()
    finally:
        os._exit(status)


def _pass_on(report: dict[str, Any], reporter: Reporter) -> bool:
    """Hand one report to the starter's reporter; whether it was that the network is formed."""
    match report:
        case {"progress": [int(up), int(formed), int(pops)]}:
            reporter.progress(Progress(up, formed, pops))
        case {"notice": str(text)}:
            reporter.notice(text)
        case {"failed": str(text), "usage": usage}:
            raise (ConfigError if usage else KvnetError)(text)
        case {"formed_ms": float(formed_ms)}:
            reporter.formed(formed_ms)
            return True
        case _:
            raise AssertionError(f"the launcher sent {report!r}")
    return False
