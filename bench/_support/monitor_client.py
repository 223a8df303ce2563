"""The monitor's word on what is measured."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any, Final

import aiohttp

from bench._support.network import RunningNetwork
from kvnet.core.versions import Version
from kvnet.errors import KvnetError

POLL_S: Final = 0.25


class MonitorClient:
    """Marks the begin of a measurement, and reports on what came after."""

    def __init__(self, session: aiohttp.ClientSession, network: RunningNetwork) -> None:
        self._session = session
        self._url = network.monitor_url
        self._headers = network.authorization
        self._mark: str | None = None

    async def mark(self) -> None:
        """From now on `report` is about what is committed after this.

        Raises:
            KvnetError: the monitor doesn't answer.
        """
        name = f"bench-{secrets.token_hex(4)}"
        await self._ask("POST", "/mark", json={"name": name})
        self._mark = name

    async def report(self) -> dict[str, Any]:
        """Return the report since the mark, or on everything before there is one.

        Raises:
            KvnetError: the monitor doesn't answer.
        """
        return await self._ask("GET", "/report", params={"since": self._mark} if self._mark else {})

    async def settled(self, newest: Version | None, timeout_s: float) -> dict[str, Any]:
        """Return the report once it says all there is to say about the writes up to `newest`.

        That is when every connected PoP has them and every feed has spoken since: what a node counted for them has
        then been told too. After `timeout_s` it is returned as it is.

        Raises:
            KvnetError: the monitor doesn't answer.
        """
        deadline_s = time.monotonic() + timeout_s
        everywhere_ms: float | None = None
        while True:
            report = await self.report()
            if everywhere_ms is None and report["pending"] == 0 and _has(report, newest):
                everywhere_ms = report["now_ms"]
            if everywhere_ms is not None and _all_heard(report, everywhere_ms):
                return report
            if time.monotonic() > deadline_s:
                return report
            await asyncio.sleep(POLL_S)

    async def _ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        try:
            async with self._session.request(method, self._url + path, headers=self._headers, **more) as answer:
                document: dict[str, Any] = await answer.json()
                if answer.status != 200:
                    raise KvnetError(f"the monitor refused {path}: {document['errors'][0]['message']}")
                return document
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            why = str(error) or type(error).__name__
            raise KvnetError(
                f"the monitor doesn't answer {path} ({why}); `kvnet logs monitor` may say why"
            ) from None


def _has(report: dict[str, Any], newest: Version | None) -> bool:
    if newest is None:
        return True
    return report["head"] is not None and Version.parse(report["head"]).seq >= newest.seq


def _all_heard(report: dict[str, Any], since_ms: float) -> bool:
    connected = (pop for pop in report["per_pop"].values() if pop["connected_since_ms"] is not None)
    heard = [report["coordinator_heard_ms"], *(pop["heard_ms"] for pop in connected)]
    return all(at_ms is not None and at_ms > since_ms for at_ms in heard)
