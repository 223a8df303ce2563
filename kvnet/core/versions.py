"""Versions and positions: where in the one history something stands."""

from __future__ import annotations

import re
from typing import NamedTuple

CHAIN_BYTES = 16
_VERSION_TEXT = re.compile(r"(0|[1-9][0-9]{0,9})-(0|[1-9][0-9]{0,19})")


class Version(NamedTuple):
    """One write's place: `epoch` names the history, `seq` is gapless and never restarts.

    The order of seq is the last-writer-wins order.
    """

    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Version:
        """Read `<epoch>-<seq>` in decimal, as the KV-Version header has it.

        Raises:
            ValueError: anything else.
        """
        match = _VERSION_TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"not a version: {text!r}; write <epoch>-<seq>, for example 1-42")
        return cls(int(match[1]), int(match[2]))


class Position(NamedTuple):
    """How far a replica is: always a frame's end; `chain` is the hash of every frame up to it."""

    epoch: int
    seq: int
    chain: bytes

    @property
    def version(self) -> Version:
        return Version(self.epoch, self.seq)

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}:{self.chain[:4].hex()}"


GENESIS = Position(0, 0, bytes(CHAIN_BYTES))
"""Where an empty replica stands."""
