"""A node's side of its readers: it hears them, serves the connections that they hand on, and ends them with it."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from kvnet.core.usage import UsageMeter
from kvnet.errors import ConfigError, StorageDamaged
from kvnet.runtime.channel import CONNECTION, DAMAGED, HELLO, LONG_CONNECTION, STOP, USAGE, Channel
from kvnet.runtime.handing import go_on_with, read_connection
from kvnet.runtime.server import GRACE_S
from kvnet.runtime.unix_socket import bound_socket
from nodes.preflight import first_taken, who_has

SOCKET_NAME: Final = "readers.sock"
"""In the node's folder, while it has readers."""
LOCK_NAME: Final = "readers.lock"
"""Readers share it while they may have the node's port."""
BACKLOG: Final = 64
END_S_MAX: Final = GRACE_S + 0.5

_decode = msgspec.json.Decoder(dict[str, tuple[int, int]]).decode
_log = logging.getLogger(__name__)


class ReaderDesk:
    """Hears a node's readers."""

    def __init__(
        self,
        folder: Path,
        protocol: Callable[[], Any],
        *,
        count: int,
        meter: UsageMeter,
        now_s: Callable[[], float],
        damaged: Callable[[StorageDamaged], None],
    ) -> None:
        """`protocol` makes what serves a connection; `folder` is the node's. `count` readers are expected.

        `now_s` is called after reads: it notes by what time something may have been found expired.
        """
        self._path = folder / SOCKET_NAME
        self._lock_path = folder / LOCK_NAME
        self._protocol = protocol
        self._count = count
        self._meter = meter
        self._now_s = now_s
        self._damaged = damaged
        self._listening: socket.socket | None = None
        self._channels: dict[Channel, int] = {}
        """With the reader's pid; 0 before it has told."""
        self._gone = asyncio.Event()
        self._arriving: set[asyncio.Task[None]] = set()
        self._handed = 0

    def check_port(self, host: str, port: int) -> None:
        """Return if the port is nobody's, or shared by readers that have outlived the node's last process.

        On a port that is shared the kernel itself would refuse none of this user's processes.

        Raises:
            ConfigError: it is taken.
        """
        lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        finally:
            os.close(lock)
        if first_taken(host, [port]) is not None:
            raise ConfigError(f"{who_has(port)}; choose another block with --port-base")

    def start(self) -> None:
        """Hear readers from here on: the node listens, and they may."""
        try:
            listening = bound_socket(self._path, socket.SOCK_SEQPACKET)
        except OSError as error:  # a file system without sockets: the node itself is what counts
            _log.warning("no readers, for there is no socket at %s: %s", self._path, error)
            return
        self._listening = listening
        listening.setblocking(False)
        listening.listen(BACKLOG)
        asyncio.get_running_loop().add_reader(listening.fileno(), self._accept)

    async def stop(self) -> None:
        """Return when all readers have ended, or have had time to; what they counted last is counted."""
        if self._listening is None:
            return
        asyncio.get_running_loop().remove_reader(self._listening.fileno())
        self._listening.close()
        self._listening = None
        self._path.unlink(missing_ok=True)
        for channel in list(self._channels):
            channel.send(STOP)
        with suppress(TimeoutError):
            async with asyncio.timeout(END_S_MAX):
                while self._channels:
                    self._gone.clear()
                    await self._gone.wait()
        for channel in list(self._channels):
            channel.close()
        for task in self._arriving:
            task.cancel()

    def status(self) -> dict[str, Any]:
        """What `/status` tells of readers."""
        return {
            "wanted": self._count,
            "pids": [pid for pid in self._channels.values() if pid],
            "connections_taken": self._handed,
        }

    def _accept(self) -> None:
        assert self._listening is not None
        try:
            connected, _ = self._listening.accept()
        except OSError:
            return
        channel: Channel

        def on_message(kind: bytes, content: bytes, files: list[int]) -> None:
            self._on_message(channel, kind, content, files)

        def on_closed() -> None:
            self._channels.pop(channel, None)
            self._gone.set()

        channel = Channel(connected, on_message, on_closed)
        self._channels[channel] = 0

    def _on_message(self, channel: Channel, kind: bytes, content: bytes, files: list[int]) -> None:
        if kind in {CONNECTION, LONG_CONNECTION}:
            arrived = read_connection(kind, content, files)
            if arrived is None:
                return
            if self._listening is None:  # the node ends as well
                arrived[0].close()
                return
            self._handed += 1
            task = asyncio.get_running_loop().create_task(go_on_with(self._protocol, *arrived))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)
        elif kind == HELLO:
            self._channels[channel] = int(content)
        elif kind == USAGE:
            for namespace, (reads, lists) in _decode(content).items():
                counted = self._meter.of(bytes.fromhex(namespace))
                counted.reads += reads
                counted.lists += lists
            self._now_s()
        elif kind == DAMAGED:
            self._damaged(StorageDamaged(content.decode(errors="replace")))
