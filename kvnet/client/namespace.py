"""One namespace as a Python object: the calls a Worker knows, and what an answer carries besides."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from io import BytesIO
from typing import Any, Final, TypeVar

from kvnet.client import wire
from kvnet.client.account import find
from kvnet.client.answers import (
    KEY_NOT_FOUND,
    NAMESPACE_NOT_FOUND,
    Answer,
    FoundPair,
    ListedKey,
    NamespaceInfo,
    NewPair,
    Value,
)
from kvnet.client.exchange import Exchange
from kvnet.core.entries import INLINE_VALUE_BYTES_MAX
from kvnet.core.versions import Version
from kvnet.errors import RequestError

PAGE_KEYS_MIN: Final = 10
PAGE_KEYS_MAX: Final = 1000
"""The API takes page sizes between these."""
TORN_READS_MAX: Final = 5
"""Times a value and its metadata may turn out to be of two versions before the read is given up."""

_ID = re.compile(r"[0-9a-f]{32}")
ResultT = TypeVar("ResultT")


class Namespace:
    """A namespace by title or id; a title is looked up with the first call and again after a deletion."""

    def __init__(self, exchange: Exchange, name: str, id_: str | None = None) -> None:
        self._exchange = exchange
        self.name = name
        """Title or id, as given."""
        self._id = id_ or (name if _ID.fullmatch(name) else None)

    async def get(self, key: str, *, at_least: Version | None = None) -> bytes | None:
        """Return the value at the nearest edge, None when it has none there.

        With `at_least` the edge waits, within its limits, until it has that write.

        Raises:
            RequestError: the namespace is unknown, the request was refused, or no edge answered.
        """
        answer = await self._call(lambda id_: self._read(f"/{id_}/values/{wire.segment(key)}", at_least), at_least)
        return None if answer is None else answer.body

    async def get_with_metadata(self, key: str, *, at_least: Version | None = None) -> Value | None:
        """Return value, metadata, expiry and origin, all of one version; None when there is none.

        Raises:
            RequestError: as for `get`.
        """
        return await self._call(lambda id_: self._get_whole(id_, key, at_least), at_least)

    async def get_many(self, keys: Sequence[str]) -> dict[str, FoundPair | None]:
        """Return at most 100 pairs, each whole, and None for each that isn't there.

        Values that aren't UTF-8, or more than 25 MiB of them, can't be had so; ask for those one by one.

        Raises:
            RequestError: as for `get`.
        """

        async def ask(id_: str) -> dict[str, FoundPair | None]:
            wanted = {"keys": list(keys), "withMetadata": True}
            answer = await self._exchange.ask(f"/{id_}/bulk/get", lambda: wire.document(wanted))
            return answer.found_pairs()

        return await self._call(ask)

    async def put(
        self,
        key: str,
        value: bytes | str,
        *,
        ttl: int | None = None,
        expiration: int | None = None,
        metadata: Any = None,
    ) -> Version:
        """Return the version of the write, durable at the coordinator; text is stored as UTF-8.

        It replaces value, metadata and expiry at once. `ttl` in seconds wins over `expiration` in unix seconds;
        neither means for ever. `metadata` is any JSON value, or `msgspec.Raw` of one that is to be spelled so;
        None for none.

        Raises:
            RequestError: refused, or, when `definite` is False, perhaps done but not confirmed.
        """
        content = value.encode() if isinstance(value, str) else value
        query = wire.query(expiration=expiration, expiration_ttl=ttl)

        large = len(content) > INLINE_VALUE_BYTES_MAX

        def body() -> Any:
            source = BytesIO(content) if large else content  # aiohttp sends a file bit by bit
            return source if metadata is None else wire.form(source, metadata)

        async def write(id_: str) -> Version:
            path = f"/{id_}/values/{wire.segment(key)}{query}"
            answer = await self._exchange.write("PUT", path, body, large=large)
            answer.envelope()
            return answer.version

        return await self._call(write)

    async def put_many(self, pairs: Sequence[NewPair]) -> Version | None:
        """Return the version of the last of these writes, all durable; None if there was nothing to write.

        At most 10,000 pairs and 100 MB as JSON. One that is refused refuses them all; of two for one key the last
        one counts.

        Raises:
            RequestError: as for `put`.
        """

        async def write(id_: str) -> Version | None:
            answer = await self._exchange.write("PUT", f"/{id_}/bulk", lambda: wire.pairs(pairs), large=True)
            answer.envelope()
            return answer.version if pairs else None

        return await self._call(write)

    async def delete(self, key: str) -> Version:
        """Return the version as of which the key is gone; a key that was not there is no error.

        Raises:
            RequestError: as for `put`.
        """

        async def write(id_: str) -> Version:
            answer = await self._exchange.write("DELETE", f"/{id_}/values/{wire.segment(key)}")
            answer.envelope()
            return answer.version

        return await self._call(write)

    async def list(self, *, prefix: str = "", limit: int | None = None) -> AsyncIterator[ListedKey]:
        """Yield keys that start with `prefix`, by their UTF-8 bytes, at most `limit` of them.

        Pages are fetched as they are needed: keys written behind the last one seen appear, others don't.

        Raises:
            RequestError: as for `get`.
        """
        left = limit
        cursor = ""
        while left is None or left > 0:
            size = PAGE_KEYS_MAX if left is None else min(max(left, PAGE_KEYS_MIN), PAGE_KEYS_MAX)
            query = wire.query(prefix=prefix, limit=size, cursor=cursor or None)

            async def page(id_: str, query: str = query) -> dict[str, Any]:
                return (await self._exchange.read(f"/{id_}/keys{query}")).envelope()

            envelope = await self._call(page)
            for key in envelope["result"][:left]:
                yield ListedKey(name=key["name"], metadata=key.get("metadata"), expires_at=key.get("expiration"))
            if left is not None:
                left -= len(envelope["result"])
            cursor = envelope["result_info"]["cursor"]
            if not cursor:
                return

    async def id(self) -> str:
        """Return the id: 32 hex digits, never used again after a deletion.

        Raises:
            RequestError: there is no such namespace, or no edge answered.
        """
        return self._id or (await self.info()).id

    async def info(self) -> NamespaceInfo:
        """Return id and title.

        Raises:
            RequestError: there is no such namespace, or no edge answered.
        """
        found = await find(self._exchange, self.name)
        self._id = found.id
        return found

    async def rename(self, title: str) -> None:
        """Give the namespace another title.

        Raises:
            RequestError: another one has that title, or as for `put`.
        """

        async def write(id_: str) -> None:
            (await self._exchange.write("PUT", f"/{id_}", lambda: wire.document({"title": title}))).envelope()

        await self._call(write)
        if self.name != self._id:
            self.name = title

    async def drop(self) -> None:
        """Delete the namespace with everything in it.

        Raises:
            RequestError: as for `put`.
        """

        async def write(id_: str) -> None:
            (await self._exchange.write("DELETE", f"/{id_}")).envelope()

        await self._call(write)

    async def _get_whole(self, id_: str, key: str, at_least: Version | None) -> Value | None:
        """Return value and metadata of one version: the API tells them apart, and a write may come between."""
        for _ in range(TORN_READS_MAX):
            value = await self._read(f"/{id_}/values/{wire.segment(key)}", at_least)
            if value is None:
                return None
            metadata = await self._read(f"/{id_}/metadata/{wire.segment(key)}", value.version)
            if metadata is not None and metadata.version == value.version:
                return Value(
                    value=value.body,
                    metadata=metadata.envelope()["result"],
                    metadata_json=metadata.result_json(),
                    expires_at=value.expires_at,
                    version=value.version,
                    pop=value.pop,
                    staleness_ms=value.staleness_ms,
                )
        raise RequestError(409, 10001, f"{key!r} changed during each of {TORN_READS_MAX} reads: try again")

    async def _read(self, path: str, at_least: Version | None) -> Answer | None:
        """Return the answer, None when the key isn't there."""
        answer = await self._exchange.read(path, headers=_waiting_for(at_least))
        if answer.status == 200:
            return answer
        error = answer.error()
        if error.code == KEY_NOT_FOUND:
            return None
        raise error

    async def _call(self, call: Callable[[str], Awaitable[ResultT]], at_least: Version | None = None) -> ResultT:
        """Return what `call` makes of this namespace's id, which an edge may know only as of `at_least`."""
        remembered = self._id
        if remembered is not None:
            try:
                return await call(remembered)
            except RequestError as error:
                if error.code != NAMESPACE_NOT_FOUND:
                    raise
        # either nobody asked yet, or the title may stand for another namespace now
        found = await find(self._exchange, self.name, _waiting_for(at_least))
        self._id = found.id
        return await call(found.id)


def _waiting_for(at_least: Version | None) -> dict[str, str]:
    """Return the header that makes an edge wait until it has this version."""
    return {} if at_least is None else {"KV-At-Least": str(at_least)}
