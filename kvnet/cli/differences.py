"""Down to the keys in which a replica differs from the coordinator's, by the digests of ever smaller ranges.

Both move on while they are asked, so they are hardly ever compared at one position: the coordinator's range is
asked first, and the other replica waits until it stands there. Seqs are never given out twice, which tells a
difference from a write that came in between: only records of before the earlier of the two positions count.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from kvnet.cli.polling import Answer
from kvnet.core.versions import Version
from kvnet.topology.fields import COORDINATOR

RANGES_MAX: Final = 2000
"""Ranges that are compared for one namespace of one replica; on a busy network many differ for a moment."""
FINDINGS_MAX: Final = 20
"""Findings of one node that are shown to people."""

FLIPPED: Final = "flipped bits"
MISSING: Final = "missing"
EXTRA: Final = "extra"
OLDER: Final = "older"

AskNode = Callable[..., Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that isn't as it should be."""

    node: str
    what: str
    """`missing`, `extra`, `older`, `flipped bits`, or a sentence on the whole replica."""
    namespace: str = ""
    """Its id; empty for what is said of the whole replica."""
    title: str = ""
    key: str = ""

    @property
    def line(self) -> str:
        if not self.namespace:
            return f"{self.node}: {self.what}"
        return f"{self.node}: {self.title} / {self.key}: {self.what}"


class Told(NamedTuple):
    """A record as a replica told of it."""

    seq: int
    """0 for one whose bytes can't be read."""
    hash: str


def judge(ours: Told | None, at: int, theirs: Told | None, theirs_at: int) -> str | None:
    """Return in what a replica's record of one key is wrong; None when it isn't, or that can't be said.

    `theirs` is the coordinator's; `at` and `theirs_at` are the seqs at which each was read.
    """
    known = min(at, theirs_at)
    if ours == theirs:
        return None
    if ours is not None and ours.seq == 0:
        return FLIPPED
    if theirs is not None and theirs.seq == 0:
        return None  # the coordinator's own damage
    if ours is not None and theirs is not None:
        if ours.seq == theirs.seq:
            return FLIPPED
        return OLDER if ours.seq < theirs.seq <= known else None
    if theirs is not None:
        # Ours may have been deleted after the coordinator was asked.
        return MISSING if theirs.seq <= known and at <= theirs_at else None
    # Theirs may have been deleted after we were.
    return EXTRA if ours is not None and ours.seq <= known and at >= theirs_at else None


class Differences:
    """Compares replicas with the coordinator's answers; `ask_node(name, **query)` asks one."""

    def __init__(self, ask_node: AskNode, coordinator: Answer) -> None:
        self._ask_node = ask_node
        self._coordinator: Mapping[str, Any] = {} if isinstance(coordinator, str) else coordinator

    def of_coordinator(self) -> list[Finding]:
        return self._own(COORDINATOR, self._coordinator)

    async def of(self, name: str, answer: Answer) -> list[Finding]:
        """Return what is wrong at this node."""
        if isinstance(answer, str):
            return []
        findings = self._own(name, answer)
        if "position" not in answer:
            return findings
        wrong = await self._is_another(answer)
        namespaces = list(answer["namespaces_differing"])
        if wrong and not namespaces:
            namespaces = sorted({*answer["titles"], *self._coordinator.get("titles", {})})
        if self._coordinator.get("position") and not self._coordinator.get("evidence"):
            titles = {**self._coordinator["titles"], **answer["titles"]}
            known = {(finding.namespace, finding.key) for finding in findings}
            for namespace in namespaces:
                for key, what in await self._keys(name, answer, namespace):
                    if (namespace, key) not in known:
                        findings.append(Finding(name, what, namespace, titles.get(namespace, namespace), key))
        if not findings and answer["recomputed"] != answer["digest"]:
            findings.append(Finding(name, f"its stored bytes don't add up to its digest at {answer['position']}"))
        if not findings and namespaces:
            findings.append(Finding(name, "the sizes it keeps of its namespaces are wrong"))
        if not findings and wrong:
            findings.append(Finding(name, f"another digest than the coordinator's at {answer['position']}"))
        return findings

    @staticmethod
    def _own(name: str, answer: Mapping[str, Any]) -> list[Finding]:
        """What a node found by its stored bytes alone."""
        if "damaged" in answer:
            return [Finding(name, str(answer["damaged"]))]
        titles = answer.get("titles", {})
        findings = [
            Finding(name, FLIPPED, namespace, titles.get(namespace, namespace), _text(key))
            for namespace, key in answer.get("differing", [])
        ]
        if name == COORDINATOR and not findings:
            findings = [
                Finding(name, f"the records of {titles.get(namespace, namespace)} don't add up")
                for namespace in answer.get("namespaces_differing", [])
            ]
        return findings

    async def _is_another(self, answer: Mapping[str, Any]) -> bool:
        """Whether the coordinator's history had another digest where this replica stands, if it can tell."""
        seq = Version.parse(answer["position"]).seq
        if not seq or "position" not in self._coordinator:
            return False
        if answer["position"] == self._coordinator["position"]:
            told: Answer = dict(self._coordinator)
        else:
            told = await self._ask_node(COORDINATOR, digest_at=str(seq))
        if isinstance(told, str) or "position" not in told:
            return False
        return any(told[field] != answer[field] for field in ("position", "chain", "digest"))

    async def _keys(self, name: str, answer: Mapping[str, Any], namespace: str) -> list[tuple[str, str]]:
        """Return (key, what) of the keys of a namespace in which a replica is wrong."""
        found: list[tuple[str, str]] = []
        ranges = [("", "")]
        for _ in range(RANGES_MAX):
            if not ranges:
                break
            after, until = ranges.pop()
            query = {"namespace": namespace, "after": after, "until": until}
            theirs = await self._ask_node(COORDINATOR, **query)
            if isinstance(theirs, str):
                break
            if "evidence" in answer:
                ours = await self._ask_node(name, **query, evidence=str(answer["evidence"]))
            else:
                ours = await self._ask_node(name, **query, at=str(theirs["position"]))
            if isinstance(ours, str):
                break
            if (ours["count"], ours["digest"]) == (theirs["count"], theirs["digest"]):
                continue
            splits = ours["splits"] or theirs["splits"]
            if ours["records"] is None or theirs["records"] is None:
                ends = [*(end for end in splits if end != until), until]
                ranges += zip([after, *ends], ends, strict=False)
                continue
            found += _compare(ours, theirs)
        return found


def _compare(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[tuple[str, str]]:
    mine, other = _records(ours), _records(theirs)
    at, theirs_at = (Version.parse(told["position"]).seq for told in (ours, theirs))
    found = []
    for key in sorted({*mine, *other}):
        what = judge(mine.get(key), at, other.get(key), theirs_at)
        if what is not None:
            found.append((_text(key), what))
    return found


def _records(told: Mapping[str, Any]) -> dict[str, Told]:
    return {key: Told(seq, hash_) for key, seq, hash_ in told["records"]}


def _text(key: str) -> str:
    return bytes.fromhex(key).decode("utf-8", "backslashreplace")
