"""Where a version is held up on its way through the network: judged from what every replica tells.

A replica has a version once its position has reached it: what it holds is always a whole beginning of the history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kvnet.cli.health import condition
from kvnet.cli.polling import Answer
from kvnet.cli.tally import plural
from kvnet.core.versions import Version
from kvnet.topology.fields import COORDINATOR
from kvnet.topology.wan_state import WanState

CAUSES_NAMED_MAX: Final = 5
NAMES_SHOWN_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Sight:
    """One replica, as far as it tells."""

    name: str
    problem: str | None
    """Why it says nothing of the key; then there is no version."""
    version: Version | None
    """Of the key there; None where it isn't."""
    position: Version | None
    status: Answer
    """What it says of itself, or why it says nothing."""

    @property
    def parent(self) -> str | None:
        return None if isinstance(self.status, str) else self.status.get("parent")

    @property
    def path(self) -> list[str]:
        """The nodes that its last beacon came by, from the coordinator to its parent."""
        return [] if isinstance(self.status, str) else list(self.status.get("path", ()))

    @property
    def staleness_ms(self) -> float | None:
        return None if isinstance(self.status, str) else self.status.get("staleness_ms")


@dataclass(frozen=True, slots=True)
class Cause:
    """What keeps a replica from having the version."""

    at: str
    """The first node on the way from the coordinator that lacks it."""
    why: str
    """What is the matter with that node, as in `nrt …`."""

    detail: str = ""
    """What more there is to it, for whoever looks at that node."""

    def in_words(self) -> str:
        return f"{_named(self.at)} {self.why}" + (f" ({self.detail})" if self.detail else "")


class Spread:
    """What the replicas have, against the one that knows most."""

    def __init__(self, sights: Sequence[Sight], wan: WanState) -> None:
        """The first of those that know equally much counts: the coordinator should come first."""
        self._sights = {sight.name: sight for sight in sights}
        self._wan = wan
        told = [sight for sight in sights if sight.problem is None]
        self.reference = max(told, key=lambda sight: sight.position or Version(0, 0), default=None)
        """The replica by which the others are judged; None if none tells anything."""
        self.pops = [sight for sight in sights if sight.name != COORDINATOR]
        self.causes = {
            sight.name: self._cause_of(sight.name) for sight in self.pops if not self.has_it(sight.name)
        }
        """Of every PoP that lacks it."""

    @property
    def version(self) -> Version | None:
        """The key's newest version; None if it is no more, or never was."""
        return None if self.reference is None else self.reference.version

    @property
    def is_anywhere(self) -> bool:
        return any(sight.version is not None for sight in self._sights.values())

    @property
    def head(self) -> Version | None:
        return None if self.reference is None else self.reference.position

    def lag(self, sight: Sight) -> int | None:
        """Return how many entries behind the reference a replica is, None if it doesn't tell."""
        if self.head is None or sight.position is None:
            return None
        return max(0, self.head.seq - sight.position.seq)

    def has_it(self, name: str) -> bool:
        """Whether a replica has the newest version, or knows as the reference does that there is none."""
        sight, reference = self._sights[name], self.reference
        if reference is None or reference.position is None or sight.problem is not None or sight.position is None:
            return False
        if reference.version is None:
            return sight.version is None or sight.position >= reference.position
        return sight.position >= reference.version

    def conclusion(self) -> str:
        """Return the whole in a sentence."""
        total, behind = len(self.pops), len(self.causes)
        what = f"have {self.version}" if self.version else f"know that it is deleted, as of {self.head}"
        if not behind:
            return f"all {plural(total, 'PoP')} {what}"
        followers: dict[tuple[str, str], list[str]] = {}
        alone: dict[str, list[str]] = {}
        for name, cause in self.causes.items():
            if name != cause.at:
                followers.setdefault((cause.at, cause.why), []).append(name)
        for name, cause in self.causes.items():
            if name == cause.at and (name, cause.why) not in followers:
                alone.setdefault(cause.why, []).append(name)
        told = [(len(names), _behind(at, why, names)) for (at, why), names in followers.items()] + [
            (len(names), f"{_each(names)} {why}") for why, names in alone.items()
        ]
        told.sort(key=lambda cause: -cause[0])
        rest = len(told) - CAUSES_NAMED_MAX
        sentences = [sentence for _, sentence in told[:CAUSES_NAMED_MAX]]
        if rest > 0:
            sentences.append(f"{plural(rest, 'more cause')} in the table")
        return f"{total - behind} of {plural(total, 'PoP')} {what}; {'; '.join(sentences)}"

    def _cause_of(self, name: str) -> Cause:
        """Go up from parent to parent, as far as nobody has it."""
        seen: list[str] = []
        while True:
            sight = self._sights[name]
            if isinstance(sight.status, str):
                return Cause(name, _silent(sight.status))
            if name in seen:
                return Cause(name, f"is in a circle with {' and '.join(sorted(set(seen) - {name}))}")
            seen.append(name)
            status = sight.status
            if trouble := _trouble(status):
                return Cause(name, trouble)
            if sight.problem is not None:
                return Cause(name, f"doesn't tell of the key ({sight.problem})")
            upper = sight.parent or (sight.path[-1] if sight.path else None)
            if upper is None or upper not in self._sights:
                return Cause(name, "has no parent")
            if self._is_cut(upper, name):
                return Cause(name, self._cut_off(name, upper))
            above = self._sights[upper].status
            if isinstance(above, str):
                return Cause(upper, _silent(above))
            if sight.parent is None:
                return Cause(name, "has no parent, and looks for one")
            if self.has_it(upper) or upper == COORDINATOR:
                return _on_its_way(name, status, upper)
            name = upper

    def _is_cut(self, a: str, b: str) -> bool:
        return self._wan.is_cut(a, b) or self._wan.is_cut(b, a)

    def _cut_off(self, name: str, upper: str) -> str:
        others = [other for other in self._sights if other != name]
        if len(others) > 1 and all(self._is_cut(name, other) for other in others):
            return "is cut off from all other nodes"
        return f"is cut off from {_named(upper)}"


