"""Many pieces of work that need nothing but a processor, done by several processes, told in order."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import active_children, get_context
from typing import TypeVar

from kvnet.errors import KvnetError
from nodes.parent import die_with_parent

AHEAD = 8
"""Pieces for each process that may wait for it, or for their turn to be told."""

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


def in_order(do: Callable[[TaskT], ResultT], tasks: Sequence[TaskT], jobs: int) -> Generator[ResultT, None, None]:
    """Yield `do(task)` for each task; with several jobs `do` and the tasks travel to processes of their own.

    Whoever stops listening, by Ctrl-C too, stops those processes.

    Raises:
        KvnetError: a process has ended by itself.
    """
    jobs = min(jobs, len(tasks))
    if jobs <= 1:
        yield from map(do, tasks)
        return
    others = set(active_children())
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), initializer=die_with_parent, initargs=(os.getpid(),))
    rest = iter(tasks)
    waiting: deque[Future[ResultT]] = deque()
    finished = False
    try:
        while True:
            with _interrupts_held_back():
                waiting.extend(pool.submit(do, task) for task in islice(rest, jobs * AHEAD - len(waiting)))
            if not waiting:
                finished = True
                return
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise KvnetError(
            "a worker process ended by itself, perhaps for want of memory: try again with --jobs 1"
        ) from None
    finally:
        if not finished:
            for process in set(active_children()) - others:
                process.terminate()
        pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let Ctrl-C wait a moment: processes that are started now inherit that, and leave it to their parent."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
