"""Lines: what is sent to the edges goes over these, at the distance that the client is at."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Self

import aiohttp
from yarl import URL

from kvnet.client.directory import Edge
from kvnet.client.distance import Distance

PROBE_TIMEOUT_S: Final = 2.0
"""An edge that needs longer to say that it serves doesn't."""
CONNECTIONS_MAX: Final = 100
"""Connections to one edge. They are counted by edge, so that a silent one can't use up those to the next."""
KEPT_OPEN_S: Final = 60.0
"""How long a connection may rest; less than an edge allows, which would close it while we write."""


class Lines:
    """One pool of connections; open between `open` and `close`."""

    def __init__(self, distance: Distance | None = None) -> None:
        self._distance = distance

    def open(self) -> Self:
        """Be ready to connect; to be called in the event loop that will do so."""
        connector = aiohttp.TCPConnector(limit=0, limit_per_host=CONNECTIONS_MAX, keepalive_timeout=KEPT_OPEN_S)
        self._session = aiohttp.ClientSession(connector=connector)
        # aiohttp would send a PUT again on its own and tell of the second failure alone; we know which of two
        # failures leaves the outcome open, and where else to ask.
        self._session._retry_connection = False  # noqa: SLF001
        return self

    async def close(self) -> None:
        await self._session.close()

    async def request(
        self,
        edge: Edge,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
        patience: aiohttp.ClientTimeout | None = None,
    ) -> aiohttp.ClientResponse:
        """Return an answer of which the body is still to be read; `path` is sent as it is spelled.

        Raises:
            aiohttp.ClientError: the edge didn't take the request, or went away over it.
        """
        if self._distance is not None:
            await asyncio.sleep(self._distance.there_ms(edge) / 1000)
        response = await self._session.request(
            method,
            URL(f"{edge.url}{path}", encoded=True),
            data=data,
            headers=headers,
            timeout=patience or aiohttp.ClientTimeout(),
            allow_redirects=False,
        )
        if self._distance is not None:
            try:
                await asyncio.sleep(self._distance.back_ms(edge, response.content_length or 0) / 1000)
            except asyncio.CancelledError:
                response.close()
                raise
        return response

    async def serves(self, edge: Edge) -> bool:
        """Whether the edge says that it serves."""
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S), await self.request(edge, "GET", "/healthz") as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def round_trip_ms(self, edge: Edge) -> float | None:
        """Return the time of a second request, which finds its connection open; None if the edge doesn't serve."""
        if not await self.serves(edge):
            return None
        clock = asyncio.get_running_loop().time
        began = clock()
        return (clock() - began) * 1000 if await self.serves(edge) else None
