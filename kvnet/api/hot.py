"""Whole answers that are remembered, by the exact bytes of their requests; and whether that pays.

An answer is worth its room only if it is asked for again before it ends, and it ends within half a second. So one
in a few requests that had to be looked up is noted, by a hash, and the answer is remembered when the hash comes a
second time. Hashes say nothing of any answer, and stay while answers come and go: what was hot is hot again soon.

Where keys come at random nothing repeats, and what remembers then only costs. That is judged again and again: as
long as it doesn't pay, nothing is remembered, and fewer requests are noted.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

HOT_MAX: Final = 4096
HOT_BYTES_MAX: Final = 8 * 1024 * 1024
HOT_ANSWER_BYTES_MAX: Final = 128 * 1024
MET_MAX: Final = 8192
"""Hashes of requests; twice as many at most, half of which are older."""
NOTED_IN: Final = 16
"""One of so many requests that were looked up is noted, before anything is known."""
NOTED_IN_PAYING: Final = 8
NOTED_IN_IDLE: Final = 64
JUDGED_AFTER: Final = 256
"""So many were noted."""
PAYS_IN: Final = 16
"""One of so many requests has to be answered from here: a lookup in vain is a twentieth of what a hit saves."""

WhoseT = TypeVar("WhoseT")


class HotAnswers(Generic[WhoseT]):
    """Remembered answers, each with whatever counts its reads."""

    __slots__ = ("_again", "_before", "_bytes", "_met", "_noted", "answers", "noted_in", "pays")

    def __init__(self) -> None:
        self.answers: dict[bytes, tuple[bytes, WhoseT]] = {}
        """The same dictionary for good; empty where looking into it doesn't pay."""
        self.noted_in = NOTED_IN
        """One of how many requests that aren't here is to be noted now."""
        self.pays = True
        """Whether anything is remembered."""
        self._bytes = 0
        self._met: set[int] = set()
        self._before: set[int] = set()
        self._noted = self._again = 0
        """Since the last judgement: how many requests were noted, and how many of them for a second time."""

    def note(self, request: bytes, answer: bytes, whose: WhoseT) -> None:
        """Remember the answer if its request was noted before, else note that."""
        self._noted += 1
        met = hash(request)
        if met in self._met or met in self._before:
            self._again += 1
            if self.pays and len(answer) <= HOT_ANSWER_BYTES_MAX:
                self._keep(request, answer, whose)
            return
        if len(self._met) >= MET_MAX:
            self._before, self._met = self._met, set()
        self._met.add(met)

    @property
    def is_due(self) -> bool:
        """Whether enough was seen since the last judgement."""
        return self._noted >= JUDGED_AFTER

    def judge(self, hits: int) -> None:
        """Decide whether remembering pays; `hits` were answered from here since the last time.

        Noted requests that came again count as what they would have been, where nothing is remembered.
        """
        looked_up = self._noted * self.noted_in
        self.pays = (hits + self._again * self.noted_in) * PAYS_IN >= looked_up + hits
        self.noted_in = NOTED_IN_PAYING if self.pays else NOTED_IN_IDLE
        self._noted = self._again = 0
        if not self.pays:
            self.cool()

    def cool(self) -> None:
        """No answer is hot any more."""
        self.answers.clear()
        self._bytes = 0

    def _keep(self, request: bytes, answer: bytes, whose: WhoseT) -> None:
        if len(self.answers) >= HOT_MAX or self._bytes > HOT_BYTES_MAX:
            self.cool()
        self._bytes += len(request) + len(answer)
        self.answers[request] = answer, whose
