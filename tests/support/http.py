"""An HTTP client that sends exactly the bytes it is told to: targets as they are, bodies as long as they are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes
    reason: str = ""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, int, str]:
        """(status, code, message) of an answer that is an error in due form."""
        document = self.json
        assert self.headers["content-type"] == "application/json"
        assert (document["success"], document["messages"], document["result"]) == (False, [], None)
        first = document["errors"][0]
        return self.status, first["code"], first["message"]

    @property
    def result(self) -> Any:
        """The result of an answer that is a success in due form."""
        document = self.json
        assert self.status == 200, document
        assert self.headers["content-type"] == "application/json"
        assert (document["success"], document["errors"]) == (True, [])
        return document["result"]


def request_bytes(method: str, target: str | bytes, headers: Mapping[str, str], body: bytes) -> bytes:
    raw_target = target.encode() if isinstance(target, str) else target
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method.encode(), raw_target, lines.encode(), body)


async def exchange(port: int, sent: bytes, *, method: str = "GET") -> Answer:
    """Send these bytes on a connection of their own and return the answer to them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        return await read_answer(reader, method)
    finally:
        writer.close()


async def read_answer(reader: asyncio.StreamReader, method: str = "GET") -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status_line, *lines = head.rstrip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    _, number, reason = status_line.split(" ", 2)
    status = int(number)
    if method == "HEAD" or status in {100, 304}:
        return Answer(status, headers, b"", reason)
    return Answer(status, headers, await reader.readexactly(int(headers["content-length"])), reason)