def _named(name: str) -> str:
    return "the coordinator" if name == COORDINATOR else name


def _silent(why: str) -> str:
    return "is down" if why == "down" else f"says nothing of itself ({why})"


def _trouble(status: Mapping[str, Any]) -> str:
    """Return what keeps a node from showing what it is sent, "" for nothing."""
    if status.get("bootstrap"):
        return f"is being {condition(status)}"
    if status.get("damaged"):
        return "is damaged, and made anew from the network"
    if status.get("driver", {}).get("storage_full"):
        return "has a full disk"
    if status.get("ready") is False:
        return "isn't ready yet"
    return ""


def _on_its_way(name: str, status: Mapping[str, Any], upper: str) -> Cause:
    """Return why a node lacks what its parent has."""
    if status.get("waits_for_chunks"):
        lacking = status.get("large_values", {}).get("chunks_needed_now", 0)
        return Cause(name, "waits for chunks of a large value", f"{lacking} lacking")
    if status.get("late"):
        return Cause(name, f"hears nothing from {_named(upper)}")
    return Cause(name, f"is about to get it from {_named(upper)}")


def _each(names: Sequence[str]) -> str:
    """Return the subject of a sentence on each of these."""
    if len(names) == 1:
        return names[0]
    more = len(names) - NAMES_SHOWN_MAX
    if more > 0:
        return f"each of {', '.join(names[:NAMES_SHOWN_MAX])} and {more} more"
    return f"each of {', '.join(names[:-1])} and {names[-1]}"


def _behind(at: str, why: str, names: Sequence[str]) -> str:
    who = f"{names[0]} is" if len(names) == 1 else f"{plural(len(names), 'PoP')} are"
    return f"{who} behind {_named(at)}, which {why}"
