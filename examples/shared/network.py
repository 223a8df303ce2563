"""A running network and one Worker at its PoPs, as any HTTP client sees them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from kvnet.errors import ConfigError
from kvnet.workers.running import find_running
from nodes.cluster import RunFolder


class Stage:
    """The coordinator's REST API and a Worker at each of its PoPs; use it as an async context."""

    def __init__(self, data: Path, worker: str, title: str) -> None:
        """Find what `kvnet up` and `kvnet workers dev` have left in the run folder `data`.

        `title` is the namespace that is written by REST: of a Worker's binding it is the binding's name.

        Raises:
            KvnetError: the network doesn't run, or this Worker doesn't.
        """
        self.cluster = RunFolder(data).cluster()
        self.urls = find_running(data, worker).pops
        """By the codes of the PoPs where the Worker runs."""
        self._title = title

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30))
        account = f"{self.cluster['coordinator']['url']}/client/v4/accounts/{self.cluster['account_id']}"
        self._namespaces = f"{account}/storage/kv/namespaces"
        try:
            self._pairs = f"{self._namespaces}/{await self._id()}"
        except BaseException:
            await self._session.close()
            raise
        return self

    async def _id(self) -> str:
        known = await self._ask("GET", f"{self._namespaces}?per_page=1000")
        for namespace in known["result"]:
            if namespace["title"] == self._title:
                return str(namespace["id"])
        raise ConfigError(f"there is no namespace {self._title!r}: `kvnet workers dev` makes it")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    def city(self, pop: str) -> str:
        return str(self.cluster["pops"][pop]["city"])

    def country(self, pop: str) -> str:
        return str(self.cluster["pops"][pop]["country"])

    async def floor_ms(self) -> float:
        """Return the longest one-way delay from the coordinator: nothing can be everywhere sooner."""
        async with self._session.get(
            f"{self.cluster['monitor']['url']}/report",
            headers={"Authorization": f"Bearer {self.cluster['tokens']['read']}"},
        ) as answer:
            return float((await answer.json())["floor_ms"])

    # -- the REST API, at the coordinator

    async def put(self, key: str, value: str, *, ttl_s: int | None = None) -> None:
        query = "" if ttl_s is None else f"?expiration_ttl={ttl_s}"
        await self._ask("PUT", f"{self._pairs}/values/{key}{query}", value.encode())

    async def put_many(self, pairs: Mapping[str, str]) -> None:
        body = [{"key": key, "value": value} for key, value in pairs.items()]
        await self._ask("PUT", f"{self._pairs}/bulk", json.dumps(body).encode())

    async def delete(self, key: str) -> None:
        await self._ask("DELETE", f"{self._pairs}/values/{key}")

    async def _ask(self, method: str, url: str, body: bytes | None = None) -> Any:
        headers = {"Authorization": f"Bearer {self.cluster['tokens']['write']}"}
        async with self._session.request(method, url, data=body, headers=headers) as answer:
            told = await answer.json()
            if not told["success"]:
                raise RuntimeError(f"{method} {url}: {told['errors'][0]['message']}")
            return told

    # -- the Worker

    async def fetch(
        self, pop: str, path: str = "/", *, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Return status and text of what the Worker at `pop` answers."""
        async with self._session.request(method, self.urls[pop] + path, headers=headers) as answer:
            return answer.status, await answer.text()
