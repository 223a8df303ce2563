"""What an environment says about itself, in its `meta` database: the state, and a tally per namespace.

Both are written by the transaction that changes them, so they are true of the records beside them.

    state               position, digest, stamp, the journal's horizon and size, the counters of local numbers
    namespace/<id>      number u32 | keys u64 | bytes u64 | digest 16
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

import lmdb

from kvnet.core.entries import DIGEST_MODULUS, HASH_BYTES, NAMESPACE_ID_BYTES, SYSTEM_NAMESPACE
from kvnet.core.versions import CHAIN_BYTES, GENESIS, Position
from kvnet.storage.keys import ROOT_BYTES, root_prefix

STATE_KEY: Final = b"state"
TALLY_PREFIX: Final = b"namespace/"

_STATE = struct.Struct(f">IQ{CHAIN_BYTES}s{HASH_BYTES}sQIQ{CHAIN_BYTES}sQQQI")
_TALLY = struct.Struct(f">{ROOT_BYTES}sQQ{HASH_BYTES}s")


class State(NamedTuple):
    position: Position = GENESIS
    digest: int = 0
    """Sum of the hashes of all stored records, mod 2**128."""
    stamp: int = 0
    """Hybrid clock of the last applied frame."""
    horizon: Position = GENESIS
    """Where the journal's first frame starts: the end of the last frame that was dropped."""
    journal_frames: int = 0
    journal_bytes: int = 0
    next_layer: int = 0
    next_number: int = 1
    """The next namespace's local number; 0 is the system namespace's. Neither counter ever goes back."""

    def pack(self) -> bytes:
        digest = self.digest.to_bytes(HASH_BYTES, "big")
        return _STATE.pack(
            *self.position,
            digest,
            self.stamp,
            *self.horizon,
            self.journal_frames,
            self.journal_bytes,
            self.next_layer,
            self.next_number,
        )

    @classmethod
    def unpack(cls, stored: memoryview) -> State:
        fields = _STATE.unpack(stored)
        digest = int.from_bytes(fields[3], "big")
        return cls(Position(*fields[0:3]), digest, fields[4], Position(*fields[5:8]), *fields[8:])


@dataclass(slots=True)
class Tally:
    """One namespace's part of the replica: where its keys lie, how many there are, and their digest."""

    prefix: bytes
    """Of its keys in `records`: its local number (keys.root_prefix)."""
    keys: int = 0
    size_bytes: int = 0
    """Of its keys, metadata and values; a large value counts with its own size."""
    digest: int = 0
    """As State.digest; a transaction under way may leave it outside [0, 2**128), `pack` brings it back."""

    def copied(self) -> Tally:
        return Tally(self.prefix, self.keys, self.size_bytes, self.digest)

    def pack(self) -> bytes:
        self.digest %= DIGEST_MODULUS
        return _TALLY.pack(self.prefix, self.keys, self.size_bytes, self.digest.to_bytes(HASH_BYTES, "big"))

    @classmethod
    def unpack(cls, stored: memoryview) -> Tally:
        prefix, keys, size, digest = _TALLY.unpack(stored)
        return cls(prefix, keys, size, int.from_bytes(digest, "big"))


def tally_key(namespace: bytes) -> bytes:
    assert len(namespace) == NAMESPACE_ID_BYTES
    return TALLY_PREFIX + namespace


def read_state(txn: lmdb.Transaction[memoryview], meta: lmdb._Database) -> State:
    stored = txn.get(STATE_KEY, db=meta)
    return State() if stored is None else State.unpack(stored)


def read_tallies(txn: lmdb.Transaction[memoryview], meta: lmdb._Database) -> dict[bytes, Tally]:
    """Return every namespace's tally, the system namespace's included, in the order of their ids."""
    tallies = {SYSTEM_NAMESPACE: Tally(root_prefix(0))}
    with txn.cursor(meta) as cursor:
        found = cursor.set_range(TALLY_PREFIX)
        while found and (key := bytes(cursor.key())).startswith(TALLY_PREFIX):
            tallies[key.removeprefix(TALLY_PREFIX)] = Tally.unpack(cursor.value())
            found = cursor.next()
    return tallies
