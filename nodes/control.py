"""The launcher's ear: a Unix socket in the run folder, one JSON object per line each way.

    {"command": "status"}                           -> {"ok": true, "result": {…}}
    {"command": "stop", "node": "fra"}              -> {"ok": false, "error": "…", "code": 2}

Only the folder's owner may speak to it. The connection ends when the launcher does.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Self

from kvnet.errors import ConfigError, KvnetError
from kvnet.runtime.unix_socket import bound_socket, short_path

_LINE_BYTES_MAX: Final = 65_536
Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class ControlServer:
    """The launcher's side: listens until it is closed."""

    def __init__(self, handle: Handler) -> None:
        """Answer requests by `handle`; its KvnetErrors are answers too."""
        self._handle = handle
        self._server: asyncio.Server | None = None
        self._writers: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}

    async def open(self, path: Path) -> None:
        """Listen at `path`, whose folder the caller has locked: a socket left there is a dead launcher's.

        Raises:
            OSError: the socket can't be made there.
        """
        ear = bound_socket(path)
        self._server = await asyncio.start_unix_server(self._attend, sock=ear, limit=_LINE_BYTES_MAX)

    async def close(self) -> None:
        """Hang up on everybody; requests under way are cut off."""
        if self._server:
            self._server.close()
        for writer, task in list(self._writers.items()):
            writer.transport.abort()
            if task:
                await asyncio.wait([task])

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers[writer] = asyncio.current_task()
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await _answer(line, self._handle)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):  # it hung up, or its line is too long
            pass
        finally:
            del self._writers[writer]
            writer.close()


async def _answer(line: bytes, handle: Handler) -> dict[str, Any]:
    try:
        request = json.loads(line)
        if not isinstance(request, dict):
            raise ConfigError("a request is a JSON object")
        return {"ok": True, "result": await handle(request)}
    except json.JSONDecodeError as error:
        return {"ok": False, "error": f"not JSON: {error}", "code": 2}
    except KvnetError as error:
        return {"ok": False, "error": str(error), "code": 2 if isinstance(error, ConfigError) else 1}


class NoLauncher(ConfigError):
    """Nobody listens in the run folder."""


class ControlClient:
    """A connection to the launcher of a run folder."""

    def __init__(self, path: Path, timeout_s: float = 60.0) -> None:
        """Connect.

        Raises:
            NoLauncher: none runs there.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            with short_path(path) as name:
                self._socket.connect(name)
        except OSError:
            self._socket.close()
            raise NoLauncher(
                f"no launcher runs in {path.parent}: `kvnet up` starts a network, --data names another folder"
            ) from None
        self._file = self._socket.makefile("rwb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Return the launcher's answer.

        Raises:
            ConfigError: it can't do that.
            KvnetError: it failed, or ended meanwhile.
        """
        try:
            self._file.write(json.dumps({"command": command, **arguments}).encode() + b"\n")
            self._file.flush()
            line = self._file.readline()
        except OSError as error:
            raise KvnetError(f"the launcher doesn't answer ({error}); `kvnet logs launcher` may say why") from None
        if not line:
            raise KvnetError("the launcher ended before it answered; `kvnet logs launcher` may say why")
        answer = json.loads(line)
        if not answer["ok"]:
            raise (ConfigError if answer["code"] == 2 else KvnetError)(answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def wait_for_end(self) -> None:
        """Return when the launcher has ended.

        Raises:
            KvnetError: it hasn't, in the time that answers have.
        """
        try:
            while self._file.readline():
                pass
        except TimeoutError:
            raise KvnetError("the launcher doesn't end; `kill -9` on its pid ends it and all its nodes") from None
