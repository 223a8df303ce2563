"""What the monitor says, asked by programs that wrote something and want to know how it spread."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import aiohttp

from kvnet.errors import RequestError

POLL_S: Final = 0.2
GRACE_S: Final = 5.0
"""Time beyond the bound in which the monitor has judged every write."""


class Window:
    """One measuring window of the monitor, from `begin` on."""

    def __init__(self, session: aiohttp.ClientSession, cluster: Mapping[str, Any], name: str) -> None:
        self._session = session
        self._url = cluster["monitor"]["url"]
        self._headers = {"Authorization": f"Bearer {cluster['tokens']['read']}"}
        self._name = name

    async def begin(self) -> None:
        """Begin the window: what is written from now on belongs to it.

        Raises:
            RequestError: the monitor doesn't answer.
        """
        await self._ask("POST", "/mark", json={"name": self._name})

    async def settled(self, writes: int) -> dict[str, Any]:
        """Return the report once it tells of `writes` and none is pending, or when the bound has passed.

        Raises:
            RequestError: the monitor doesn't answer.
        """
        now = asyncio.get_running_loop().time
        report = await self._ask("GET", "/report", params={"since": self._name})
        deadline = now() + report["bound_ms"] / 1000 + GRACE_S
        while now() < deadline and (told(report) < writes or report["pending"]):
            await asyncio.sleep(POLL_S)
            report = await self._ask("GET", "/report", params={"since": self._name})
        return report

    async def _ask(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        url = f"{self._url}{path}"
        try:
            async with self._session.request(method, url, headers=self._headers, **content) as response:
                if response.status != 200:
                    raise RequestError(
                        response.status, 10001, f"the monitor answered {path} with {response.status}"
                    )
                answer: dict[str, Any] = await response.json()
                return answer
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RequestError(
                503, 7010, f"the monitor at {self._url} doesn't answer ({error}): `kvnet ps`"
            ) from None


def told(report: Mapping[str, Any]) -> int:
    """Return how many writes the report has come to an end with, one way or another."""
    count: int = report["writes"] + report["unjudged"] + report["superseded"]
    return count
