"""What may be stored as a value, as bytes; and a value that comes bit by bit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import IO, Any, Final, Self

import aiohttp

from kvnet.client.race import UNREACHABLE
from kvnet.errors import RequestError

Content = str | bytes | bytearray | memoryview | IO[bytes] | IO[str] | AsyncIterator[bytes]
STREAMED_BYTES: Final = 256 * 1024


async def content_of(value: Content) -> bytes:
    """Return the bytes of a value, text as UTF-8. A file or stream is read whole: it may have to be sent again.

    Raises:
        TypeError: it can't be a value.
    """
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    read: Any = getattr(value, "read", None)
    if callable(read):
        whole = await asyncio.to_thread(read)
        if isinstance(whole, (str, bytes)):
            return whole.encode() if isinstance(whole, str) else whole
    elif isinstance(value, AsyncIterator):
        return b"".join([bytes(each) async for each in value])
    raise TypeError(f"a value is text, bytes, a file or an async iterator of bytes, not {type(value).__name__}")


class ValueStream:
    """A value as it comes: an async iterator of bytes, to be read to its end or closed."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._chunks = response.content.iter_chunked(STREAMED_BYTES)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next bytes.

        Raises:
            RequestError: the edge that answered was lost on the way; ask again.
        """
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            self._response.release()
            raise
        except (aiohttp.ClientError, TimeoutError) as error:
            self._response.close()
            raise RequestError(
                503, UNREACHABLE, f"the value from {self._response.host} ended early: {error}"
            ) from None

    async def aclose(self) -> None:
        """Read no more of it."""
        self._response.close()
