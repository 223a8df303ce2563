"""One process of the runtime: started on sockets that are open already, heard, and ended whatever it is doing."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from socket import socket
from typing import Final

from kvnet.errors import KvnetError
from kvnet.workers.bundle import INSTALL
from kvnet.workers.heard import tell
from nodes.life import describe_status
from nodes.parent import die_with_parent

DRAIN_S: Final = 3.0
"""How long requests under way may go on once it is to end."""
_READ_BYTES: Final = 65_536
_SERVICE: Final = re.compile(r"^service [^:]*: ")
_NO_MODULE: Final = re.compile(r'(?:No such module "|Module not found: )(?P<name>[^"\s]+)')
"""As it says it up to a compatibility date, and from then on."""


class Refused(KvnetError):
    """The runtime doesn't start with this configuration; it has said why on standard error."""


class Workerd:
    """A running workerd; `start` makes one."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._starting = True
        self._told: set[str] = set()
        """What it said while it started: every PoP's Worker makes the same mistakes."""
        self._listening = asyncio.create_task(self._hear())

    @classmethod
    async def start(cls, program: Path, configuration: Path, sockets: Mapping[str, socket]) -> Workerd:
        """Return the runtime once it serves all `sockets`, which stay open here.

        It ends with this process, however that ends, and isn't reached by a terminal's Ctrl-C.

        Raises:
            Refused: the configuration or the Worker can't work.
        """
        events, theirs = os.pipe()
        names = [f"--socket-fd={name}={listener.fileno()}" for name, listener in sockets.items()]
        ours = os.getpid()
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                "serve",
                "--import-path=/",
                f"--control-fd={theirs}",
                *names,
                configuration,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=[theirs, *(listener.fileno() for listener in sockets.values())],
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(ours),  # the forking thread is the main one, as it wants
            )
        except OSError as error:
            os.close(events)
            raise KvnetError(f"{program} doesn't run: {error.strerror}") from None
        finally:
            os.close(theirs)
        workerd = cls(process)
        try:
            serves = await _all_listen(events, set(sockets))
        except BaseException:
            await workerd.stop(drain_s=0)
            raise
        if not serves:
            await process.wait()
            await workerd._listening
            raise Refused(f"the Worker doesn't start: workerd {workerd.status()}, its words stand above")
        workerd._starting = False
        return workerd

    @property
    def pid(self) -> int:
        return self._process.pid

    def status(self) -> str:
        """Say how it ended."""
        code = self._process.returncode
        assert code is not None, "it runs"
        return describe_status(code << 8 if code >= 0 else -code)

    async def ended(self) -> None:
        """Return when it has ended."""
        await self._process.wait()

    async def stop(self, *, drain_s: float = DRAIN_S, hurry: asyncio.Event | None = None) -> None:
        """End it: requests under way have `drain_s`, or until `hurry` is set."""
        waits = [asyncio.create_task(self._process.wait())]
        if hurry is not None:
            waits.append(asyncio.create_task(hurry.wait()))
        try:
            if drain_s:
                with suppress(ProcessLookupError):
                    self._process.terminate()
                await asyncio.wait(waits, timeout=drain_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            if self._process.returncode is None:
                with suppress(ProcessLookupError):
                    self._process.kill()
            await self._process.wait()
            await self._listening

    async def _hear(self) -> None:
        """Pass on what the Worker and the runtime say, line by line, until the end."""
        stream = self._process.stdout
        assert stream is not None
        rest = b""
        while data := await stream.read(_READ_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._pass_on(line.decode(errors="replace"))
        if rest:
            self._pass_on(rest.decode(errors="replace"))

    def _pass_on(self, line: str) -> None:
        if self._starting:
            plain = _SERVICE.sub("", line)
            if plain in self._told:
                return
            self._told.add(plain)
        tell(line)
        missing = _NO_MODULE.search(line)
        if missing is not None and not missing["name"].startswith((".", "/", "file:")):
            tell(f"  {_cure(missing['name'])}")


def _cure(name: str) -> str:
    if name.startswith("node:"):
        return 'add "nodejs_compat" to compatibility_flags in wrangler.jsonc'
    return f"a package has to be bundled: install wrangler in the project with `{INSTALL}`"


async def _all_listen(events: int, names: set[str]) -> bool:
    """Return whether the runtime told that it serves each of `names`; False when it ended before."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(events, "rb", 0)
    )
    try:
        while names:
            line = await reader.readline()
            if not line:
                return False
            names.discard(json.loads(line).get("socket"))
        return True
    finally:
        transport.close()
