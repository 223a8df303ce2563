"""What a network stores: per namespace, on the disks, and how far its journals reach back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich import box
from rich.table import Table

from kvnet.cli.polling import Answer
from kvnet.cli.sizes import bytes_in_words
from kvnet.core.versions import Version
from kvnet.topology.fields import COORDINATOR

NAMESPACES_SHOWN_MAX: Final = 10


def furthest(answers: Mapping[str, Answer]) -> Mapping[str, Any] | None:
    """Return the status of the replica that stands furthest; None if none answers."""
    told = [answer for answer in answers.values() if not isinstance(answer, str) and answer.get("store")]
    return max(told, key=lambda status: _seq(status) or 0, default=None)


def namespaces_table(status: Mapping[str, Any]) -> Table | None:
    """Return the largest namespaces first; None when there is none."""
    namespaces = sorted(
        status.get("namespaces", {}).values(), key=lambda each: (-each["bytes"], -each["keys"], each["title"])
    )
    if not namespaces:
        return None
    table = Table(box=box.SIMPLE)
    table.add_column("namespace", overflow="ellipsis", no_wrap=True)
    for heading in ("keys", "bytes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in namespaces[:NAMESPACES_SHOWN_MAX]:
        table.add_row(each["title"], f"{each['keys']:,}", bytes_in_words(each["bytes"]))
    rest = namespaces[NAMESPACES_SHOWN_MAX:]
    if rest:
        keys, size = (sum(each[field] for each in rest) for field in ("keys", "bytes"))
        table.add_row(f"and {len(rest):,} more", f"{keys:,}", bytes_in_words(size))
    return table


def usage_lines(answers: Mapping[str, Answer]) -> list[str]:
    """Return a line on the disks and one on the journals."""
    told = {name: a for name, a in answers.items() if not isinstance(a, str) and a.get("store")}
    stores = {name: status["store"] for name, status in told.items()}
    edges = {name: store for name, store in stores.items() if name != COORDINATOR}
    disk, journal = [], []
    if COORDINATOR in stores:
        store = stores[COORDINATOR]
        disk.append(f"coordinator {bytes_in_words(store['map_bytes'])}{_free(store)}")
        begin = store["horizon_seq"] + 1
        journal.append(f"coordinator's from {begin:,} on, {bytes_in_words(store['journal_bytes'])}")
    if edges:
        sizes = sorted(store["map_bytes"] for store in edges.values())
        disk.append(f"PoPs {_range(sizes[0], sizes[-1])}, {bytes_in_words(sum(sizes))} in all")
        reach = [seq - edges[name]["horizon_seq"] for name in edges if (seq := _seq(told[name])) is not None]
        if reach:
            journal.append(f"PoPs' reach back {min(reach):,} entries at least")
    lines = []
    if disk:
        lines.append(f"disk: {'; '.join(disk)}")
    if journal:
        lines.append(f"journals: {'; '.join(journal)}")
    return lines


def _seq(status: Mapping[str, Any]) -> int | None:
    try:
        return Version.parse(str(status.get("position"))).seq
    except ValueError:
        return None


def _free(store: Mapping[str, Any]) -> str:
    size = store["map_bytes"]
    share = 100 * store.get("free_bytes", 0) // size if size else 0
    return f" ({share} % free)" if share else ""


def _range(least: int, most: int) -> str:
    low, high = bytes_in_words(least), bytes_in_words(most)
    return low if low == high else f"{low} to {high}"
