"""Keys of any length in LMDB, whose own keys end at 511 bytes: a trie of B+trees.

As in Masstree (Mao, Kohler, Morris 2012), a key is cut into slices and each layer of the trie is a B+tree over
one slice. Where Masstree gives every layer a tree of its own and slices of 8 bytes, all layers here are key
ranges of one LMDB database, told apart by a prefix, and slices are as long as LMDB allows:

    root    | number 4 (top bit 0) | slice        one per namespace
    layer   | id 8 (top bit 1)     | slice        one per full slice that longer keys share

A key of at most SLICE_BYTES lies whole in its namespace's root: one LMDB operation, as if there were no layers.
A longer one leaves its first full slice in the root, followed by POINTER. What lies there is the prefix of the
next layer, in which its rest lies, or, as long as no other key shares this slice, rest and record themselves:

    LONE 0 | length of the rest u16 | rest | record

so that most long keys are one LMDB operation as well. `prefix ‖ slice` (the record of a key that ends there) is
followed directly by `prefix ‖ slice ‖ POINTER` (all keys that go on), so byte order holds at every length. A layer
without keys does not exist.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final

import lmdb

LMDB_KEY_BYTES_MAX: Final = 511
ROOT_BYTES: Final = 4
LAYER_BYTES: Final = 8
POINTER: Final = b"\x01"
SLICE_BYTES: Final = LMDB_KEY_BYTES_MAX - LAYER_BYTES - len(POINTER)

_LAYER_BIT: Final = 1 << 63
_LONE = struct.Struct(">BH")
_pack_lone: Final = _LONE.pack


def root_prefix(number: int) -> bytes:
    """The prefix of a namespace's own keys; `number` is local to this environment and below 2**31."""
    assert number < 1 << 31, "namespace numbers are used up"
    return number.to_bytes(ROOT_BYTES, "big")


def layer_prefix(layer: int) -> bytes:
    return (layer | _LAYER_BIT).to_bytes(LAYER_BYTES, "big")


def is_pointer(prefix: bytes, db_key: bytes) -> bool:
    return len(db_key) - len(prefix) > SLICE_BYTES


def read_lone(held: bytes) -> bytes | None:
    """Return the record that lies behind a pointer, of a key that has its slice for itself; None for a layer's."""
    if held[0]:
        return None
    _, length = _LONE.unpack_from(held)
    return held[_LONE.size + length :]


def find(get: Callable[[bytes], bytes | None], prefix: bytes, key: bytes) -> bytes | None:
    """Return what is stored for `key` under `prefix`, or None; `get` is that of a transaction over bytes."""
    at, last = SLICE_BYTES, len(key)
    while at < last:
        held = get(prefix + key[at - SLICE_BYTES : at] + POINTER)
        if held is None:
            return None
        if not held[0]:
            lone = _pack_lone(0, last - at) + key[at:]
            return held[len(lone) :] if held.startswith(lone) else None
        prefix = held
        at += SLICE_BYTES
    return get(prefix + key[at - SLICE_BYTES :])


def place(
    txn: lmdb.Transaction[bytes], prefix: bytes, key: bytes, record: bytes, new_layer: Callable[[], bytes]
) -> bytes | None:
    """Store `record` for a key longer than a slice; return what it replaces, or None.

    `new_layer` gives a layer prefix that was never used before.
    """
    while len(key) > SLICE_BYTES:
        pointer, rest = prefix + key[:SLICE_BYTES] + POINTER, key[SLICE_BYTES:]
        held = txn.get(pointer)
        if held is None or not held[0]:
            lone = _pack_lone(0, len(rest)) + rest
            if held is None or held.startswith(lone):
                txn.put(pointer, lone + record)
                return None if held is None else held[len(lone) :]
            # Another key has had this slice for itself: from now on both have a layer.
            layer = new_layer()
            txn.put(pointer, layer)
            _, length = _LONE.unpack_from(held)
            other = held[_LONE.size : _LONE.size + length]
            _place_first(txn, layer, other, held[_LONE.size + length :])
            held = layer
        prefix, key = held, rest
    replaced = txn.get(prefix + key)
    txn.put(prefix + key, record)
    return replaced


def _place_first(txn: lmdb.Transaction[bytes], layer: bytes, key: bytes, record: bytes) -> None:
    if len(key) > SLICE_BYTES:
        rest = key[SLICE_BYTES:]
        txn.put(layer + key[:SLICE_BYTES] + POINTER, _pack_lone(0, len(rest)) + rest + record)
    else:
        txn.put(layer + key, record)


def remove(txn: lmdb.Transaction[bytes], prefix: bytes, key: bytes) -> bytes | None:
    """Remove `key`, and every layer this leaves empty; return what was stored, or None."""
    passed: list[tuple[bytes, bytes]] = []
    removed: bytes | None = None
    while len(key) > SLICE_BYTES:
        pointer = prefix + key[:SLICE_BYTES] + POINTER
        held = txn.get(pointer)
        if held is None:
            return None
        prefix, key = held, key[SLICE_BYTES:]
        if not held[0]:
            lone = _pack_lone(0, len(key)) + key
            if not held.startswith(lone):
                return None
            removed = held[len(lone) :]
            txn.delete(pointer)
            break
        passed.append((pointer, held))
    else:
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
        cut = len(prefix)
        layer: tuple[bytes, bytes] | None = None
        for view, held in cursor.iternext() if found else ():
            db_key = bytes(view)
            if not db_key.startswith(prefix):
                break
            if len(db_key) - cut <= SLICE_BYTES:
                yield head + db_key[cut:], held
            elif held[0]:
                layer = db_key, bytes(held)
                break
            else:
                _, length = _LONE.unpack_from(held)
                record_at = _LONE.size + length
                key = head + db_key[cut : -len(POINTER)] + held[_LONE.size : record_at]
                if key >= start:
                    yield key, held[record_at:]
        if layer is not None:
            pointer, below = layer
            above.append((prefix, head, pointer))
            head += pointer[cut : -len(POINTER)]
            prefix = below
            # A layer on the way to `start` is entered at the rest of it; one behind it from its beginning.
            rest = start[len(head) :] if start.startswith(head) else b""
            found = cursor.set_range(_seek_key(prefix, rest))
        elif above:
            prefix, head, pointer = above.pop()
            found = cursor.set_range(pointer) and cursor.next()
        else:
            return


def _seek_key(prefix: bytes, rest: bytes) -> bytes:
    if len(rest) <= SLICE_BYTES:
        return prefix + rest
    return prefix + rest[:SLICE_BYTES] + POINTER
