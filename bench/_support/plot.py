"""Pictures of results; matplotlib comes with the extra `bench`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kvnet.errors import ConfigError


def require_matplotlib() -> None:
    """Return if pictures can be drawn.

    Raises:
        ConfigError: they can't.
    """
    if find_spec("matplotlib") is None:
        raise ConfigError("--plot needs matplotlib: pip install 'kvnet[bench]'")


def plot_arrivals(report: Mapping[str, Any], title: str, path: Path) -> None:
    """Draw each PoP's p50 and p99 over its one-way delay from the coordinator, the floor, which none can beat."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow, and not everybody has it

    pops = [pop for pop in report["per_pop"].values() if pop["writes"]]
    floor_ms = [pop["floor_ms"] for pop in pops]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    limit = max(floor_ms, default=1.0)
    axes.plot([0, limit], [0, limit], color="grey", linewidth=1, label="floor: one way from the coordinator")
    axes.scatter(floor_ms, [pop["p50_ms"] for pop in pops], s=12, label="p50")
    axes.scatter(floor_ms, [pop["p99_ms"] for pop in pops], s=12, marker="^", label="p99")
    axes.set(
        xlabel="one-way delay from the coordinator, ms", ylabel="time until the PoP had a write, ms", title=title
    )
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(path)


def plot_scale(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw what a read, a page of a listing, a key's bytes and a key's loading cost against the number of keys."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow, and not everybody has it

    keys = [row["keys"] for row in rows]
    figure = Figure(figsize=(9, 6), layout="constrained")
    (reads, listings), (sizes, loading) = figure.subplots(2, 2)
    reads.plot(keys, [row["get_us"] for row in rows], marker="o", label="get, read before")
    reads.plot(keys, [row["lmdb_us"] for row in rows], marker="o", color="grey", label="plain LMDB")
    reads.plot(keys, [row["first_us"] for row in rows], marker="^", label="get, for the first time")
    reads.set(ylabel="µs a read")
    for name, label in (("first", "at the beginning"), ("middle", "in the middle"), ("last", "at the end")):
        listings.plot(keys, [row[f"list_{name}_ms"] for row in rows], marker="o", label=label)
    listings.set(ylabel="ms for a page of 1,000 keys")
    sizes.plot(keys, [row["bytes_per_key"] for row in rows], marker="o", label="bytes of disk a key")
    sizes.set(ylabel="bytes")
    loading.plot(
        keys, [row["load_s"] / row["keys"] * 1e6 for row in rows], marker="o", label="loading and proving"
    )
    loading.set(ylabel="µs a key")
    for axes in (reads, listings, sizes, loading):
        axes.set(xscale="log", xlabel="keys")
        axes.set_ylim(bottom=0)
        axes.legend()
    figure.savefig(path)


def plot_reads(result: Mapping[str, Any], path: Path) -> None:
    """Draw requests a second of an edge beside other servers: one hot key, by connections, by the value's size."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow, and not everybody has it

    figures = result["figures"]
    figure = Figure(figsize=(10, 8), layout="constrained")
    (hot, keys), (connections, sizes) = figure.subplots(2, 2)
    for axes, part, title in ((hot, "hot", "one hot key"), (keys, "random", "keys at random")):
        cases = figures.get(part, {})
        axes.barh([*cases], [case["requests_per_s"] / 1000 for case in cases.values()])
        axes.invert_yaxis()
        axes.set(xlabel="1,000 requests/s", title=title)
    for axes, part, field, unit in (
        (connections, "connections", "requests_per_s", 1e3),
        (sizes, "sizes", "bytes_per_s", 1e6),
    ):
        for server in ("edge", "nginx"):
            cases = {
                int(name.rpartition(", ")[2]): case[field] / unit
                for name, case in figures.get(part, {}).items()
                if name.startswith(server)
            }
            axes.plot([*cases], [*cases.values()], marker="o", label=server)
        axes.set(xscale="log")
        axes.set_ylim(bottom=0)
        axes.legend()
    connections.set(xlabel="connections", ylabel="1,000 requests/s")
    sizes.set(xlabel="bytes of the value", ylabel="MB/s")
    figure.savefig(path)
