"""A node without a network: a real store, and a mini coordinator that sequences writes into it at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from kvnet.api.backend import Relayed, WriteResult
from kvnet.core.catalog import Cluster, Namespace, Scope, Token
from kvnet.core.manifest import Manifest
from kvnet.core.operations import (
    CreateNamespace,
    CreateToken,
    DeleteNamespace,
    DeleteValue,
    Operation,
    PutLargeValue,
    PutValue,
    RenameNamespace,
    RevokeToken,
    RollToken,
)
from kvnet.core.pieces import LargeRoom
from kvnet.core.spread import Share, Spread
from kvnet.core.usage import UsageMeter
from kvnet.core.versions import Version
from kvnet.errors import RequestError, StorageDamaged
from kvnet.limits import Limits
from tests.support.frames import FrameMaker
from tests.support.stores import CLUSTER_ID, open_store

ACCOUNT = "0123456789abcdef0123456789abcdef"
TOKENS = {scope: f"token-that-may-{scope}" for scope in Scope}
NOW_S = 1_800_000_000.25


class FakeRelayed:
    """Another node's answer, that comes in these parts; an exception among them ends it."""

    def __init__(
        self, *parts: bytes | ConnectionError, status: int = 200, reason: str = "OK", **headers: str
    ) -> None:
        self.status = status
        self.reason = reason
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.size: int | None = sum(len(part) for part in parts if isinstance(part, bytes))
        self.closed = False
        self._parts = parts

    async def parts(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            if isinstance(part, ConnectionError):
                raise part
            yield part

    def close(self) -> None:
        self.closed = True


class FakeNode:
    """What the HTTP side asks of a node; tests set the attributes that a network would."""

    def __init__(self, folder: Path, limits: Limits, *, formed: bool = True) -> None:
        self.name = "fra"
        self.pop = "fra"
        self.limits = limits
        self.store = open_store(folder)
        self.now = NOW_S
        self.stale_ms = 0.0
        self.is_ready = formed
        self.pending = False
        self.reaches = True
        """Whether its replica gets to what is waited for."""
        self.refusal: BaseException | None = None
        self.written: list[tuple[Operation, bytes | None]] = []
        self.outcomes: dict[bytes, Version] = {}
        """By request id."""
        self.stretches: list[int] = []
        """How many operations came with each write."""
        self.refusals: list[BaseException | None] = []
        """What the next writes are answered, one by one; None lets one through."""
        self.large_room = LargeRoom()
        self.large_reads = LargeRoom()
        self.usage = UsageMeter()
        self.usage.turn(NOW_S)
        self.damages: list[StorageDamaged] = []
        self.waited: list[bool] = []
        """Of each write, whether it was said that its spread will be asked for."""
        self.spreads: list[tuple[Version, Share, float]] = []
        self.told_spread = Spread(complete=True, applied=2, of=2, missing=(), took_ms={"fra": 0.0, "per": 81.26})
        """What is told of how far a write has spread."""
        self.waits: list[tuple[Version, float]] = []
        self.fresh_waits: list[tuple[float, float]] = []
        self.becomes_fresh = False
        """Whether a beacon comes in time that makes its view as new as is asked for."""
        self.relayed: FakeRelayed | str = "nobody"
        """What another node answers."""
        self.questions: list[tuple[bytes, bool, Version | None, float | None]] = []
        self._maker = FrameMaker()
        if formed:
            self._form()

    def _form(self) -> None:
        self._maker.open_epoch()
        self._maker.put_item(Cluster(ACCOUNT, CLUSTER_ID, 0))
        for scope, secret in TOKENS.items():
            self._maker.put_item(Token(f"id-{scope}", scope, scope, sha256(secret.encode()).digest()))
        self.store.apply([self._maker.cut()])

    def now_s(self) -> float:
        return self.now

    def staleness_ms(self) -> float:
        return self.stale_ms

    def ready(self) -> bool:
        return self.is_ready

    def damaged(self, damage: StorageDamaged) -> None:
        self.damages.append(damage)

    def status(self) -> dict[str, Any]:
        return {"name": self.name, "position": str(self.store.position.version)}

    async def wait_for(self, version: Version, timeout_ms: float) -> bool:
        self.waits.append((version, timeout_ms))
        return self.reaches and self.store.position.version >= version

    async def wait_until_fresh(self, staleness_ms: float, timeout_ms: float) -> bool:
        if self.stale_ms > staleness_ms:
            self.fresh_waits.append((staleness_ms, timeout_ms))
        return self.becomes_fresh or self.stale_ms <= staleness_ms

    async def relay(
        self, question: bytes, *, head_only: bool, at_least: Version | None, staleness_ms: float | None
    ) -> Relayed | str:
        self.questions.append((question, head_only, at_least, staleness_ms))
        return self.relayed

    async def spread(self, version: Version, share: Share, timeout_ms: float) -> Spread:
        self.spreads.append((version, share, timeout_ms))
        return self.told_spread

    async def write(
        self, operations: Sequence[Operation], request_id: bytes | None, *, waited: bool = False
    ) -> WriteResult:
        self.waited.append(waited)
        refusal = self.refusals.pop(0) if self.refusals else self.refusal
        if refusal is not None:
            raise refusal
        assert len(operations) == 1 or all(
            isinstance(operation, (PutValue, DeleteValue)) for operation in operations
        ), "a large value, and whatever isn't a value, comes alone"
        self.written += [(operation, request_id) for operation in operations]
        self.stretches.append(len(operations))
        if request_id is not None and request_id in self.outcomes:
            return WriteResult(self.outcomes[request_id], self.pending)
        version = max([self._sequence(operation) for operation in operations])
        if request_id is not None:
            self.outcomes[request_id] = version
        return WriteResult(version, self.pending)

    def create_namespace(self, title: str) -> bytes:
        namespace = self._maker.create_namespace(title)
        self.store.apply([self._maker.cut()])
        return namespace

    def delete_namespace(self, namespace: bytes) -> None:
        self._sequence(DeleteNamespace(namespace))

    def add_token(self, id_: str, scope: Scope, *, namespaces: tuple[bytes, ...] = (), expires_at: int = 0) -> str:
        """Return the secret of a new token."""
        secret = f"secret-of-{id_}"
        digest = sha256(secret.encode()).digest()
        self._sequence(CreateToken(id_, id_, str(scope), digest, namespaces, expires_at))
        return secret

    def revoke(self, id_: str) -> None:
        self._sequence(RevokeToken(id_))

    def put_many(self, namespace: bytes, keys: Sequence[bytes], *, expires_at: int = 0) -> None:
        for key in keys:
            self._maker.put(namespace, key, b"v", expires_at=expires_at)
        self.store.apply([self._maker.cut()])

    def _sequence(self, operation: Operation) -> Version:
        maker = self._maker
        match operation:
            case PutValue(namespace, key, value, metadata, expires_at, ttl_s):
                self._refuse_unknown(namespace)
                expires_at = int(self.now) + ttl_s if ttl_s else expires_at
                held = self.store.get(namespace, key)
                if held and (held.value, held.metadata, held.expires_at) == (value, metadata, expires_at):
                    return held.version
                version = maker.put(namespace, key, value, metadata=metadata, expires_at=expires_at)
            case PutLargeValue(namespace, key, packed, metadata, expires_at, ttl_s, chunks):
                self._refuse_unknown(namespace)
                self.store.put_chunks(list(zip(Manifest.unpack(packed).chunks, chunks, strict=True)))
                expires_at = int(self.now) + ttl_s if ttl_s else expires_at
                version = maker.put_large(namespace, key, packed, metadata=metadata, expires_at=expires_at)
            case DeleteValue(namespace, key):
                self._refuse_unknown(namespace)
                if key not in maker.records[namespace]:
                    return self.store.position.version
                version = maker.delete(namespace, key)
            case CreateNamespace(namespace, title):
                self._refuse_taken(namespace, title)
                version = maker.put_item(Namespace(namespace, title, 0))
                maker.records[namespace] = {}
            case RenameNamespace(namespace, title):
                self._refuse_unknown(namespace)
                self._refuse_taken(namespace, title)
                version = maker.put_item(Namespace(namespace, title, 0))
            case DeleteNamespace(namespace):
                self._refuse_unknown(namespace)
                version = maker.delete_namespace(namespace)
            case CreateToken(id_, name, scope, digest, namespaces, expires_at):
                for namespace in namespaces:
                    self._refuse_unknown(namespace)
                version = maker.put_item(
                    Token(id_, name, Scope(scope), digest, namespaces, int(self.now * 1000), expires_at)
                )
            case RollToken(id_, digest):
                version = maker.put_item(replace(self._token(id_), hash=digest))
            case RevokeToken(id_):
                version = maker.delete_item(self._token(id_))
            case _:
                raise AssertionError(operation)
        self.store.apply([maker.cut()])
        return version

    def _token(self, id_: str) -> Token:
        for token in self.store.tokens.values():
            if token.id == id_:
                return token
        raise RequestError(404, 20030, "there is no such token")

    def _refuse_unknown(self, namespace: bytes) -> None:
        if namespace not in self.store.namespaces:
            raise RequestError(404, 10013, "no such namespace")

    def _refuse_taken(self, namespace: bytes, title: str) -> None:
        holder = self.store.titles.get(title)
        if holder is not None and holder.id != namespace:
            raise RequestError(400, 10014, "a namespace with this account ID and title already exists")
