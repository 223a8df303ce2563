"""The catalogue: namespaces, tokens, members and the cluster itself, as records of the system namespace.

They travel, converge, count in the digest and survive exactly as every other record does; a namespace
created, renamed or deleted, a token created or revoked, a member joined or left are a PUT or a DELETE of one
of these keys. Values are msgpack maps, so that a later field does no harm to an earlier reader.

    namespace/<id hex>   {"title", "created_ms"}
    token/<id>           {"name", "scope", "hash"[, "namespaces", "created_ms", "expires_at"]}
                         scope: read < write < admin; hash: its sha256; namespaces: none for all of them
    member/<PoP code>    {"joined_ms"}
    cluster              {"account_id", "cluster_id", "created_ms"}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final, assert_never

import msgpack

from kvnet.errors import ProtocolError


class Scope(StrEnum):
    """What a token may do; each includes the ones before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def covers(self, needed: Scope) -> bool:
        order = (Scope.READ, Scope.WRITE, Scope.ADMIN)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class Namespace:
    id: bytes
    """16 bytes; clients see 32 hex digits. Used again after a deletion only where a client asks for it."""
    title: str
    created_ms: int


@dataclass(frozen=True, slots=True)
class Token:
    id: str
    name: str
    scope: Scope
    hash: bytes
    """`hash_token` of the bearer token; the token itself is never stored."""
    namespaces: tuple[bytes, ...] = ()
    """Those it is good for; () for all of the account."""
    created_ms: int = 0
    expires_at: int = 0
    """Unix seconds, 0 for never."""

    def reaches(self, namespace: bytes) -> bool:
        """Whether it is good for this namespace, as far as its scope goes."""
        return not self.namespaces or namespace in self.namespaces

    def is_expired(self, now_s: float) -> bool:
        return 0 < self.expires_at <= now_s


def hash_token(secret: str) -> bytes:
    """Return what the catalogue keeps of a bearer token; any header's text has one, also what isn't Unicode."""
    return sha256(secret.encode("utf-8", "surrogateescape")).digest()


@dataclass(frozen=True, slots=True)
class Member:
    code: str
    joined_ms: int


@dataclass(frozen=True, slots=True)
class Cluster:
    account_id: str
    cluster_id: bytes
    created_ms: int


CatalogItem = Namespace | Token | Member | Cluster

NAMESPACE_PREFIX: Final = b"namespace/"
TOKEN_PREFIX: Final = b"token/"
MEMBER_PREFIX: Final = b"member/"
CLUSTER_KEY: Final = b"cluster"
FOUNDING_PREFIX: Final = "bootstrap-"
"""Begins the ids of the tokens that a cluster is made with, which its own commands use."""


def key_of(item: CatalogItem) -> bytes:
    match item:
        case Namespace():
            return NAMESPACE_PREFIX + item.id.hex().encode()
        case Token():
            return TOKEN_PREFIX + item.id.encode()
        case Member():
            return MEMBER_PREFIX + item.code.encode()
        case Cluster():
            return CLUSTER_KEY
        case _:
            assert_never(item)


def value_of(item: CatalogItem) -> bytes:
    fields: dict[str, Any]
    match item:
        case Namespace():
            fields = {"title": item.title, "created_ms": item.created_ms}
        case Token():
            fields = {"name": item.name, "scope": str(item.scope), "hash": item.hash}
            if item.namespaces:
                fields["namespaces"] = item.namespaces
            fields |= {
                name: number
                for name, number in (("created_ms", item.created_ms), ("expires_at", item.expires_at))
                if number
            }
        case Member():
            fields = {"joined_ms": item.joined_ms}
        case Cluster():
            fields = {
                "account_id": item.account_id,
                "cluster_id": item.cluster_id,
                "created_ms": item.created_ms,
            }
        case _:
            assert_never(item)
    packed: bytes = msgpack.packb(fields)
    return packed


def read_item(key: bytes, value: bytes) -> CatalogItem:
    """Return the item a system record holds.

    Raises:
        ProtocolError: no item has this key, or the value isn't one of its kind.
    """
    kind, slash, name = key.partition(b"/")
    try:
        match kind + slash, msgpack.unpackb(value):
            case [b"namespace/", {"title": str() as title, "created_ms": int() as created_ms}]:
                return Namespace(bytes.fromhex(name.decode()), title, created_ms)
            case [
                b"token/",
                {"name": str() as called, "scope": str() as scope, "hash": bytes() as digest, **rest},
            ]:
                return Token(name.decode(), called, Scope(scope), digest, *_restrictions(rest))
            case [b"member/", {"joined_ms": int() as joined_ms}]:
                return Member(name.decode(), joined_ms)
            case [
                b"cluster",
                {
                    "account_id": str() as account_id,
                    "cluster_id": bytes() as cluster_id,
                    "created_ms": int() as at,
                },
            ]:
                return Cluster(account_id, cluster_id, at)
            case _:
                pass
    except (ValueError, msgpack.UnpackException) as error:
        raise ProtocolError(f"the catalogue record {key!r} can't be read: {error}") from None
    raise ProtocolError(f"no catalogue record has the key {key!r}, or none with such a value")


def _restrictions(fields: Mapping[Any, Any]) -> tuple[tuple[bytes, ...], int, int]:
    """Return a token's later fields, which older records don't have.

    Raises:
        ValueError: one of them isn't what it must be. A restriction that can't be read must not be none.
    """
    told = (fields.get("namespaces", []), fields.get("created_ms", 0), fields.get("expires_at", 0))
    match told:
        case [list() as namespaces, int() as created_ms, int() as expires_at] if all(
            isinstance(namespace, bytes) for namespace in namespaces
        ):
            return tuple(namespaces), created_ms, expires_at
        case _:
            raise ValueError("a token's namespaces or times that aren't what they must be")
