"""`GET /usage` and `GET /metrics`: what a node has counted, for `kvnet usage` and for Prometheus."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

from aiohttp import web
from msgspec.structs import fields
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from kvnet.api import envelope
from kvnet.api.backend import Backend
from kvnet.api.call import Call
from kvnet.core.usage import Usage

OPERATIONS: Final = tuple(field.name for field in fields(Usage) if field.name != "byte_seconds")


async def usage(call: Call) -> web.Response:
    """Answer this node's counts by month, and what its replica holds of each namespace."""
    backend = call.backend
    return envelope.plain(
        {
            "name": backend.name,
            "position": str(backend.store.position.version),
            "months": backend.usage.to_dict(),
            "namespaces": {
                namespace.hex(): {"title": title, "keys": keys, "bytes": size}
                for namespace, title, keys, size in _namespaces(backend)
            },
        }
    )


async def metrics(call: Call) -> web.Response:
    """Answer in the text format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_NodeCollector(call.backend))
    return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


class _NodeCollector(Collector):
    """Reads everything when asked: nothing is counted twice."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def collect(self) -> Iterator[Metric]:
        backend = self._backend
        yield _gauge("kvnet_ready", "1 while the replica may serve.", float(backend.ready()))
        yield _gauge(
            "kvnet_position_seq", "Sequence number of the last write in the replica.", backend.store.position.seq
        )
        yield _gauge("kvnet_position_epoch", "Epoch of that write.", backend.store.position.epoch)
        staleness_ms = backend.staleness_ms()
        if math.isfinite(staleness_ms):
            what = "Upper bound on the age of the replica's view."
            yield _gauge("kvnet_staleness_seconds", what, staleness_ms / 1000)
        operations = CounterMetricFamily(
            "kvnet_operations",
            "Operations that clients asked this node for, over all months kept.",
            labels=["namespace", "operation"],
        )
        for namespace, total in _totals(backend).items():
            for operation in OPERATIONS:
                operations.add_metric([namespace.hex(), operation], getattr(total, operation))
        yield operations
        keys = GaugeMetricFamily("kvnet_keys", "Pairs in the replica.", labels=["namespace", "title"])
        sizes = GaugeMetricFamily(
            "kvnet_stored_bytes", "Bytes of keys, metadata and values.", labels=["namespace", "title"]
        )
        for namespace, title, count, size in _namespaces(backend):
            keys.add_metric([namespace.hex(), title], count)
            sizes.add_metric([namespace.hex(), title], size)
        yield from (keys, sizes)


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, what, value=value)


def _namespaces(backend: Backend) -> list[tuple[bytes, str, int, int]]:
    """Return (id, title, keys, bytes) of each namespace that clients see."""
    tallies = backend.store.tallies
    return [
        (namespace, item.title, tallies[namespace].keys, tallies[namespace].size_bytes)
        for namespace, item in backend.store.namespaces.items()
        if namespace in tallies
    ]


def _totals(backend: Backend) -> dict[bytes, Any]:
    totals: dict[bytes, Usage] = {}
    for namespaces in backend.usage.months.values():
        for namespace, counted in namespaces.items():
            totals.setdefault(namespace, Usage()).add(counted)
    return totals
