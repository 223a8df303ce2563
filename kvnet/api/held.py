"""A long answer's body, whose room is free again as soon as it is sent."""

from __future__ import annotations

import weakref
from collections.abc import Callable

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload


class HeldBody(Payload):
    """Bytes that are let go of once they are sent: aiohttp keeps an answer until its connection's next request."""

    def __init__(self, body: bytes, release: Callable[[], None]) -> None:
        super().__init__(None, content_type="application/json")
        self.replace(body)
        self._release = weakref.finalize(self, release)  # a client that is gone never has it written

    @property
    def data(self) -> bytes:
        assert self._data is not None, "it was sent"
        return self._data

    def replace(self, body: bytes) -> None:
        """Send this instead, shorter and saying the same."""
        self._data: bytes | None = body
        self._size = len(body)

    async def write(self, writer: AbstractStreamWriter) -> None:
        body, self._data = self.data, None
        try:
            await writer.write(body)
        finally:
            self._release()

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:  # noqa: ARG002 - aiohttp's own
        raise TypeError("a long answer is sent once, and not kept")
