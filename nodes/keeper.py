"""The readers of a node that runs alone: another process keeps them, since a node has a loop and can't fork."""

from __future__ import annotations

import os
import signal
import traceback
from typing import NoReturn

import setproctitle

from nodes import reader
from nodes.brood import Brood
from nodes.context import NodeContext
from nodes.entry import FAILED, run_node
from nodes.parent import die_with_parent


def keep_readers(context: NodeContext, count: int) -> None:
    """Fork a process that keeps so many readers until the node tells them to end, or ends itself.

    To be called before this process has a loop, a thread or a database.
    """
    if not count:
        return
    parent = os.getpid()
    if os.fork() == 0:
        _keep(context, count, parent)


def _keep(context: NodeContext, count: int, parent: int) -> NoReturn:
    status = FAILED
    try:
        die_with_parent(parent)
        setproctitle.setproctitle(f"kvnet: {context.name} readers")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the node tells the readers when to end
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        keeper = os.getpid()

        def become(name: str, number: int) -> NoReturn:
            _become(context, keeper, f"kvnet: {name} reader {number}")

        brood = Brood(become, lambda _name, _pids: None)
        brood.ensure(context.name, count)
        while brood.pids or brood.wait_s() is not None:
            brood.fork_due()
            _reap(brood)
            wait_s = brood.wait_s()
            if wait_s is None:
                signal.sigwait({signal.SIGCHLD})
            else:
                signal.sigtimedwait({signal.SIGCHLD}, wait_s)
            _reap(brood)
        status = 0
    except BaseException:  # noqa: BLE001 - nothing may climb back into the node's start
        traceback.print_exc()
    finally:
        os._exit(status)


def _reap(brood: Brood) -> None:
    while brood.pids:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        brood.reaped(pid, status)


def _become(context: NodeContext, keeper: int, title: str) -> NoReturn:
    status = FAILED
    try:
        die_with_parent(keeper)
        setproctitle.setproctitle(title)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        status = run_node(reader.main, context)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        os._exit(status)
