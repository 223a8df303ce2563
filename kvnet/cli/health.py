"""What a node's `/status` says about its store: in few words for a table, in a sentence for `doctor`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kvnet.cli.polling import Answer
from kvnet.cli.sizes import bytes_in_words
from kvnet.topology.fields import COORDINATOR
from nodes.preflight import Finding

FREE_SHARE_MAX: Final = 0.5
"""Of a replica's file; with more, `kvnet compact` is worth its copy."""
FREE_BYTES_MIN: Final = 64 * 1024 * 1024
"""Less isn't worth a word."""
MAP_SHARE_MAX: Final = 0.9
"""Of the map: beyond it, it should be made larger before it is full."""
NODES_NAMED_MAX: Final = 5


def condition(status: Mapping[str, Any], keys_in_all: int = 0) -> str:
    """Return what is the matter with a node, "" for nothing; `keys_in_all` is what a whole replica has."""
    bootstrap = status.get("bootstrap")
    if bootstrap:
        return _made_anew(bootstrap, keys_in_all)
    if status.get("damaged"):
        return "damaged" if status.get("role") == COORDINATOR else "damaged, heals"
    if status.get("driver", {}).get("storage_full"):
        return "disk full"
    if status.get("store", {}).get("compacting"):
        return "compacting"
    if status.get("ready") is False:
        return "not ready"
    return ""


def _made_anew(bootstrap: Mapping[str, Any], keys_in_all: int) -> str:
    if bootstrap.get("proving"):
        return "made anew: proof"
    if bootstrap.get("all_pages"):
        return "made anew: 100 %"
    keys = bootstrap.get("keys", 0)
    if not keys_in_all:
        return f"made anew: {keys:,} keys"
    return f"made anew: {min(99, 100 * keys // keys_in_all)} %"


def keys_of(status: Mapping[str, Any]) -> int:
    """Return how many records a replica has."""
    return sum(status.get("store", {}).get("keys", {}).values())


def store_findings(answers: Mapping[str, Answer]) -> list[Finding]:
    """Return what there is to say about the stores of a network that runs, one finding for each kind of it."""
    told = {name: answer for name, answer in answers.items() if not isinstance(answer, str)}
    damaged, full, anew, mapped, free = [], [], [], [], []
    for name, status in told.items():
        if status.get("damaged"):
            damaged.append(name)
        if status.get("driver", {}).get("storage_full"):
            full.append(name)
        if status.get("bootstrap"):
            anew.append(name)
        store = status.get("store", {})
        size, spare = store.get("map_bytes", 0), store.get("free_bytes", 0)
        if spare > max(FREE_BYTES_MIN, FREE_SHARE_MAX * size):
            free.append(name)
        if size - spare > MAP_SHARE_MAX * store.get("map_size_bytes", float("inf")):
            mapped.append(name)
    findings = []
    if damaged:
        cure = "PoPs are made anew from the network"
        if COORDINATOR in damaged:
            cure = f"stop the coordinator and `kvnet snapshot restore` a copy; {cure}"
        findings.append(Finding("damage", ok=False, detail=f"{_named(damaged)}: {cure}"))
    if full:
        cure = "free space, then it goes on by itself"
        findings.append(Finding("full disks", ok=False, detail=f"{_named(full)}: {cure}"))
    if mapped:
        cure = "raise storage.map_size_gib and restart the node"
        findings.append(Finding("map", ok=False, detail=f"{_named(mapped)}: more than 90 % full: {cure}"))
    if free:
        spare = sum(told[name]["store"]["free_bytes"] for name in free)
        cure = f"`kvnet compact {free[0]}`" if len(free) == 1 else "`kvnet compact` with their names"
        detail = f"{_named(free)}: {bytes_in_words(spare)} free in their files: {cure} gives it back"
        findings.append(Finding("free pages", ok=True, detail=detail))
    if anew:
        detail = f"{_named(anew)}: being made anew, `kvnet status` shows how far"
        findings.append(Finding("bootstrap", ok=True, detail=detail))
    if not findings and told:
        findings.append(Finding("stores", ok=True, detail=f"{len(told)} replicas are whole"))
    return findings


def _named(names: list[str]) -> str:
    more = len(names) - NODES_NAMED_MAX
    return ", ".join(names[:NODES_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
