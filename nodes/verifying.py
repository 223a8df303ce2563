"""What a node answers to `kvnet verify`: what its stored bytes add up to, as a whole and range by range.

    GET /peer/v1/verify?at=<version>             everything, at this position or a later one
        ?namespace=<hex>&after=<hex>&until=<hex>     the keys behind `after` up to `until`; with &at or &evidence
        ?digest_at=<seq>                         what the journal says the digest was where a frame ended

A node that finds itself damaged stops serving at once. What it found stays readable for a minute as *evidence*,
so that the keys can be named although the replica is being made anew.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from aiohttp import web

from kvnet.core.entries import NAMESPACE_ID_BYTES, SYSTEM_NAMESPACE
from kvnet.core.versions import Version
from kvnet.errors import RequestError, StorageDamaged
from kvnet.storage.chunk_check import find_damaged_values
from kvnet.storage.environment import Environment
from kvnet.storage.store import Store, Verification
from kvnet.storage.verification import RangeDigest, range_digest, verify

VERIFY_PATH: Final = "/peer/v1/verify"
WAIT_MS: Final = 10_000.0
"""How long a node waits until it stands where the coordinator stood."""
RECORDS_NAMED_MAX: Final = 200
"""A range with no more keys is told key by key."""
KEYS_TOLD_MAX: Final = 1000
"""Of a node's own damaged records."""
EVIDENCE_S: Final = 60.0

T = TypeVar("T")


class _Evidence(NamedTuple):
    """A damaged replica as it was found; its files may be deleted already."""

    name: str
    environment: Environment


class Verifying:
    """One node's answers; one question at a time, in a thread."""

    def __init__(
        self,
        store: Store,
        *,
        wait_for: Callable[[Version, float], Awaitable[bool]],
        damaged: Callable[[StorageDamaged], None],
        cure: str,
    ) -> None:
        """`damaged` hears of damage that was found here, and `cure` is what then becomes of it."""
        self._store = store
        self._wait_for = wait_for
        self._damaged = damaged
        self._cure = cure
        self._one_at_a_time = asyncio.Lock()
        self._evidence: _Evidence | None = None

    async def answer(self, query: Mapping[str, str]) -> web.Response:
        """Answer one question of somebody who may ask.

        Raises:
            RequestError: it isn't one, or its evidence is gone.
        """
        try:
            at = Version.parse(query["at"]) if "at" in query else None
            if "digest_at" in query:
                return web.json_response(self._digest_at(int(query["digest_at"])))
            if "namespace" in query:
                namespace = bytes.fromhex(query["namespace"])
                after, until = (bytes.fromhex(query.get(name, "")) for name in ("after", "until"))
            else:
                namespace, after, until = b"", b"", b""
        except ValueError as error:
            raise RequestError(400, 10001, f"verify: {error}") from None
        if namespace and len(namespace) != NAMESPACE_ID_BYTES:
            raise RequestError(400, 10001, "verify: a namespace has 32 hex digits")
        if at is not None:
            await self._wait_for(at, WAIT_MS)
        if namespace:
            return web.json_response(await self._range(namespace, after, until, query.get("evidence")))
        return web.json_response(await self._everything())

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        async with self._one_at_a_time:
            return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)

    async def _everything(self) -> dict[str, Any]:
        environment = self._store.environment
        try:
            found = await self._in_thread(verify, environment)
            values = await self._in_thread(find_damaged_values, environment)
        except StorageDamaged as damage:
            self._stop_serving(environment, str(damage))
            return {"damaged": str(damage), "cure": self._cure}
        differing = list(dict.fromkeys([*found.differing, *values]))
        answer: dict[str, Any] = {
            "position": str(found.position.version),
            "chain": found.position.chain.hex(),
            "digest": f"{found.digest_stored:032x}",
            "recomputed": f"{found.digest_recomputed:032x}",
            "differing": [[namespace.hex(), key.hex()] for namespace, key in differing[:KEYS_TOLD_MAX]],
            "namespaces_differing": [namespace.hex() for namespace in found.namespaces_differing],
            "titles": {namespace.hex(): self._title(namespace) for namespace in self._store.tallies},
        }
        if not found.good or values:
            answer["cure"] = self._cure
            answer["evidence"] = self._stop_serving(environment, _in_words(found, differing))
        return answer

    def _stop_serving(self, environment: Environment, what: str) -> str:
        """Tell the protocol, unless this replica was replaced meanwhile; return the evidence's name."""
        evidence = _Evidence(secrets.token_hex(8), environment)
        self._evidence = evidence
        asyncio.get_running_loop().call_later(EVIDENCE_S, self._forget, evidence)
        if self._store.environment is environment:
            self._damaged(StorageDamaged(f"{what}; {self._cure}"))
        return evidence.name

    def _forget(self, evidence: _Evidence) -> None:
        if self._evidence is evidence:
            self._evidence = None

    def _title(self, namespace: bytes) -> str:
        found = self._store.namespaces.get(namespace)
        if namespace == SYSTEM_NAMESPACE:
            return "(catalogue)"
        return namespace.hex() if found is None else found.title

    async def _range(self, namespace: bytes, after: bytes, until: bytes, evidence: str | None) -> dict[str, Any]:
        environment = self._store.environment
        if evidence is not None:
            if self._evidence is None or self._evidence.name != evidence:
                raise RequestError(410, 10001, "verify: what was found is no longer there; verify again")
            environment = self._evidence.environment
        found: RangeDigest = await self._in_thread(
            range_digest, environment, namespace, after, until, RECORDS_NAMED_MAX
        )
        return {
            "position": str(found.position.version),
            "count": found.count,
            "digest": f"{found.digest:032x}",
            "records": None
            if found.records is None
            else [[key.hex(), seq, hash_.hex()] for key, seq, hash_ in found.records],
            "splits": [key.hex() for key in found.splits],
        }

    def _digest_at(self, seq: int) -> dict[str, str]:
        """Return an empty answer where the journal can't tell."""
        found = self._store.digest_at(seq)
        if found is None:
            return {}
        position, digest = found
        return {
            "position": str(position.version),
            "chain": position.chain.hex(),
            "digest": f"{digest:032x}",
        }


def _in_words(found: Verification, differing: list[tuple[bytes, bytes]]) -> str:
    if differing:
        return f"{len(differing)} stored records or values aren't what was written"
    if found.namespaces_differing:
        return f"the records of {len(found.namespaces_differing)} namespaces don't add up"
    return "the stored records don't add up to the digest"
