"""The process that a network hangs on: it starts the nodes, starts again what ends, obeys, and stops all in order.

It owns every node's `NodeLife`. Nodes are forked by the
zygote; when this process ends, however it ends, they end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from kvnet.errors import ConfigError, KvnetError
from kvnet.topology.fields import COORDINATOR, MONITOR
from kvnet.topology.schema import Topology
from nodes import entry
from nodes.bulletin import Bulletin
from nodes.cluster import Identity, RunFolder
from nodes.control import ControlServer
from nodes.life import STARTS_MAX, NodeLife, Phase
from nodes.logs import rotate
from nodes.nursery import Nursery, ZygoteConfig
from nodes.roster import Progress, Roster
from nodes.wan_control import WanControl
from nodes.zygote import ACCEPT_LOSS, RECOVER

FORM_TIMEOUT_S: Final = 60.0
FORM_TIMEOUT_PER_NODE_S: Final = 0.2
STOP_GRACE_S: Final = 5.0
"""What a node has for a clean end before it is killed."""
START_TIMEOUT_S: Final = 30.0
LOG_CHECK_S: Final = 10.0
FLAGS: Final = (ACCEPT_LOSS, RECOVER)


class Reporter(Protocol):
    """Who is told how it goes."""

    def progress(self, progress: Progress) -> None:
        """Something changed before the network was formed."""

    def formed(self, formed_ms: float) -> None:
        """The network is formed, this long after the start."""

    def notice(self, text: str) -> None:
        """Something happened that an operator should know; one line."""


class Supervisor:
    """One running network."""

    def __init__(
        self,
        folder: RunFolder,
        topology: Topology,
        identity: Identity,
        zygote: ZygoteConfig,
        reporter: Reporter,
        *,
        started_s: float,
        flags: Sequence[str] = (),
    ) -> None:
        """Prepare to run `topology` in a claimed and locked folder.

        `started_s` is the monotonic time that `formed_ms` counts from; `flags`, some of FLAGS, go to the
        coordinator at its first start.
        """
        self._folder = folder
        self._config = zygote
        self._reporter = reporter
        self._started_s = started_s
        self._flags = tuple(flags)
        self._roster = Roster(topology)
        self._wan = WanControl(
            topology, folder.secret(), listening=self._roster.listening, on_change=self._on_wan_change
        )
        self._bulletin = Bulletin(
            folder, topology, identity, self._roster, lambda: self._wan.truth, reporter.notice
        )
        self._orders = {name: asyncio.Lock() for name in topology.node_names()}
        self._formed_ms: float | None = None
        self._zygotes_lost = 0
        self._closing = False
        self._hurry = False
        self._changed = asyncio.Event()
        self._stop = asyncio.Event()
        self._failure: KvnetError | None = None
        self._nursery: Nursery | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Run the network until it is told to stop; no node is left afterwards.

        Raises:
            KvnetError: it couldn't be started or didn't form, or no node can be started any more.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a shell's background job: it stays so
                loop.add_signal_handler(number, self._on_stop_signal)
        control = ControlServer(self._handle)
        await control.open(self._folder.control_socket)
        try:
            await self._open_nursery()
            for name, life in self._roster.lives.items():
                life.ordered()
                self._fork(name, *(self._flags if name == COORDINATOR else ()))
            self._watch(self._check_logs())
            self._watch(self._wan.run())
            await self._form()
            await self._stop.wait()
            await self._stop_all()
        finally:
            self._closing = True
            if self._nursery:
                self._nursery.close()
            for task in self._tasks:
                task.cancel()
            await control.close()
            self._folder.control_socket.unlink(missing_ok=True)
            for life in self._roster.lives.values():
                life.pid = life.up_since_ms = None
                life.readers = []
            self._bulletin.close()
        if self._failure:
            raise self._failure

    def on_forked(self, name: str, pid: int) -> None:
        self._roster[name].forked(pid)
        self._note_change()

    def on_said(self, name: str, line: str) -> None:
        life = self._roster[name]
        started = life.phase is Phase.STARTING
        life.said(line, now_s=time.monotonic(), now_ms=time.time() * 1000)
        if started and life.phase is Phase.READY:
            self._wan.started(name)
        self._note_change()

    def on_readers(self, name: str, pids: list[int]) -> None:
        self._roster[name].readers = pids
        self._note_change()

    def on_exited(self, name: str, status: int) -> None:
        life = self._roster[name]
        starting = life.phase is Phase.STARTING
        delay_s = life.exited(status, now_s=time.monotonic())
        if delay_s is not None:
            asyncio.get_running_loop().call_later(delay_s, self._start_again, name)
        code = os.waitstatus_to_exitcode(status)
        forming = self._formed_ms is None and not self._stop.is_set()
        if forming and starting and code in {entry.FAILED, entry.USAGE}:
            # before the network stands, a node that refuses to start means that it can't
            self._fail((ConfigError if code == entry.USAGE else KvnetError)(f"{name}: {life.problem}"))
        elif life.phase is Phase.GIVEN_UP:
            self._signal(name, signal.SIGKILL)  # its readers, which would go on with what they have
            self._reporter.notice(f"{name} is given up after {STARTS_MAX} starts: {life.problem}")
            if forming:
                self._fail(KvnetError(f"{name} can't be started: {life.problem}; see `kvnet logs {name}`"))
        elif life.phase is Phase.WAITING and not self._stop.is_set():
            self._reporter.notice(f"{name} ended by itself ({life.problem}) and is started again")
        self._note_change()

    def on_zygote_lost(self) -> None:
        if self._closing:
            return
        self._zygotes_lost += 1
        for name, life in self._roster.lives.items():
            life.readers = []
            if life.runs:
                self.on_exited(name, signal.SIGKILL)
        if self._zygotes_lost >= STARTS_MAX:
            self._fail(KvnetError("the process that starts the nodes ended too often; see `kvnet logs launcher`"))
        elif not self._stop.is_set():
            self._reporter.notice("the process that starts the nodes ended, and all nodes with it: starting again")
            self._watch(self._open_nursery())

    async def _open_nursery(self) -> None:
        if self._nursery:
            self._nursery.close()
        self._nursery = Nursery.open(self._config)
        self._nursery.set_wan(self._wan.state)
        try:
            self._watch(await self._nursery.listen(self))
        except KvnetError as error:
            if self._formed_ms is None and not any(life.runs for life in self._roster.lives.values()):
                raise
            self._fail(error)

    async def _form(self) -> None:
        """Return when the network is formed or told to stop; one that can't form is stopped."""
        timeout_s = FORM_TIMEOUT_S + FORM_TIMEOUT_PER_NODE_S * len(self._roster.lives)
        if not await self._until(lambda: self._roster.is_formed() or self._stop.is_set(), timeout_s):
            self._fail(KvnetError(f"the network didn't form within {timeout_s:.0f} s: {self._roster.missing()}"))
        elif not self._stop.is_set():
            self._formed_ms = (time.monotonic() - self._started_s) * 1000
            self._bulletin.publish()
            self._reporter.formed(self._formed_ms)

    async def _stop_all(self) -> None:
        """End the edges, then the coordinator, then the monitor; who takes too long is killed."""
        for names in (self._roster.edges, [COORDINATOR], [MONITOR]):
            await self._end(names)

    async def _end(self, names: Sequence[str]) -> None:
        """Return when none of these runs any more."""
        lives = [self._roster[name] for name in names]
        for life in lives:
            life.stopping()
            if life.runs:
                self._signal(life.name, signal.SIGTERM)
        if not await self._until(lambda: self._hurry or not any(life.runs for life in lives), STOP_GRACE_S):
            late = [life.name for life in lives if life.runs]
            self._reporter.notice(f"killing what didn't stop within {STOP_GRACE_S:.0f} s: {', '.join(late)}")
        for life in lives:
            if life.runs or life.readers:
                self._signal(life.name, signal.SIGKILL)
        await self._until(lambda: not any(life.runs or life.readers for life in lives), STOP_GRACE_S)
        self._note_change()

    async def _handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """Obey one request from the control socket."""
        match request:
            case {"command": "status"}:
                return {
                    "pid": os.getpid(),
                    "formed_ms": self._formed_ms,
                    "nodes": [life.as_dict() for life in self._roster.lives.values()],
                }
            case {"command": "down"}:
                self._stop.set()
                self._note_change()
                return {"nodes": sum(life.runs for life in self._roster.lives.values())}
            case {"command": "stop" | "start" | "restart" as order, "node": str(node)}:
                return await self._obey(order, node.lower(), request.get("flags", []))
            case {"command": "wan", **change}:
                return await self._wan.obey(change)
            case _:
                raise ConfigError("unknown command: this launcher is of another version, restart the network")

    async def _obey(self, order: str, name: str, flags: Sequence[str]) -> dict[str, Any]:
        life = self._roster[name]
        if self._stop.is_set():
            raise KvnetError("the network is being stopped")
        if any(flag not in FLAGS for flag in flags):
            raise ConfigError(f"unknown flag: choose from {', '.join(FLAGS)}")
        async with self._orders[name]:
            if order in {"stop", "restart"}:
                await self._end([name])
            if order in {"start", "restart"}:
                await self._start(life, flags)
        return life.as_dict()

    async def _start(self, life: NodeLife, flags: Sequence[str]) -> None:
        if not life.runs:
            life.ordered()
            self._fork(life.name, *flags)
        await self._until(lambda: life.phase is not Phase.STARTING, START_TIMEOUT_S)
        if life.phase is not Phase.READY:
            why = life.problem or "it takes long"
            raise KvnetError(f"{life.name} isn't ready: {why}; see `kvnet logs {life.name}`")

    def _start_again(self, name: str) -> None:
        life = self._roster[name]
        if life.phase is Phase.WAITING and not self._stop.is_set():
            life.restarted()
            self._fork(name)

    def _fork(self, name: str, *flags: str) -> None:
        assert self._nursery is not None
        self._nursery.fork(name, *flags)

    def _signal(self, name: str, number: signal.Signals) -> None:
        assert self._nursery is not None
        self._nursery.signal(name, number)

    def _on_wan_change(self) -> None:
        assert self._nursery is not None
        self._nursery.set_wan(self._wan.state)
        self._bulletin.publish()

    def _on_stop_signal(self) -> None:
        self._hurry = self._stop.is_set()  # asked twice: at once
        self._stop.set()
        self._note_change()

    def _fail(self, error: KvnetError) -> None:
        """Stop the network because of `error`, the first one told."""
        self._failure = self._failure or error
        self._stop.set()

    def _note_change(self) -> None:
        """Wake who waits for a state, and publish the change soon."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if self._formed_ms is None and not self._stop.is_set():
            self._reporter.progress(self._roster.progress())
        self._bulletin.publish_soon()

    async def _until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Whether `condition` came true in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    await self._changed.wait()
        except TimeoutError:
            return condition()
        return True

    async def _check_logs(self) -> None:
        while True:
            await asyncio.sleep(LOG_CHECK_S)
            for name in self._roster.lives:
                rotate(self._folder.log_of(name))

    def _watch(self, work: Any) -> None:
        """Keep a task until it ends; what it raises stops the network."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._fail(error if isinstance(error, KvnetError) else KvnetError(f"the launcher failed: {error!r}"))
            self._note_change()
