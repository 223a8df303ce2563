"""One namespace as a Python object: the calls a Worker knows, and what an answer carries besides."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from io import BytesIO
from typing import Any, Final, Literal, TypeVar, Unpack, overload

from kvnet.client import listing, wire
from kvnet.client.account import find
from kvnet.client.answers import KEY_NOT_FOUND, NAMESPACE_NOT_FOUND, Answer, NamespaceInfo, NewPair
from kvnet.client.contents import Content, ValueStream, content_of
from kvnet.client.exchange import LARGE_PATIENCE_S, Exchange
from kvnet.client.options import FreshOptions, GetOptions, ListOptions, PutOptions, named, read_get, read_list
from kvnet.client.receipt import Receipt, Wait, Waiting
from kvnet.client.session import ANY, Freshness
from kvnet.core.entries import INLINE_VALUE_BYTES_MAX
from kvnet.core.versions import Version
from kvnet.errors import RequestError
from kvnet.values import KeyPage, Keys, ListedKey, Value, check_key, check_keys, check_type, convert

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

    # -- the calls a Worker knows ----------------------------------------------------------------------------

    @overload
    async def get(self, key: str, type: Literal["text"] = "text", **options: Unpack[GetOptions]) -> str | None: ...
    @overload
    async def get(self, key: str, type: Literal["json"], **options: Unpack[GetOptions]) -> Any: ...
    @overload
    async def get(
        self, key: str, type: Literal["bytes", "arrayBuffer"], **options: Unpack[GetOptions]
    ) -> bytes | None: ...
    @overload
    async def get(
        self, key: str, type: Literal["stream"], **options: Unpack[GetOptions]
    ) -> ValueStream | None: ...
    @overload
    async def get(
        self, key: Keys, type: Literal["text"] = "text", **options: Unpack[GetOptions]
    ) -> dict[str, str | None]: ...
    @overload
    async def get(self, key: Keys, type: Literal["json"], **options: Unpack[GetOptions]) -> dict[str, Any]: ...
    @overload
    async def get(self, key: str | Keys, type: Mapping[str, Any], **options: Unpack[GetOptions]) -> Any: ...
    async def get(
        self,
        key: str | Keys,
        type: str | Mapping[str, Any] = "text",  # noqa: A002 - the name that a Worker knows it by
        **options: Unpack[GetOptions],
    ) -> Any:
        """Return the value as text, JSON, bytes or a stream of bytes, None when there is none at the nearest edge.

        Of a list of up to 100 keys, a dict of their values, as text or JSON. The options may come as a mapping in
        place of the type, as a Worker writes them.

        Raises:
            RequestError: the namespace is unknown, the request was refused, or no edge answered.
            TypeError, ValueError: no key, type or option, or a value that isn't JSON was asked for as such.
        """
        wanted, fresh = read_get(type, options)
        if not isinstance(key, str):
            found = await self._get_several(key, wanted, fresh)
            return {each: value.value for each, value in found.items()}
        check_type(wanted, streams=True)
        check_key(key)
        streamed = wanted == "stream"
        answer = await self._call(
            lambda id_: self._read(f"/{id_}/values/{wire.segment(key)}", fresh, streamed=streamed), fresh
        )
        if answer is None:
            return None
        if streamed:
            assert answer.response is not None
            return ValueStream(answer.response)
        return convert(answer.body, wanted)

    @overload
    async def get_with_metadata(
        self, key: str, type: Literal["text"] = "text", **options: Unpack[GetOptions]
    ) -> Value[str]: ...
    @overload
    async def get_with_metadata(
        self, key: str, type: Literal["json"], **options: Unpack[GetOptions]
    ) -> Value[Any]: ...
    @overload
    async def get_with_metadata(
        self, key: str, type: Literal["bytes", "arrayBuffer"], **options: Unpack[GetOptions]
    ) -> Value[bytes]: ...
    @overload
    async def get_with_metadata(
        self, key: Keys, type: Literal["text"] = "text", **options: Unpack[GetOptions]
    ) -> dict[str, Value[str]]: ...
    @overload
    async def get_with_metadata(
        self, key: Keys, type: Literal["json"], **options: Unpack[GetOptions]
    ) -> dict[str, Value[Any]]: ...
    @overload
    async def get_with_metadata(
        self, key: str | Keys, type: Mapping[str, Any], **options: Unpack[GetOptions]
    ) -> Any: ...
    async def get_with_metadata(
        self,
        key: str | Keys,
        type: str | Mapping[str, Any] = "text",  # noqa: A002 - as above
        **options: Unpack[GetOptions],
    ) -> Any:
        """Return value, metadata, expiry and origin, all of one version; of a list of keys, a dict of them.

        The value is None when there is none. No streams: what is read twice if need be is read whole.

        Raises:
            as get.
        """
        wanted, fresh = read_get(type, options)
        if not isinstance(key, str):
            return await self._get_several(key, wanted, fresh)
        check_type(wanted)
        check_key(key)
        return await self._call(lambda id_: self._get_whole(id_, key, wanted, fresh), fresh)

    @overload
    async def put(
        self, key: str, value: Content, options: Mapping[str, Any] | None = None, **more: Unpack[PutOptions]
    ) -> Version: ...
    @overload
    async def put(
        self,
        key: str,
        value: Content,
        options: Mapping[str, Any] | None = None,
        *,
        wait: Wait,
        wait_timeout_ms: int | None = None,
        **more: Unpack[PutOptions],
    ) -> Receipt: ...
    async def put(
        self,
        key: str,
        value: Content,
        options: Mapping[str, Any] | None = None,
        *,
        wait: Wait | None = None,
        wait_timeout_ms: int | None = None,
        **more: Unpack[PutOptions],
    ) -> Version | Receipt:
        """Return the version of the write, durable at the coordinator; text is stored as UTF-8.

        It replaces value, metadata and expiry at once. With `wait`, return a receipt once so many PoPs have it, or
        the time is over: `local` for the PoP that is asked, `99%`, or `all`.

        Raises:
            RequestError: refused, or, when `definite` is False, perhaps done but not confirmed.
            TypeError, ValueError: no key, value or option.
        """
        check_key(key)
        given = named({**(options or {}), **more}, {"expiration", "expiration_ttl", "metadata"})
        metadata = given.get("metadata")
        content = await content_of(value)
        query = wire.query(expiration=given.get("expiration"), expiration_ttl=given.get("expiration_ttl"))
        large = len(content) > INLINE_VALUE_BYTES_MAX
        waiting = Waiting(wait, wait_timeout_ms)

        def body() -> Any:
            source = BytesIO(content) if large else content  # aiohttp sends a file bit by bit
            return source if metadata is None else wire.form(source, metadata)

        async def write(id_: str) -> Version | Receipt:
            path = f"/{id_}/values/{wire.segment(key)}{query}"
            patience_s = waiting.patience_s + (LARGE_PATIENCE_S if large else 0.0)
            answer = await self._exchange.write("PUT", path, body, headers=waiting.headers, patience_s=patience_s)
            return waiting.outcome(answer)

        return await self._call(write)

    @overload
    async def delete(self, key: str) -> Version: ...
    @overload
    async def delete(self, key: str, *, wait: Wait, wait_timeout_ms: int | None = None) -> Receipt: ...
    async def delete(
        self, key: str, *, wait: Wait | None = None, wait_timeout_ms: int | None = None
    ) -> Version | Receipt:
        """Return the version as of which the key is gone, or a receipt; a key that was not there is no error.

        Raises:
            as put.
        """
        check_key(key)
        waiting = Waiting(wait, wait_timeout_ms)

        async def write(id_: str) -> Version | Receipt:
            path = f"/{id_}/values/{wire.segment(key)}"
            answer = await self._exchange.write(
                "DELETE", path, headers=waiting.headers, patience_s=waiting.patience_s
            )
            return waiting.outcome(answer)

        return await self._call(write)

    async def list(self, options: Mapping[str, Any] | None = None, **more: Unpack[ListOptions]) -> KeyPage:
        """Return a page of the keys that start with a prefix, by their UTF-8 bytes.

        Raises:
            as get.
        """
        given, fresh = read_list({**(options or {}), **more})
        asked = listing.Asked(given.get("prefix") or "", given.get("limit"), given.get("cursor") or "")

        async def page(id_: str) -> KeyPage:
            return asked.page((await self._exchange.read(f"/{id_}/keys{asked.query}", fresh)).envelope())

        return await self._call(page, fresh)

    getWithMetadata = get_with_metadata  # noqa: N815 - as a Worker spells it

    # -- more ------------------------------------------------------------------------------------------------

    async def keys(
        self, *, prefix: str = "", limit: int | None = None, **fresh: Unpack[FreshOptions]
    ) -> AsyncIterator[ListedKey]:
        """Yield keys that start with `prefix`, by their UTF-8 bytes, at most `limit` of them.

        Pages are fetched as they are needed: keys written behind the last one seen appear, others don't.

        Raises:
            as get.
        """
        left, cursor = limit, None
        while left is None or left > 0:
            size = None if left is None else min(left, listing.PAGE_KEYS_MAX)
            page = await self.list(prefix=prefix, limit=size, cursor=cursor, **fresh)
            for key in page.keys:
                yield key
            if page.list_complete:
                return
            cursor = page.cursor
            left = None if left is None else left - len(page.keys)

    @overload
    async def put_many(self, pairs: Sequence[NewPair]) -> Version | None: ...
    @overload
    async def put_many(
        self, pairs: Sequence[NewPair], *, wait: Wait, wait_timeout_ms: int | None = None
    ) -> Receipt | None: ...
    async def put_many(
        self, pairs: Sequence[NewPair], *, wait: Wait | None = None, wait_timeout_ms: int | None = None
    ) -> Version | Receipt | None:
        """Return the version of the last of these writes, all durable, or a receipt for it; None without a write.

        At most 10,000 pairs and 100 MB as JSON. One that is refused refuses them all; of two for one key the last
        one counts.

        Raises:
            as put.
        """
        waiting = Waiting(wait, wait_timeout_ms)

        async def write(id_: str) -> Version | Receipt | None:
            answer = await self._exchange.write(
                "PUT",
                f"/{id_}/bulk",
                lambda: wire.pairs(pairs),
                headers=waiting.headers,
                patience_s=LARGE_PATIENCE_S + waiting.patience_s,
            )
            if pairs:
                return waiting.outcome(answer)
            answer.envelope()
            return None

        return await self._call(write)

    async def id(self) -> str:
        """Return the id: 32 hex digits.

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

    # -- how -------------------------------------------------------------------------------------------------

    async def _get_several(self, keys: Any, wanted: str, fresh: Freshness) -> dict[str, Value[Any]]:
        """Return at most 100 pairs, by one request. Values that aren't UTF-8 can't be had so."""
        check_keys(keys, wanted)

        async def ask(id_: str) -> dict[str, Value[Any]]:
            question = {"keys": [*keys], "withMetadata": True}
            answer = await self._exchange.ask(f"/{id_}/bulk/get", lambda: wire.document(question), fresh)
            return answer.found(lambda text: text if wanted == "text" else convert(text.encode(), wanted))

        return await self._call(ask, fresh)

    async def _get_whole(self, id_: str, key: str, wanted: str, fresh: Freshness) -> Value[Any]:
        """Return value and metadata of one version: the API tells them apart, and a write may come between."""
        for _ in range(TORN_READS_MAX):
            answer = await self._exchange.read(f"/{id_}/values/{wire.segment(key)}", fresh)
            value = _found(answer)
            if value is None:
                return Value(value=None, metadata=None, pop=answer.pop, staleness_ms=answer.staleness_ms)
            metadata = await self._read(f"/{id_}/metadata/{wire.segment(key)}", Freshness(at_least=value.version))
            if metadata is not None and metadata.version == value.version:
                return Value(
                    value=convert(value.body, wanted),
                    metadata=metadata.envelope()["result"],
                    metadata_json=metadata.result_json(),
                    expires_at=value.expires_at,
                    version=value.version,
                    pop=value.pop,
                    staleness_ms=value.staleness_ms,
                )
        raise RequestError(409, 10001, f"{key!r} changed during each of {TORN_READS_MAX} reads: try again")

    async def _read(self, path: str, fresh: Freshness, *, streamed: bool = False) -> Answer | None:
        """Return the answer, None when the key isn't there."""
        return _found(await self._exchange.read(path, fresh, streamed=streamed))

    async def _call(self, call: Callable[[str], Awaitable[ResultT]], fresh: Freshness = ANY) -> ResultT:
        """Return what `call` makes of this namespace's id, which an edge may know only when it is so new."""
        remembered = self._id
        if remembered is not None:
            try:
                return await call(remembered)
            except RequestError as error:
                if error.code != NAMESPACE_NOT_FOUND:
                    raise
        # either nobody asked yet, or the title may stand for another namespace now
        found = await find(self._exchange, self.name, fresh)
        self._id = found.id
        return await call(found.id)


def _found(answer: Answer) -> Answer | None:
    """Return an answer that has what was asked for, None for one that says that there is no such key.

    Raises:
        RequestError: it was refused.
    """
    if answer.status == 200:
        return answer
    error = answer.error()
    if error.code == KEY_NOT_FOUND:
        return None
    raise error
