"""Between a node and its readers, processes of one host: messages, each with descriptors if need be, in order.

A Unix socket that keeps messages apart. Each message begins with one byte that says what it is:

    to the node      h PID                            a reader is there
                     c BYTES, with a connection       goes on there; of it these bytes came
                     C, with a connection and a file  the same, the bytes in the file
                     u JSON                           reads and lists by namespace, since the last such message
                     d TEXT                           the replica isn't what was written
    to the reader    s                                end, and tell what was counted last
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

HELLO: Final = b"h"
CONNECTION: Final = b"c"
LONG_CONNECTION: Final = b"C"
USAGE: Final = b"u"
DAMAGED: Final = b"d"
STOP: Final = b"s"

MESSAGE_BYTES_MAX: Final = 65_536
FILES_MAX: Final = 2
UNSENT_MAX: Final = 1024
"""Messages that wait for a node which doesn't take them; with one more it counts as gone."""

OnMessage = Callable[[bytes, bytes, list[int]], None]
"""Called with kind, content and descriptors, which are the called one's to close."""


class Channel:
    """One end."""

    def __init__(self, connected: socket.socket, on_message: OnMessage, on_closed: Callable[[], None]) -> None:
        """Take the socket over; `on_closed` is called once, when the other end is gone or hasn't kept to the form.

        After `close` nothing is called any more.
        """
        connected.setblocking(False)
        self._socket = connected
        self._on_message = on_message
        self._on_closed = on_closed
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connected.fileno(), self._readable)
        self.is_open = True

    def send(self, kind: bytes, content: bytes = b"", files: Iterable[int] = ()) -> None:
        """Send a message, at once or as soon as the other end takes it; the descriptors are closed then.

        What is sent to an end that is gone is lost.
        """
        message = kind + content
        assert len(message) <= MESSAGE_BYTES_MAX, "too long for one message"
        kept = list(files)
        if not self.is_open:
            _close_all(kept)
            return
        if not self._unsent and self._try(message, kept):
            return
        if len(self._unsent) >= UNSENT_MAX:
            self._lose()
        if self._socket.fileno() < 0:
            _close_all(kept)
            return
        self._unsent.append((message, kept))
        self._loop.add_writer(self._socket.fileno(), self._writable)

    def close(self) -> None:
        """End it; what was sent and not taken is lost."""
        if not self.is_open:
            return
        self.is_open = False
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        for _, files in self._unsent:
            _close_all(files)
        self._unsent.clear()

    def _lose(self) -> None:
        if self.is_open:
            self.close()
            self._on_closed()

    def _try(self, message: bytes, files: list[int]) -> bool:
        """Whether the message needn't wait."""
        try:
            socket.send_fds(self._socket, [message], files)
        except BlockingIOError:
            return False
        except OSError:
            self._lose()
            return False
        _close_all(files)
        return True

    def _writable(self) -> None:
        while self.is_open and self._unsent:
            if not self._try(*self._unsent[0]):
                return
            self._unsent.popleft()
        if self.is_open:
            self._loop.remove_writer(self._socket.fileno())

    def _readable(self) -> None:
        try:
            message, files, flags, _ = socket.recv_fds(
                self._socket, MESSAGE_BYTES_MAX, FILES_MAX, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            message, files, flags = b"", [], 0
        if not message or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            _close_all(files)
            self._lose()
            return
        self._on_message(message[:1], message[1:], files)


def _close_all(files: Iterable[int]) -> None:
    for file in files:
        with suppress(OSError):
            os.close(file)
