"""The truth about one world's writes: every frame that a coordinator ever made durable, as a tree by chain.

The nodes don't know of it. It has one branch, unless two coordinators wrote or one went on without what it lost;
what any replica holds must be a path from its root, and the records what that path adds up to.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, NamedTuple

from kvnet.core.catalog import NAMESPACE_PREFIX
from kvnet.core.entries import SYSTEM_NAMESPACE, Delete, Epoch, Put, PutLarge
from kvnet.core.frames import Frame
from kvnet.core.versions import GENESIS, Version

FOLDS_KEPT: Final = 32

Place = tuple[bytes, bytes]
"""Namespace and key."""


class Written(NamedTuple):
    """A pair as readers see it."""

    value: bytes
    metadata: bytes
    expires_at: int
    version: Version


@dataclass(frozen=True, slots=True)
class Durable:
    """A frame of the truth: when its first fsync was done, and at which coordinator."""

    frame: Frame
    at_ms: float
    by: str


class History:
    """Frames by the chain after them."""

    def __init__(self) -> None:
        self.frames: dict[bytes, Durable] = {}
        self.branches = 0
        """How often a frame was added beside another one with the same predecessor."""
        self._successors: set[bytes] = set()
        self._folds: OrderedDict[bytes, dict[Place, Written]] = OrderedDict({GENESIS.chain: {}})

    def add(self, frame: Frame, at_ms: float, by: str) -> None:
        """Take note of a frame whose fsync is done."""
        if frame.chain_after in self.frames:
            return
        assert self.knows(frame.chain_before), f"{by} made {frame.position} durable after what nobody wrote"
        self.branches += frame.chain_before in self._successors
        self._successors.add(frame.chain_before)
        self.frames[frame.chain_after] = Durable(frame, at_ms, by)

    def knows(self, chain: bytes) -> bool:
        """Whether a replica may stand there."""
        return chain in self.frames or chain == GENESIS.chain

    def path(self, chain: bytes, after: bytes = GENESIS.chain) -> list[Frame]:
        """Return the frames that lead from `after` to `chain`, oldest first; all, if `after` isn't on the way."""
        frames: list[Frame] = []
        while chain not in {after, GENESIS.chain}:
            frame = self.frames[chain].frame
            frames.append(frame)
            chain = frame.chain_before
        frames.reverse()
        return frames

    def leads(self, before: bytes, to: bytes) -> bool:
        """Whether the frames up to `to` go on from `before`."""
        while to not in {before, GENESIS.chain}:
            to = self.frames[to].frame.chain_before
        return to == before

    def fold(self, chain: bytes) -> dict[Place, Written]:
        """Return the records that the frames up to `chain` add up to; the last writer of each key has won."""
        known = self._folds.get(chain)
        if known is not None:
            self._folds.move_to_end(chain)
            return known
        frames: list[Frame] = []
        while chain not in self._folds:
            frame = self.frames[chain].frame
            frames.append(frame)
            chain = frame.chain_before
        records = dict(self._folds[chain])
        for frame in reversed(frames):
            _add_to(records, frame)
        self._folds[frames[0].chain_after] = records
        while len(self._folds) > FOLDS_KEPT:
            oldest = next(kept for kept in self._folds if kept != GENESIS.chain)
            del self._folds[oldest]
        return records


def _add_to(records: dict[Place, Written], frame: Frame) -> None:
    for seq, entry in enumerate(frame.entries(), frame.first_seq):
        match entry:
            case Put(namespace, key, value, metadata, expires_at, _):
                version = Version(frame.epoch, seq)
                records[namespace, key] = Written(value, metadata, expires_at, version)
            case PutLarge(namespace, key, manifest, metadata, expires_at, _):
                version = Version(frame.epoch, seq)
                records[namespace, key] = Written(manifest, metadata, expires_at, version)
            case Delete(namespace, key):
                records.pop((namespace, key), None)
                if namespace == SYSTEM_NAMESPACE and key.startswith(NAMESPACE_PREFIX):
                    gone = bytes.fromhex(key.removeprefix(NAMESPACE_PREFIX).decode())
                    for place in [place for place in records if place[0] == gone]:
                        del records[place]
            case Epoch():
                pass
