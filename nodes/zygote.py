"""The process that forks the nodes: everything imported once, no loop, no threads, no sockets, no database.

Each node shares the memory of all that is imported here and starts in a millisecond. The supervisor
(nodes/nursery.py) starts it and speaks with it over two pipes, in lines:

    to it      fork NAME [accept-loss] [recover]     signal NAME NUMBER
               wan JSON                              the state of the WAN for nodes forked from here on
    from it    started                               all is imported
               broken MESSAGE                        it can't serve, and ends
               pid NAME PID                          a node was forked
               said NAME LINE                        what the node wrote to its ready_fd
               exit NAME PID STATUS                  a node ended; the status is waitpid's
               readers NAME PID,PID…                 the node's readers are these; - for none

A node's readers are forked beside it, and again when they die. They outlive a node that dies, which comes back to
them, but not one that was ended by order; a signal to a node that has ended is for them.

The end of the first pipe means that the supervisor is gone: then all nodes are killed. The kernel does the same
for a supervisor or a zygote that is killed itself.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import random
import select
import signal
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NoReturn

import setproctitle

from kvnet.errors import KvnetError
from kvnet.topology.wan_state import WanState
from nodes import entry, reader
from nodes.brood import Brood
from nodes.cluster import RunFolder
from nodes.context import NodeContext
from nodes.parent import die_with_parent
from nodes.preflight import raise_file_limit
from nodes.roles import EDGE, NodeMain, load_main, role_of

ACCEPT_LOSS: Final = "accept-loss"
RECOVER: Final = "recover"
_READ_BYTES: Final = 65_536
_PRELOADED: Final = ("aiohttp.web", "asyncio", "encodings.idna", "lmdb", "msgpack", "uvloop")
"""What nodes import late, or at their first connection."""


@dataclass(slots=True)
class Child:
    """A forked node that has not been reaped."""

    name: str
    pid: int
    ready_fd: int
    """Our end of what it says."""
    unread: bytes = b""
    """The beginning of a line."""


class Zygote:
    """Forks on request and tells what becomes of its children."""

    def __init__(
        self,
        commands: int,
        reports: int,
        folder: RunFolder,
        context: NodeContext,
        mains: Mapping[str, NodeMain],
    ) -> None:
        """Serve the pipes `commands` and `reports`; every node's context is `context` with a name of its own."""
        self._commands = commands
        self._reports = reports
        self._folder = folder
        self._context = context
        self._mains = mains
        self._pid = os.getpid()
        self._children: dict[int, Child] = {}
        self._by_ready_fd: dict[int, Child] = {}
        self._brood = Brood(self._become_reader, self._on_readers)
        self._ordered: set[str] = set()
        """Nodes that were told to end."""
        self._unread = b""
        self._poll = select.poll()
        self._wakeup, wakeup_writer = os.pipe()
        os.set_blocking(wakeup_writer, False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)  # without a handler nothing wakes the poll
        signal.set_wakeup_fd(wakeup_writer, warn_on_full_buffer=False)
        for descriptor in (commands, self._wakeup):
            self._poll.register(descriptor, select.POLLIN)

    def serve(self) -> None:
        """Work until the supervisor closes its pipe; no child is left afterwards."""
        self._report("started")
        while True:
            wait_s = self._brood.wait_s()
            ready = [descriptor for descriptor, _ in self._poll.poll(None if wait_s is None else wait_s * 1000)]
            self._brood.fork_due()
            for descriptor in ready:
                if child := self._by_ready_fd.get(descriptor):
                    self._listen(child)
            if self._wakeup in ready:
                os.read(self._wakeup, _READ_BYTES)
                self._reap()
            if self._commands in ready and not self._obey():
                break
        pids = [*self._children, *self._brood.pids]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            os.waitpid(pid, 0)

    def _obey(self) -> bool:
        received = os.read(self._commands, _READ_BYTES)
        *lines, self._unread = (self._unread + received).split(b"\n")
        for line in lines:
            match line.decode().split():
                case ["fork", name, *flags]:
                    self._fork(name, flags)
                case ["signal", name, number]:
                    self._signal(name, int(number))
                case ["wan", state]:
                    self._context = replace(self._context, wan_state=WanState.from_dict(json.loads(state)))
                case _:
                    raise AssertionError(f"the supervisor sent {line!r}")
        return bool(received)

    def _fork(self, name: str, flags: list[str]) -> None:
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        try:
            pid = os.fork()
        except OSError as error:
            os.close(ours)
            os.close(theirs)
            self._report(
                f"said {name} failed can't fork: {error.strerror}; choose fewer --pops or raise `ulimit -u`"
            )
            self._report(f"exit {name} 0 {entry.FAILED << 8}")
            return
        if pid == 0:
            self._become(name, flags, theirs)
        os.close(theirs)
        child = Child(name, pid, ours)
        self._children[pid] = self._by_ready_fd[ours] = child
        self._poll.register(ours, select.POLLIN)
        self._report(f"pid {name} {pid}")
        self._ordered.discard(name)
        self._brood.ensure(name, self._context.topology.readers_of(name))

    def _signal(self, name: str, number: int) -> None:
        """Signal a node by name: its pid can't be another's before we have reaped it."""
        found = [child.pid for child in self._children.values() if child.name == name]
        if not found:
            self._brood.end(name)
            return
        self._ordered.add(name)
        self._brood.keep_ended(name)
        for pid in found:
            os.kill(pid, number)

    def _reap(self) -> None:
        while self._children or self._brood.pids:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if self._brood.reaped(pid, status):
                continue
            child = self._children.pop(pid)
            self._listen(child)  # what it said last comes before its end
            if child.ready_fd in self._by_ready_fd:
                self._hang_up(child)
            if child.name in self._ordered:
                self._brood.end(child.name)
            self._report(f"exit {child.name} {pid} {status}")

    def _listen(self, child: Child) -> None:
        if child.ready_fd not in self._by_ready_fd:
            return
        try:
            received = os.read(child.ready_fd, _READ_BYTES)
        except BlockingIOError:  # it ended without a last word, and a child of its own holds the pipe
            return
        *lines, child.unread = (child.unread + received).split(b"\n")
        for line in lines:
            self._report(f"said {child.name} {line.decode(errors='replace')}")
        if not received:
            self._hang_up(child)

    def _hang_up(self, child: Child) -> None:
        self._poll.unregister(child.ready_fd)
        del self._by_ready_fd[child.ready_fd]
        os.close(child.ready_fd)

    def _report(self, line: str) -> None:
        write_line(self._reports, line)

    def _on_readers(self, name: str, pids: list[int]) -> None:
        self._report(f"readers {name} {','.join(map(str, pids)) or '-'}")

    def _become(self, name: str, flags: list[str], ready_fd: int) -> NoReturn:
        """Be the node: in the child, never back."""
        self._be(name, self._mains[role_of(name)], self._context_of(name, flags, ready_fd), name)

    def _become_reader(self, name: str, number: int) -> NoReturn:
        """Be a node's reader: in the child, never back."""
        self._be(name, reader.main, self._context_of(name, [], None), f"{name} reader {number}")

    def _be(self, name: str, main: NodeMain, context: NodeContext, title: str) -> NoReturn:
        status = entry.FAILED
        try:
            die_with_parent(self._pid)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            kept = 2 if context.ready_fd is None else context.ready_fd
            os.closerange(3, kept)
            os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))
            setproctitle.setproctitle(f"kvnet: {title}")
            random.seed()
            gc.enable()
            if role_of(name) == EDGE:
                _take_turns()
            if entry.open_log(context, self._folder.log_of(name)):
                status = entry.run_node(main, context)
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:  # noqa: BLE001 - nothing may climb back into the zygote's loop
            traceback.print_exc()
        finally:
            os._exit(status)

    def _context_of(self, name: str, flags: list[str], ready_fd: int | None) -> NodeContext:
        return replace(
            self._context,
            name=name,
            folder=self._folder.node_folder(name),
            tokens=None if role_of(name) == EDGE else self._context.tokens,
            accept_loss=ACCEPT_LOSS in flags,
            recover=RECOVER in flags,
            ready_fd=ready_fd,
        )


