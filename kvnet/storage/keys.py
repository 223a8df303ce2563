"""Keys of any length in LMDB, whose own keys end at 511 bytes: a trie of B+trees.

As in Masstree (Mao, Kohler, Morris 2012), a key is cut into slices and each layer of the trie is a B+tree over
one slice. Where Masstree gives every layer a tree of its own and slices of 8 bytes, all layers here are key
ranges of one LMDB database, told apart by a prefix, and slices are as long as LMDB allows:

    root    | number 4 (top bit 0) | slice        one per namespace
    layer   | id 8 (top bit 1)     | slice        one per full slice that longer keys share

A key of at most SLICE_BYTES lies whole in its namespace's root: one LMDB operation, as if there were no layers.
A longer one leaves its first full slice in the root, followed by POINTER, with the next layer's prefix as value;
its rest lies in that layer. `prefix ‖ slice` (the record of a key that ends there) is followed directly by
`prefix ‖ slice ‖ POINTER` (all keys that go on), so byte order holds at every length. A layer without keys does
not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import lmdb

LMDB_KEY_BYTES_MAX: Final = 511
ROOT_BYTES: Final = 4
LAYER_BYTES: Final = 8
POINTER: Final = b"\x01"
SLICE_BYTES: Final = LMDB_KEY_BYTES_MAX - LAYER_BYTES - len(POINTER)

_LAYER_BIT: Final = 1 << 63


def root_prefix(number: int) -> bytes:
    """The prefix of a namespace's own keys; `number` is local to this environment and below 2**31."""
    assert number < 1 << 31, "namespace numbers are used up"
    return number.to_bytes(ROOT_BYTES, "big")


def layer_prefix(layer: int) -> bytes:
    return (layer | _LAYER_BIT).to_bytes(LAYER_BYTES, "big")


def is_pointer(prefix: bytes, db_key: bytes) -> bool:
    return len(db_key) - len(prefix) > SLICE_BYTES


def find(get: Callable[[bytes], bytes | None], prefix: bytes, key: bytes) -> bytes | None:
    """Return what is stored for `key` under `prefix`, or None; `get` is that of a transaction over bytes."""
    at, last = 0, len(key) - SLICE_BYTES
    while at < last:
        layer = get(prefix + key[at : at + SLICE_BYTES] + POINTER)
        if layer is None:
            return None
        prefix = layer
        at += SLICE_BYTES
    return get(prefix + key[at:])


def make_place(txn: lmdb.Transaction[bytes], prefix: bytes, key: bytes, new_layer: Callable[[], bytes]) -> bytes:
    """Return where `key` is to be stored under `prefix`; the layers on the way exist afterwards.

    `new_layer` gives a layer prefix that was never used before.
    """
    while len(key) > SLICE_BYTES:
        pointer = prefix + key[:SLICE_BYTES] + POINTER
        layer = txn.get(pointer)
        if layer is None:
            layer = new_layer()
            txn.put(pointer, layer)
        prefix, key = layer, key[SLICE_BYTES:]
    return prefix + key


def remove(txn: lmdb.Transaction[bytes], prefix: bytes, key: bytes) -> bytes | None:
    """Remove `key`, and every layer this leaves empty; return what was stored, or None."""
    passed: list[tuple[bytes, bytes]] = []
    while len(key) > SLICE_BYTES:
        pointer = prefix + key[:SLICE_BYTES] + POINTER
        layer = txn.get(pointer)
        if layer is None:
            return None
        passed.append((pointer, layer))
        prefix, key = layer, key[SLICE_BYTES:]
    removed = txn.pop(prefix + key)
    if removed is None or not passed:
        return removed
    with txn.cursor() as cursor:
        for pointer, layer in reversed(passed):
            if cursor.set_range(layer) and cursor.key().startswith(layer):
                break
            txn.delete(pointer)
    return removed


def walk(cursor: lmdb.Cursor[memoryview], prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, memoryview]]:
    """Yield (key, stored bytes) of every key from `start` on, in byte order.

    The stored bytes are a view into the map, valid until the iterator is asked for the next.
    """
    above: list[tuple[bytes, bytes, bytes]] = []
    head = b""
    found = cursor.set_range(_seek_key(prefix, start))
    while True:
        db_key = bytes(cursor.key()) if found else b""
        if not db_key.startswith(prefix):
            if not above:
                return
            prefix, head, pointer = above.pop()
            found = cursor.set_range(pointer) and cursor.next()
        elif is_pointer(prefix, db_key):
            above.append((prefix, head, db_key))
            head += db_key[len(prefix) : -len(POINTER)]
            prefix = bytes(cursor.value())
            # A layer on the way to `start` is entered at the rest of it; one behind it from its beginning.
            rest = start[len(head) :] if start.startswith(head) else b""
            found = cursor.set_range(_seek_key(prefix, rest))
        else:
            yield head + db_key[len(prefix) :], cursor.value()
            found = cursor.next()


def _seek_key(prefix: bytes, rest: bytes) -> bytes:
    if len(rest) <= SLICE_BYTES:
        return prefix + rest
    return prefix + rest[:SLICE_BYTES] + POINTER
