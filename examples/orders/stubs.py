"""The two services that the Worker connects: a till that lists its orders, and a delivery that takes them."""

from __future__ import annotations

from collections import Counter
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from yarl import URL


class Stubs:
    """Both services; use it as an async context."""

    def __init__(self, point_of_sale: str, delivery: str) -> None:
        """Listen at these addresses while the context lasts."""
        self.orders: list[dict[str, Any]] = []
        """The till's, by the time of their last change."""
        self.delivered: dict[str, dict[str, Any]] = {}
        self.times_sent: Counter[str] = Counter()
        till, delivers = web.Application(), web.Application()
        till.router.add_get("/orders", self._list)
        delivers.router.add_put("/orders/{id}", self._deliver)
        self._sites = [(web.AppRunner(till), URL(point_of_sale)), (web.AppRunner(delivers), URL(delivery))]

    async def __aenter__(self) -> Self:
        for runner, address in self._sites:
            await runner.setup()
            await web.TCPSite(runner, address.host, address.port).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for runner, _ in self._sites:
            await runner.cleanup()

    async def _list(self, request: web.Request) -> web.Response:
        since = request.query.get("since", "")
        return web.json_response([order for order in self.orders if order["modifiedAt"] > since])

    async def _deliver(self, request: web.Request) -> web.Response:
        order = await request.json()
        self.times_sent[order["id"]] += 1
        self.delivered[order["id"]] = order
        return web.json_response({})
