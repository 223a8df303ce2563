"""What the HTTP rooms ask of the node they stand in front of; coordinator and edge both are one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kvnet.core.catalog import Cluster, Namespace, Token
from kvnet.core.operations import Operation
from kvnet.core.pieces import LargeRoom
from kvnet.core.spread import Share, Spread
from kvnet.core.usage import UsageMeter
from kvnet.core.versions import Position, Version
from kvnet.errors import StorageDamaged
from kvnet.limits import Limits
from kvnet.storage.reads import View
from kvnet.storage.state import Tally
from kvnet.storage.store import ListedKey, StoredRecord


@dataclass(frozen=True, slots=True)
class WriteResult:
    """An acknowledged write."""

    version: Version
    """Its place; for a write that changed nothing the place of the state it equals."""
    pending: bool
    """Durable at the coordinator, but not in this node's replica when the wait for it ended."""


class Relayed(Protocol):
    """Another node's answer to a read, on its way here."""

    @property
    def status(self) -> int: ...
    @property
    def reason(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]:
        """Those that speak of the answer, not of the connection it came by."""

    @property
    def size(self) -> int | None:
        """How many bytes its body has; None while that isn't known."""

    def parts(self) -> AsyncIterator[bytes]:
        """Return the body as it comes.

        Raises:
            ConnectionAbortedError: it ended early.
        """

    def close(self) -> None:
        """No more of it is wanted; may be called again."""


class StoreView(Protocol):
    """The part of the store that reads need."""

    @property
    def position(self) -> Position: ...
    @property
    def view(self) -> View: ...
    @property
    def changes(self) -> memoryview:
        """One number, raised before and after whatever a reader may see, and odd meanwhile."""

    @property
    def namespaces(self) -> Mapping[bytes, Namespace]: ...
    @property
    def titles(self) -> Mapping[str, Namespace]: ...
    @property
    def tokens(self) -> Mapping[bytes, Token]:
        """By sha256 of the token."""

    @property
    def cluster(self) -> Cluster | None: ...
    @property
    def tallies(self) -> Mapping[bytes, Tally]:
        """By namespace, the system namespace included."""

    def get(self, namespace: bytes, key: bytes) -> StoredRecord | None: ...
    def get_many(self, namespace: bytes, keys: Sequence[bytes]) -> list[StoredRecord | None]:
        """As `get` of each, all as of one commit."""

    def list_keys(
        self, namespace: bytes, prefix: bytes, after: bytes | None, limit: int, now_s: int
    ) -> tuple[list[ListedKey], bool]: ...
    def chunk(self, name: bytes) -> bytes | None: ...
    def lacking_chunks(self, names: Sequence[bytes]) -> list[bytes]: ...


class Backend(Protocol):
    """One node, as its HTTP side sees it."""

    @property
    def name(self) -> str:
        """`coordinator` or the PoP's code."""

    @property
    def pop(self) -> str:
        """The PoP the node stands in; the coordinator's place for the coordinator."""

    @property
    def limits(self) -> Limits: ...
    @property
    def large_room(self) -> LargeRoom:
        """How many large values may still come in."""

    @property
    def large_reads(self) -> LargeRoom:
        """How many long answers may still be made."""

    @property
    def usage(self) -> UsageMeter:
        """What clients asked of this node."""

    @property
    def store(self) -> StoreView: ...

    def now_s(self) -> float:
        """Replica time in unix seconds: decides expiry, never goes back."""

    def staleness_ms(self) -> float:
        """Upper bound on the age of this replica's view; 0 at the coordinator."""

    def ready(self) -> bool:
        """Whether the replica may serve: it holds the cluster's catalogue and isn't diverged."""

    async def write(
        self, operations: Sequence[Operation], request_id: bytes | None, *, waited: bool = False
    ) -> WriteResult:
        """Have the coordinator sequence these, all or none, and wait for this replica (at most 1 s).

        `waited` says that `spread` will be asked for.

        Raises:
            RequestError: refused (definite), or unknown after a time-out (not definite).
        """

    async def spread(self, version: Version, share: Share, timeout_ms: float) -> Spread:
        """Return how far a write has spread, once such a share of the members has it, or when the time is over."""

    async def wait_for(self, version: Version, timeout_ms: float) -> bool:
        """Whether this replica reached the version in time."""

    async def wait_until_fresh(self, staleness_ms: float, timeout_ms: float) -> bool:
        """Whether this replica's view was no staler in time; at once where no beacon could make it so."""

    async def relay(
        self, question: bytes, *, head_only: bool, at_least: Version | None, staleness_ms: float | None
    ) -> Relayed | str:
        """Put a read to nodes that should be as new as this, one after the other.

        Return the first answer, or in a few words who was asked and why none of them gave one.
        """

    def damaged(self, damage: StorageDamaged) -> None:
        """What was read isn't what was written: the node must not serve until its replica is made anew."""

    def status(self) -> dict[str, Any]:
        """Everything `/status` tells."""