def _take_turns() -> None:
    """Let no edge that wakes interrupt another: with many to a core, each would evict the other's caches.

    At 152 edges on two cores and 20 writes a second this took a third off the 99th percentile of convergence.
    """
    with contextlib.suppress(OSError):  # a kernel or a sandbox without it is only slower
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def write_line(descriptor: int, line: str) -> None:
    """Write one whole line to a pipe; it waits while the pipe is full."""
    os.write(descriptor, line.encode() + b"\n")


def main() -> None:
    """Serve as `python -c … COMMANDS REPORTS PARENT CONFIG`: two descriptors, a pid, and JSON (see nursery.py)."""
    commands, reports, parent = (int(argument) for argument in sys.argv[1:4])
    die_with_parent(parent)
    try:
        zygote = _prepare(commands, reports, json.loads(sys.argv[4]))
    except (KvnetError, ImportError, OSError) as error:
        write_line(reports, "broken " + " ".join(str(error).split()))
        raise SystemExit(entry.FAILED) from None
    zygote.serve()


def _prepare(commands: int, reports: int, config: Mapping[str, Any]) -> Zygote:
    gc.disable()  # a collection would leave holes for the children to copy pages into
    setproctitle.setproctitle("kvnet: zygote")
    raise_file_limit()
    for module in _PRELOADED:
        importlib.import_module(module)
    mains = {role: load_main(reference) for role, reference in config["mains"].items()}
    secret_file = config["secret_file"]
    folder = RunFolder(Path(config["data"]), Path(secret_file) if secret_file else None)
    identity = folder.identity()
    context = NodeContext(
        name="",
        topology=folder.topology(),
        data=folder.path,
        folder=folder.path,
        secret=folder.secret(),
        account_id=identity.account_id,
        tokens=identity.tokens,
        log_level=config["log_level"],
    )
    zygote = Zygote(commands, reports, folder, context, mains)
    gc.collect()
    gc.freeze()
    return zygote
