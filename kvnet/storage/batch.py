"""One write transaction on its way: entries become records, tallies and catalogue, frame by frame.

Nothing of a batch is visible to anybody, on the disk or in memory, until it is committed; a batch that raises is
dropped whole.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import lmdb
import msgpack

from kvnet.core.catalog import NAMESPACE_PREFIX, CatalogItem, Namespace, key_of, read_item
from kvnet.core.entries import (
    DELETE,
    DIGEST_MODULUS,
    EPOCH,
    HASH_BYTES,
    NAMESPACE_ID_BYTES,
    PUT,
    PUT_LARGE,
    SYSTEM_NAMESPACE,
)
from kvnet.core.frames import HEADER_BYTES, Frame
from kvnet.core.manifest import Manifest
from kvnet.errors import ChunksMissing, Divergence, ProtocolError
from kvnet.storage import chunks, expiries
from kvnet.storage.environment import Environment
from kvnet.storage.keys import SLICE_BYTES, layer_prefix, place, remove, root_prefix
from kvnet.storage.records import Replaced, pack_record, read_replaced
from kvnet.storage.state import STATE_KEY, State, Tally, tally_key


class Batch:
    """What one transaction has changed so far; `txn` must have `records` as its default database."""

    def __init__(
        self,
        environment: Environment,
        txn: lmdb.Transaction[bytes],
        state: State,
        tallies: Mapping[bytes, Tally],
        *,
        tracks_expiries: bool = False,
    ) -> None:
        """`tracks_expiries` keeps the index by which a coordinator removes what has expired."""
        self._txn = txn
        self._meta = environment.database("meta")
        self._erasing = environment.database("erasing")
        self._expiries = environment.database("expiries") if tracks_expiries else None
        self._chunks = environment.chunk_databases
        self._replace = txn.cursor().replace
        self._committed_tallies = tallies
        self._position = state.position
        self._digest = state.digest
        self._stamp = state.stamp
        self._next_layer = state.next_layer
        self._next_number = state.next_number
        self._is_lenient = False
        self.tallies: dict[bytes, Tally] = {}
        """Copies of those that this batch touches."""
        self.removed: set[bytes] = set()
        """Namespaces that were deleted and not created again."""
        self.erases = False
        """Whether it leaves records to be erased."""
        self.catalogue_changes: dict[bytes, CatalogItem | None] = {}

    @property
    def digest(self) -> int:
        return self._digest

    def take(self, frame: Frame, *, lenient: bool = False) -> None:
        """Apply one frame.

        A frame that doesn't continue the position is a broken invariant: whoever calls has checked that. `lenient`
        is for records that came with pages, of positions up to some later frame's: an entry may be older than what
        it replaces, or speak of a namespace that is gone by then, and the digest is right only at the end.

        Raises:
            ProtocolError: the body isn't a list of entries, or an epoch begins elsewhere than it must.
            Divergence: it writes into a namespace that doesn't exist here, which the coordinator never
                sequences, or the digest afterwards isn't the frame's.
            ChunksMissing: a large value's chunks aren't here.
        """
        position = self._position
        assert frame.first_seq == position.seq + 1, f"frame {frame.first_seq} applied at {position}"
        assert frame.chain_before == position.chain, f"a frame of another history applied at {position}"
        assert frame.epoch >= position.epoch, f"a frame of epoch {frame.epoch} applied at {position}"
        self._is_lenient = lenient
        self._stamp = frame.stamp
        try:
            self._take_entries(frame, opens_epoch=frame.epoch > position.epoch)
        except (TypeError, ValueError, LookupError, struct.error, msgpack.UnpackException) as error:
            raise ProtocolError(f"frame {frame.first_seq} can't be read: {error}") from error
        if not lenient and self._digest != int.from_bytes(frame.digest_after, "big"):
            raise Divergence(f"the digest at {frame.position} is not the coordinator's")
        self._position = frame.position

    def _take_entries(self, frame: Frame, *, opens_epoch: bool) -> None:
        """Apply the body's entries, without a tuple or a match for each: this is where a replica's time goes.

        Types are checked by what is done with them: bytes concatenate and pack with bytes only.
        """
        body = msgpack.unpackb(memoryview(frame.data)[HEADER_BYTES:], use_list=False)
        epoch, seq, last_seq = frame.epoch, frame.first_seq, frame.last_seq
        if not isinstance(body, tuple) or len(body) != last_seq - seq + 1:
            raise ValueError("it doesn't hold the entries its header counts")
        if (body[0][0] == EPOCH) is not opens_epoch:
            raise ValueError("an epoch begins with its EPOCH entry and nowhere else")
        if opens_epoch:
            self._check_epoch(body[0], epoch)
        tallies = self.tallies
        replace = self._replace
        number = int.from_bytes
        total = 0
        for seq, fields in enumerate(body, seq):  # noqa: B020  (counts on from the frame's first)
            kind = fields[0]
            if kind in (PUT, PUT_LARGE):
                _, namespace, key, value, metadata, expires_at, record_hash = fields
                if len(record_hash) != HASH_BYTES:
                    raise ValueError("a hash of another length")
                tally = tallies.get(namespace) or self._touch(namespace)
                if tally is None:
                    continue
                size = len(metadata) + len(value)
                if kind == PUT_LARGE:
                    size = self._take_large(value) + len(metadata)
                record = pack_record(
                    key, value, metadata, expires_at, epoch, seq, record_hash, large=kind == PUT_LARGE
                )
                if len(key) <= SLICE_BYTES:
                    replaced = replace(tally.prefix + key, record)
                else:
                    replaced = place(self._txn, tally.prefix, key, record, self.new_layer)
                change = number(record_hash, "big")
                if replaced is None:
                    tally.keys += 1
                    size += len(key)
                else:
                    was = read_replaced(key, replaced)
                    assert was.seq < seq or self._is_lenient, f"entry {seq} would replace the newer {was.seq}"
                    change -= was.hash
                    size -= was.size
                    if was.expires_at or was.large:
                        self._forget_attached(namespace, key, was)
                tally.size_bytes += size
                tally.digest += change
                total += change
                if expires_at and self._expiries is not None:
                    expiries.add(self._txn, self._expiries, expires_at, namespace, key)
                if namespace == SYSTEM_NAMESPACE:
                    self._put_item(key, value)
            elif kind == DELETE:
                _, namespace, key = fields
                total += self._delete(namespace, key, seq)
            elif kind != EPOCH or seq != frame.first_seq:
                raise ValueError("an entry of an unknown kind, or an EPOCH entry out of its place")
        self._digest = (self._digest + total) % DIGEST_MODULUS

    @staticmethod
    def _check_epoch(fields: Sequence[Any], epoch: int) -> None:
        _, opened, nonce = fields
        if opened != epoch or not isinstance(nonce, bytes):
            raise ValueError("an EPOCH entry of another epoch")

    def _take_large(self, packed: bytes) -> int:
        """Count the references of a large value that is about to be stored; return its size.

        Raises:
            ChunksMissing: not all of its chunks are here. Not while pages are completed: what is missing then is
                fetched before anybody reads.
        """
        try:
            manifest = Manifest.unpack(packed)
        except ProtocolError as error:
            raise ValueError(str(error)) from None
        if not self._is_lenient:
            missing = chunks.lacking(self._txn, self._chunks, manifest.chunks)
            if missing:
                raise ChunksMissing(tuple(missing), 0)
        chunks.refer(self._txn, self._chunks, packed, 1)
        return manifest.size

    def _forget_attached(self, namespace: bytes, key: bytes, was: Replaced) -> None:
        """A record with an expiry or chunks is gone or replaced."""
        if was.expires_at and self._expiries is not None:
            expiries.remove(self._txn, self._expiries, was.expires_at, namespace, key)
        if was.large:
            chunks.refer(self._txn, self._chunks, was.large, -1)

    def _delete(self, namespace: bytes, key: bytes, seq: int) -> int:
        """Remove a record; return what this adds to the digest. One that doesn't exist is no change."""
        tally = self.tallies.get(namespace) or self._touch(namespace)
        if tally is None:
            return 0
        change = 0
        was = self.remove_record(tally, namespace, key)
        if was is not None:
            assert was.seq < seq or self._is_lenient, f"entry {seq} would remove the newer {was.seq}"
            change = -was.hash
        if namespace == SYSTEM_NAMESPACE and (was is not None or self._is_lenient):
            change += self._delete_item(key)
        return change

    def remove_record(self, tally: Tally, namespace: bytes, key: bytes) -> Replaced | None:
        """Remove a record, from this batch's `tally` of its namespace as well; return what it was, if there."""
        if len(key) > SLICE_BYTES:
            removed = remove(self._txn, tally.prefix, key)
        else:
            removed = self._txn.pop(tally.prefix + key)
        if removed is None:
            return None
        was = read_replaced(key, removed)
        tally.keys -= 1
        tally.size_bytes -= len(key) + was.size
        tally.digest -= was.hash
        if was.expires_at or was.large:
            self._forget_attached(namespace, key, was)
        return was

    def _touch(self, namespace: bytes) -> Tally | None:
        """Return this batch's own copy of a tally it hasn't touched before; None where that may be unknown."""
        if not isinstance(namespace, bytes):
            raise TypeError("a namespace that isn't bytes")
        committed = None if namespace in self.removed else self._committed_tallies.get(namespace)
        if committed is None:
            if self._is_lenient:
                return None
            raise Divergence(f"an entry writes into namespace {namespace.hex()}, which doesn't exist here")
        tally = committed.copied()
        self.tallies[namespace] = tally
        return tally

    def tally_of(self, namespace: bytes) -> Tally:
        """Return this batch's tally of a namespace, which exists afterwards: pages may come before its record."""
        known = self.tallies.get(namespace)
        if known is not None:
            return known
        committed = None if namespace in self.removed else self._committed_tallies.get(namespace)
        if committed is None:
            tally = Tally(root_prefix(self._next_number))
            self._next_number += 1
            self.removed.discard(namespace)
        else:
            tally = committed.copied()
        self.tallies[namespace] = tally
        return tally

    def _put_item(self, key: bytes, value: bytes) -> None:
        item = read_item(key, value)
        if key_of(item) != key:
            raise ProtocolError(f"the catalogue record {key!r} is spelled otherwise than its item")
        self.catalogue_changes[key] = item
        if not isinstance(item, Namespace):
            return
        if len(item.id) != NAMESPACE_ID_BYTES or item.id == SYSTEM_NAMESPACE:
            raise ProtocolError(f"no namespace can have the id {item.id.hex()}")
        self.tally_of(item.id)

    def _delete_item(self, key: bytes) -> int:
        """Forget a catalogue record; a namespace's records are gone at once, and erased later."""
        self.catalogue_changes[key] = None
        if not key.startswith(NAMESPACE_PREFIX):
            return 0
        namespace = bytes.fromhex(key.removeprefix(NAMESPACE_PREFIX).decode())
        tally = self.tallies.get(namespace) or self._touch(namespace)
        if tally is None:
            return 0
        del self.tallies[namespace]
        self.removed.add(namespace)
        self._txn.put(tally.prefix, b"", db=self._erasing)
        self.erases = True
        return -tally.digest

    def new_layer(self) -> bytes:
        """Return the prefix of a layer that was never used before."""
        self._next_layer += 1
        return layer_prefix(self._next_layer)

    def add_to_digest(self, change: int) -> None:
        """Count what was changed otherwise than by an entry: records that came with a page."""
        self._digest = (self._digest + change) % DIGEST_MODULUS

    def finish(self, state: State) -> State:
        """Write the tallies and `state` (which has the journal's part) with this batch's part; return it."""
        state = state._replace(
            position=self._position,
            digest=self._digest,
            stamp=self._stamp,
            next_layer=self._next_layer,
            next_number=self._next_number,
        )
        for namespace in self.removed:
            self._txn.delete(tally_key(namespace), db=self._meta)
        for namespace, tally in self.tallies.items():
            self._txn.put(tally_key(namespace), tally.pack(), db=self._meta)
        self._txn.put(STATE_KEY, state.pack(), db=self._meta)
        return state
