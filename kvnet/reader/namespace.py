"""One namespace of a replica: the reads that a Worker knows, without a network between."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, overload
from zlib import crc32

import lmdb
import msgspec

from kvnet.core.manifest import Manifest
from kvnet.errors import RequestError, StorageDamaged
from kvnet.storage import chunks
from kvnet.storage.keys import SLICE_BYTES, find
from kvnet.storage.listing import ListedKey as Listed
from kvnet.storage.listing import list_some
from kvnet.storage.records import (
    CHECKSUM_BYTES,
    LARGE,
    PLAIN,
    PLAIN_VALUE,
    RESIDUE,
    StoredRecord,
    damaged,
    read_optional,
    read_record,
)
from kvnet.values import (
    NAMESPACE_NOT_FOUND,
    KeyPage,
    Keys,
    ListedKey,
    Value,
    check_cache_ttl,
    check_key,
    check_keys,
    check_type,
    convert,
)

if TYPE_CHECKING:
    from kvnet.reader.replica import Replica, Seen

PAGE_KEYS_MAX: Final = 1000
BULK_KEYS_MAX: Final = 100

ResultT = TypeVar("ResultT")
Begin = Callable[..., Any]
Hot = tuple[Sequence[int], int, Begin, Any, bytes]
"""What a read goes by: the page's numbers, the word that it must have, how a transaction begins, over what, and
where the namespace's keys lie."""


def _never(*_: Any) -> Any:
    raise AssertionError("a read that hasn't looked")


NO_WORD: Final = -1
"""On no page: whoever remembers it looks each time."""
NOTHING: Final[Hot] = ((0,), NO_WORD, _never, None, b"")


