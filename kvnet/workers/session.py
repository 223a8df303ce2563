"""A Worker in the foreground: started at all its PoPs, reloaded when its source changes, ended by a signal."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from socket import socket
from typing import Final

from kvnet.errors import KvnetError
from kvnet.workers.build import Built, write_configuration
from kvnet.workers.process import Workerd
from kvnet.workers.watch import State, Watched

LOOK_S: Final = 0.25
"""Between two looks at the source. A change is taken up when two looks see the same."""
LOOK_SHARE: Final = 0.1
"""Of the time that looking may take, however many files there are."""
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Session:
    """One Worker's life; `run` is all of it."""

    def __init__(
        self,
        *,
        program: Path,
        configuration: Path,
        sockets: Mapping[str, socket],
        build: Callable[[], Awaitable[Built]],
        say: Callable[[str], None],
    ) -> None:
        """Name workerd, the file for what it reads, and what it serves on; `say` tells people one line."""
        self._program = program
        self._configuration = configuration
        self._sockets = sockets
        self._build = build
        self._say = say
        self._runtime: Workerd | None = None
        self._hurry = asyncio.Event()
        """Set by the second signal: requests under way are cut."""
        self._warned: set[str] = set()

    async def run(self, started: Callable[[], None]) -> None:
        """Return after the signal that ended it; `started` is called once the Worker answers.

        Raises:
            KvnetError: it can't start, or the runtime has ended by itself.
        """
        loop = asyncio.get_running_loop()
        life = asyncio.create_task(self._live(started))

        def end() -> None:
            if life.cancelling():
                self._hurry.set()
            life.cancel()

        for number in SIGNALS:
            loop.add_signal_handler(number, end)
        try:
            await asyncio.wait([life])
            if self._runtime is not None:
                await self._runtime.stop(hurry=self._hurry)
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)
        if not life.cancelled():
            life.result()

    async def _live(self, started: Callable[[], None]) -> None:
        built = await self._build()
        await self._serve(built)
        started()
        watched, seen = built.watched, built.watched.built_of
        while True:
            assert self._runtime is not None
            changed = await self._change(self._runtime, watched, seen)
            seen = changed
            try:
                built = await self._build()
                watched, seen = built.watched, built.watched.built_of
                await self._serve(built)
                self._say("reloaded")
            except KvnetError as error:
                self._say(f"{error}; the Worker from before goes on")

    async def _change(self, runtime: Workerd, watched: Watched, seen: State) -> State:
        """Return how the source is now that it has changed.

        Raises:
            KvnetError: the runtime has ended.
        """
        ended = asyncio.create_task(runtime.ended())
        try:
            now_s = asyncio.get_running_loop().time
            pause_s = LOOK_S
            last = seen
            while True:
                await asyncio.wait([ended], timeout=pause_s)
                if ended.done():
                    raise KvnetError(f"workerd {runtime.status()} by itself, and the Worker with it")
                began_s = now_s()
                now = watched.state()
                pause_s = max(LOOK_S, (now_s() - began_s) / LOOK_SHARE)
                if now == last != seen:
                    return now
                last = now
        finally:
            ended.cancel()

    async def _serve(self, built: Built) -> None:
        """Have what was built answer from here on; what answered before is ended when that is sure.

        Raises:
            KvnetError: it doesn't start; what answered before still does.
        """
        for warning in built.project.warnings:
            if warning not in self._warned:
                self._warned.add(warning)
                self._say(warning)
        write_configuration(self._configuration, built.configuration)
        before = self._runtime
        self._runtime = await Workerd.start(self._program, self._configuration, self._sockets)
        if before is not None:
            await before.stop(hurry=self._hurry)
