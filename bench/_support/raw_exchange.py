"""One connection with whatever bytes, and the answers that came on it, read without trust."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from dataclasses import dataclass
from typing import Final

from bench._support.raw_requests import Attempt, Manner

SILENCE_S: Final = 0.25
"""An answer that isn't there after so long isn't waited for: the request was no whole one."""
PAUSE_S: Final = 0.01
"""Between the pieces of a slow client."""
CONNECT_S: Final = 10
"""A node that doesn't accept in this time hangs."""
_READ_BYTES: Final = 1 << 18
_RESET: Final = struct.pack("ii", 1, 0)

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9]) [^\r\n]*")
_LENGTH: Final = re.compile(rb"(?im)^content-length: ([0-9]+)\r?$")
_CHUNKED: Final = re.compile(rb"(?im)^transfer-encoding: chunked\r?$")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; of one to HEAD the body is empty."""

    status: int
    head: bytes
    body: bytes
    whole: bool


async def exchange(host: str, port: int, attempt: Attempt) -> list[Answer]:
    """Send the attempt on a connection of its own and return what came back before it was over.

    Raises:
        OSError, TimeoutError: the node doesn't accept connections.
        ValueError: what came back isn't HTTP.
    """
    async with asyncio.timeout(CONNECT_S):
        reader, writer = await asyncio.open_connection(host, port, limit=_READ_BYTES)
    came = b""
    try:
        for index, piece in enumerate(attempt.pieces):
            if index:
                await asyncio.sleep(PAUSE_S)
            writer.write(piece)
        match attempt.manner:
            case Manner.HALF_CLOSED:
                writer.write_eof()
            case Manner.RESET:
                raw = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                return []
            case Manner.CUT:
                return []
            case _:
                pass
        came = await _read(reader, attempt.answers)
    except OSError:
        pass  # a node may close on what isn't HTTP
    finally:
        writer.close()
    return read_answers(came)


async def _read(reader: asyncio.StreamReader, answers: int) -> bytes:
    came = b""
    try:
        while True:
            async with asyncio.timeout(SILENCE_S):
                part = await reader.read(_READ_BYTES)
            if not part:
                return came
            came += part
            found = read_answers(came)
            if len(found) >= answers and found[-1].whole:
                return came
    except (ConnectionError, TimeoutError):
        return came


def read_answers(came: bytes) -> list[Answer]:
    """Return the answers in these bytes; the last may be cut.

    Raises:
        ValueError: they aren't answers.
    """
    answers: list[Answer] = []
    at = 0
    while at < len(came):
        end = came.find(b"\r\n\r\n", at)
        if end < 0:
            if not b"HTTP/1.".startswith(came[at : at + 7]):
                raise ValueError(f"not an answer: {came[at : at + 80]!r}")
            return [*answers, Answer(0, came[at:], b"", whole=False)]
        head = came[at:end]
        status_line = _STATUS_LINE.match(head)
        if status_line is None:
            raise ValueError(f"not an answer: {head[:80]!r}")
        status = int(status_line[1])
        at = end + 4
        if status in {100, 101}:
            if status == 101:
                return answers
            continue
        if _CHUNKED.search(head):
            return [*answers, Answer(status, head, came[at:], whole=came.endswith(b"0\r\n\r\n"))]
        length = _LENGTH.search(head)
        size = int(length[1]) if length else 0
        body = came[at : at + size]
        if _STATUS_LINE.match(came, at):  # an answer to HEAD has none, whatever its length says
            body = b""
        answers.append(Answer(status, head, body, whole=len(body) == size or not body))
        at += len(body)
    return answers