class ReplicaNamespace:
    """A namespace by title or id, looked up whenever the replica's namespaces have changed."""

    def __init__(self, replica: Replica, name: str) -> None:
        self.name = name
        """Title or id, as given."""
        self._replica = replica
        self._hot: Hot = NOTHING
        """What reads go by."""

    @overload
    def get(self, key: str, type: Literal["text"] = "text", *, cache_ttl: int | None = None) -> str | None: ...
    @overload
    def get(self, key: str, type: Literal["json"], *, cache_ttl: int | None = None) -> Any: ...
    @overload
    def get(
        self, key: str, type: Literal["bytes", "arrayBuffer"], *, cache_ttl: int | None = None
    ) -> bytes | None: ...
    @overload
    def get(
        self, key: Keys, type: Literal["text"] = "text", *, cache_ttl: int | None = None
    ) -> dict[str, str | None]: ...
    @overload
    def get(self, key: Keys, type: Literal["json"], *, cache_ttl: int | None = None) -> dict[str, Any]: ...
    def get(
        self,
        key: str | Keys,
        type: str = "text",  # noqa: A002 - the name that a Worker knows it by
        *,
        cache_ttl: int | None = None,
    ) -> Any:
        """Return the value as text, JSON or bytes, None when there is none; of a list of keys, a dict of them.

        Values of several keys are of one moment.

        Raises:
            RequestError: there is no such namespace.
            StorageError: the replica can't be read now; the text says why and names the cure.
            TypeError, ValueError: no key or type of value, or one that isn't JSON was asked for as such.
        """
        if cache_ttl is not None:
            check_cache_ttl(cache_ttl)
        try:
            name = key.encode()  # type: ignore[union-attr] # whatever has no such method is told apart below
            numbers, word, begin, records, prefix = self._hot
            if numbers[0] != word:
                begin, records, prefix = self._look()
            # The transaction ends with the expression. `with` costs a third of a read.
            if len(name) <= SLICE_BYTES:
                stored = begin(records).get(prefix + name)
            else:
                stored = find(begin(records).get, prefix, name)
        except (AttributeError, TypeError, lmdb.Error):
            return self._get_otherwise(key, type)
        if stored is None:
            check_key(key)
            check_type(type)
            return None
        # What `read_record` does, without what is needed only of a record that isn't plain.
        if crc32(stored, crc32(name)) != RESIDUE:
            raise damaged(name)
        kind = stored[0]
        if kind == PLAIN:
            data = stored[PLAIN_VALUE]
        else:
            expires_at, _, value_at = read_optional(name, stored)
            if 0 < expires_at <= self._replica.now_s():
                return None
            if kind & LARGE:
                return self._get_otherwise(key, type)
            data = stored[value_at:-CHECKSUM_BYTES]
        if type == "text":
            try:
                return data.decode()
            except UnicodeDecodeError:
                return convert(data, type)
        return data if type == "bytes" else convert(data, type)

    @overload
    def get_with_metadata(
        self, key: str, type: Literal["text"] = "text", *, cache_ttl: int | None = None
    ) -> Value[str]: ...
    @overload
    def get_with_metadata(
        self, key: str, type: Literal["json"], *, cache_ttl: int | None = None
    ) -> Value[Any]: ...
    @overload
    def get_with_metadata(
        self, key: str, type: Literal["bytes", "arrayBuffer"], *, cache_ttl: int | None = None
    ) -> Value[bytes]: ...
    @overload
    def get_with_metadata(
        self, key: Keys, type: Literal["text"] = "text", *, cache_ttl: int | None = None
    ) -> dict[str, Value[str]]: ...
    @overload
    def get_with_metadata(
        self, key: Keys, type: Literal["json"], *, cache_ttl: int | None = None
    ) -> dict[str, Value[Any]]: ...
    def get_with_metadata(
        self,
        key: str | Keys,
        type: str = "text",  # noqa: A002 - as above
        *,
        cache_ttl: int | None = None,
    ) -> Any:
        """Return value, metadata, expiry and origin, all of one version; of a list of keys, a dict of them.

        Raises:
            as get.
        """
        check_cache_ttl(cache_ttl)
        staleness_ms = round(self._replica.staleness_ms())  # before the read, so that it is a bound
        check_type(type)
        if isinstance(key, str):
            check_key(key)
            return self._reading(lambda seen: self._value(seen, [key], type, staleness_ms))[key]
        check_keys(key, type, BULK_KEYS_MAX)
        return self._reading(lambda seen: self._value(seen, key, type, staleness_ms))

    def list(self, *, prefix: str = "", limit: int | None = None, cursor: str | None = None) -> KeyPage:
        """Return a page of the keys that start with `prefix`, by their UTF-8 bytes, at most 1,000.

        Raises:
            as get; ValueError also for a limit or cursor that can't be.
        """
        size = PAGE_KEYS_MAX if limit is None else limit
        if not 0 < size <= PAGE_KEYS_MAX:
            raise ValueError(
                f"Invalid key_count_limit of {limit}. Please specify an integer from 1 to {PAGE_KEYS_MAX}."
            )
        after = None if not cursor else _read_cursor(cursor)
        return self._reading(lambda seen: self._page(seen, prefix.encode(), after, size))

    def keys(self, *, prefix: str = "", limit: int | None = None) -> Iterator[ListedKey]:
        """Yield the keys that start with `prefix`, at most `limit`; those behind the last one seen may be newer.

        Raises:
            as get.
        """
        left, cursor = limit, None
        while left is None or left > 0:
            page = self.list(
                prefix=prefix, limit=PAGE_KEYS_MAX if left is None else min(left, PAGE_KEYS_MAX), cursor=cursor
            )
            yield from page.keys
            if page.list_complete:
                return
            cursor = page.cursor
            left = None if left is None else left - len(page.keys)

    getWithMetadata = get_with_metadata  # noqa: N815 - as a Worker spells it

    # -- how -------------------------------------------------------------------------------------------------

    def _look(self) -> tuple[Begin, Any, bytes]:
        """Return how the next read is made, and remember it as long as it holds."""
        now = self._replica.look()
        prefix = self._prefix(now)
        begin, records = now.opened.begin, now.opened.records
        self._hot = (now.page.numbers, now.word, begin, records, prefix)
        if not self._replica.holds(now):  # whoever has had it forgotten may have been here before us
            self._hot = NOTHING
        return begin, records, prefix

    def forget(self) -> None:
        """Look anew with the next read."""
        self._hot = NOTHING

    def _get_otherwise(self, key: Any, type_: str) -> Any:
        """Do what isn't the plain case of `get`, or tell why it can't be done."""
        check_type(type_)
        if isinstance(key, str):
            check_key(key)
            return self._reading(lambda seen: self._values(seen, [key], type_))[key]
        check_keys(key, type_, BULK_KEYS_MAX)
        return self._reading(lambda seen: self._values(seen, key, type_))

    def _reading(self, read: Callable[[Seen], ResultT]) -> ResultT:
        """Return what `read` makes of the replica; it is tried again if that must be opened anew."""
        replica = self._replica
        try:
            return read(replica.look())
        except lmdb.Error:
            replica.forget()
        try:
            return read(replica.look())
        except lmdb.Error as error:
            raise replica.told(error) from error

    def _prefix(self, seen: Seen) -> bytes:
        prefix = seen.contents.prefixes.get(self.name)
        if prefix is None:
            raise RequestError(404, NAMESPACE_NOT_FOUND, f"there is no namespace {self.name!r} in this replica")
        return prefix

    def _records(self, seen: Seen, keys: Keys) -> dict[str, tuple[StoredRecord, bytes] | None]:
        """Return record and value of each key, of one moment; None for one that isn't there or has expired."""
        prefix = self._prefix(seen)
        found: dict[str, tuple[StoredRecord, bytes] | None] = {}
        opened = seen.opened
        with opened.begin(opened.records) as txn:
            for key in keys:
                name = key.encode()
                get = txn.get
                stored = get(prefix + name) if len(name) <= SLICE_BYTES else find(get, prefix, name)
                record = None if stored is None else read_record(name, stored)
                if record is None or self._has_expired(record):
                    found[key] = None
                elif record.large:
                    found[key] = record, _joined(txn, opened.chunk_databases, record.value)
                else:
                    found[key] = record, record.value
        return found

    def _values(self, seen: Seen, keys: Keys, type_: str) -> dict[str, Any]:
        found = self._records(seen, keys)
        return {key: None if pair is None else convert(pair[1], type_) for key, pair in found.items()}

    def _value(self, seen: Seen, keys: Keys, type_: str, staleness_ms: int) -> dict[str, Value[Any]]:
        pop = self._replica.pop
        told: dict[str, Value[Any]] = {}
        for key, pair in self._records(seen, keys).items():
            if pair is None:
                told[key] = Value(value=None, metadata=None, pop=pop, staleness_ms=staleness_ms)
                continue
            record, data = pair
            told[key] = Value(
                value=convert(data, type_),
                metadata=msgspec.json.decode(record.metadata) if record.metadata else None,
                metadata_json=record.metadata or b"null",
                expires_at=record.expires_at or None,
                version=record.version,
                pop=pop,
                staleness_ms=staleness_ms,
            )
        return told

    def _page(self, seen: Seen, prefix: bytes, after: bytes | None, limit: int) -> KeyPage:
        root = self._prefix(seen)
        now_s = int(self._replica.now_s())
        start: bytes | None = prefix if after is None or after < prefix else after + b"\0"
        listed: list[Listed] = []
        while start is not None and len(listed) <= limit:
            with seen.opened.view() as txn, txn.cursor() as cursor:
                some = list_some(cursor, root, prefix, start, limit + 1 - len(listed), now_s)
            listed += some.keys
            start = some.next
        more = len(listed) > limit
        keys = [
            ListedKey(
                name=each.key.decode(),
                expiration=each.expires_at or None,
                metadata=msgspec.json.decode(each.metadata) if each.metadata else None,
            )
            for each in listed[:limit]
        ]
        return KeyPage(keys=keys, list_complete=not more, cursor=_cursor(listed[limit - 1].key) if more else None)

    def _has_expired(self, record: StoredRecord) -> bool:
        return 0 < record.expires_at <= self._replica.now_s()


def _joined(txn: lmdb.Transaction[bytes], dbs: chunks.ChunkDatabases, packed: bytes) -> bytes:
    """Return the value that a manifest tells of.

    Raises:
        StorageDamaged: a chunk isn't here, or isn't what was written.
    """
    data = []
    for name in Manifest.unpack(packed).chunks:
        chunk = chunks.get(txn, dbs, name)
        if chunk is None:
            raise StorageDamaged(
                f"the chunk {name[:8].hex()} of a large value is gone: this replica must be made anew"
            )
        data.append(chunk)
    return b"".join(data)


def _cursor(last: bytes) -> str:
    return base64.urlsafe_b64encode(last).decode()


def _read_cursor(cursor: str) -> bytes:
    try:
        return base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("Invalid cursor: give the one of the page before") from None
