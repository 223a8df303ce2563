"""Operations: what a client asks the coordinator to do, before it has a place in the journal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from kvnet.core.catalog import Scope
from kvnet.core.entries import NAMESPACE_ID_BYTES
from kvnet.core.manifest import Manifest
from kvnet.errors import ProtocolError

STRETCH_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of keys, values and metadata that are sequenced at once."""
STRETCH_OPERATIONS_MAX: Final = 10_000


class PutValue(NamedTuple):
    """Replace the whole pair. `ttl_s` > 0 wins over `expires_at` > 0; the coordinator makes it absolute."""

    namespace: bytes
    key: bytes
    value: bytes
    metadata: bytes
    """Compact JSON, or b"" for none."""
    expires_at: int
    """Unix seconds, 0 for never."""
    ttl_s: int
    """Seconds from the moment the coordinator takes the write, 0 for none."""


class PutLargeValue(NamedTuple):
    """As PutValue, of a value whose chunks travel beside the operation and ahead of its entry."""

    namespace: bytes
    key: bytes
    manifest: bytes
    """manifest.Manifest, packed."""
    metadata: bytes
    expires_at: int
    ttl_s: int
    chunks: list[bytes]
    """The chunks' data, in order, on their way to the coordinator's disk; taken out as they are stored."""


class DeleteValue(NamedTuple):
    namespace: bytes
    key: bytes


class CreateNamespace(NamedTuple):
    id: bytes
    title: str


class RenameNamespace(NamedTuple):
    id: bytes
    title: str


class DeleteNamespace(NamedTuple):
    id: bytes


class CreateToken(NamedTuple):
    id: str
    name: str
    scope: str
    hash: bytes
    namespaces: tuple[bytes, ...]
    """() for all."""
    expires_at: int
    """Unix seconds, 0 for never."""


class RevokeToken(NamedTuple):
    id: str


class RollToken(NamedTuple):
    """Another secret for the same token; the old one ends."""

    id: str
    hash: bytes


Operation = (
    PutValue
    | DeleteValue
    | CreateNamespace
    | RenameNamespace
    | DeleteNamespace
    | CreateToken
    | RevokeToken
    | PutLargeValue
    | RollToken
)

_KINDS: Final[tuple[type[Operation], ...]] = (
    PutValue,
    DeleteValue,
    CreateNamespace,
    RenameNamespace,
    DeleteNamespace,
    CreateToken,
    RevokeToken,
    PutLargeValue,
    RollToken,
)


def to_wire(operation: Operation) -> list[Any]:
    """Return the fields that spell this operation; not the chunks of a large value."""
    fields = operation[:-1] if isinstance(operation, PutLargeValue) else operation
    return [_KINDS.index(type(operation)), *fields]


def from_wire(fields: Sequence[Any]) -> Operation:
    """Return the operation these fields spell.

    Raises:
        ProtocolError: an unknown kind, or fields of the wrong number or type.
    """
    match fields:
        case [0, bytes() as ns, bytes() as key, bytes() as value, bytes() as meta, int() as at, int() as ttl]:
            if len(ns) == NAMESPACE_ID_BYTES and at >= 0 and ttl >= 0:
                return PutValue(ns, key, value, meta, at, ttl)
        case [1, bytes() as ns, bytes() as key]:
            if len(ns) == NAMESPACE_ID_BYTES:
                return DeleteValue(ns, key)
        case [2, bytes() as ns, str() as title]:
            if len(ns) == NAMESPACE_ID_BYTES:
                return CreateNamespace(ns, title)
        case [3, bytes() as ns, str() as title]:
            if len(ns) == NAMESPACE_ID_BYTES:
                return RenameNamespace(ns, title)
        case [4, bytes() as ns]:
            if len(ns) == NAMESPACE_ID_BYTES:
                return DeleteNamespace(ns)
        case [5, str() as token_id, str() as name, str() as scope, bytes() as digest, list() as only, int() as at]:
            if scope in set(Scope) and at >= 0 and all(_is_namespace(each) for each in only):
                return CreateToken(token_id, name, scope, digest, tuple(only), at)
        case [7, bytes() as ns, bytes() as key, bytes() as packed, bytes() as meta, int() as at, int() as ttl]:
            Manifest.unpack(packed)
            if len(ns) == NAMESPACE_ID_BYTES and at >= 0 and ttl >= 0:
                return PutLargeValue(ns, key, packed, meta, at, ttl, [])
        case [6, str() as token_id]:
            return RevokeToken(token_id)
        case [8, str() as token_id, bytes() as digest]:
            return RollToken(token_id, digest)
        case _:
            pass
    raise ProtocolError("an operation of an unknown kind or shape")


def _is_namespace(field: Any) -> bool:
    return isinstance(field, bytes) and len(field) == NAMESPACE_ID_BYTES
