"""Answers: what an edge said, and the values, keys and namespaces it spoke of."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import msgspec

from kvnet import values
from kvnet.client.directory import Edge
from kvnet.core.versions import Version
from kvnet.errors import RequestError
from kvnet.values import Value

KEY_NOT_FOUND: Final = 10009
NAMESPACE_NOT_FOUND: Final = values.NAMESPACE_NOT_FOUND
NOT_AN_ANSWER: Final = 10001
"""Our code for an answer that no edge gives: something else listens at the address."""


class _Spelled(msgspec.Struct):
    """An envelope whose result isn't read."""

    result: msgspec.Raw


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPair:
    """A pair that is to be stored, among others."""

    key: str
    value: bytes
    expiration_ttl: int | None = None
    """Seconds; wins over `expiration`."""
    expiration: int | None = None
    """Unix seconds; neither means for ever."""
    metadata: Any = None
    """Any JSON value, or `msgspec.Raw` of one that is to be spelled so; None for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceInfo:
    """One namespace of the account."""

    id: str
    """32 hex digits, used again after a deletion only where somebody asks for this very id."""
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenInfo:
    """One token, without its secret, which nobody keeps."""

    id: str
    name: str
    scope: str
    """`read`, `write` or `admin`; each includes the ones before it."""
    namespaces: tuple[str, ...]
    """Ids of those it is good for; () for all."""
    status: str
    """`active` or `expired`."""
    issued_on: str | None
    """ISO 8601."""
    expires_on: str | None
    """ISO 8601; None for never."""


class _FoundText(msgspec.Struct):
    value: str
    metadata: msgspec.Raw
    expiration: int | None = None


class _FoundTexts(msgspec.Struct):
    values: dict[str, _FoundText | None]


class _BulkFound(msgspec.Struct):
    """The envelope of a bulk get with metadata."""

    result: _FoundTexts


@dataclass(frozen=True, slots=True)
class Answer:
    """One edge's answer to one request."""

    edge: Edge
    status: int
    headers: Mapping[str, str]
    body: bytes
    response: aiohttp.ClientResponse | None = field(default=None, repr=False)
    """Of which the body is still to be read; None when it is."""

    @property
    def version(self) -> Version:
        """The version of the record read or written.

        Raises:
            RequestError: the answer has none.
        """
        try:
            return Version.parse(self.headers["KV-Version"])
        except (KeyError, ValueError):
            raise self._foreign("no version") from None

    @property
    def position(self) -> Version | None:
        """How far the replica was that answered; None if it doesn't tell."""
        try:
            return Version.parse(self.headers["KV-Position"])
        except (KeyError, ValueError):
            return None

    @property
    def relayed(self) -> bool:
        """Whether the edge that was asked asked another node."""
        return "KV-Relayed-By" in self.headers

    @property
    def staleness_ms(self) -> int | None:
        return _whole_number(self.headers.get("KV-Staleness-Ms"))

    @property
    def expires_at(self) -> int | None:
        return _whole_number(self.headers.get("expiration"))

    @property
    def pop(self) -> str:
        return self.headers.get("KV-Pop", self.edge.code)

    def envelope(self) -> dict[str, Any]:
        """Return the JSON envelope of a success.

        Raises:
            RequestError: what the edge refused and why, or that this is no edge's answer.
        """
        if self.status != 200:
            raise self.error()
        envelope = self._json()
        if envelope.get("success") is not True:
            raise self._foreign("no success")
        return envelope

    def document(self) -> dict[str, Any]:
        """Return the JSON object of an answer that has no envelope.

        Raises:
            RequestError: what the edge refused and why, or that this is no edge's answer.
        """
        if self.status != 200:
            raise self.error()
        return self._json()

    def result_json(self) -> bytes:
        """Return the result of a success as it is spelled.

        Raises:
            RequestError: as `envelope`.
        """
        self.envelope()
        return bytes(msgspec.json.decode(self.body, type=_Spelled).result)

    def found(self, convert: Callable[[str], Any]) -> dict[str, Value[Any]]:
        """Return what a bulk get with metadata has found, values converted from text.

        Raises:
            RequestError: what the edge refused and why, or that this is no edge's answer.
        """
        if self.status != 200:
            raise self.error()
        try:
            pairs = msgspec.json.decode(self.body, type=_BulkFound).result.values
        except msgspec.MsgspecError:
            raise self._foreign("no found pairs") from None
        return {
            key: Value(value=None, metadata=None, pop=self.pop, staleness_ms=self.staleness_ms)
            if found is None
            else Value(
                value=convert(found.value),
                metadata=json.loads(bytes(found.metadata)),
                metadata_json=bytes(found.metadata),
                expires_at=found.expiration,
                pop=self.pop,
                staleness_ms=self.staleness_ms,
            )
            for key, found in pairs.items()
        }

    def error(self, *, definite: bool = True) -> RequestError:
        """Return the error that this answer tells."""
        errors = self._json().get("errors")
        match errors:
            case [{"code": int() as code, "message": str() as message}, *_]:
                return RequestError(
                    self.status, code, message, definite=definite, headers=dict(self.headers.items())
                )
            case _:
                return self._foreign(f"status {self.status} without an error")

    def _json(self) -> dict[str, Any]:
        try:
            envelope = json.loads(self.body)
        except ValueError:
            raise self._foreign("no JSON") from None
        if not isinstance(envelope, dict):
            raise self._foreign("no envelope")
        return envelope

    def _foreign(self, found: str) -> RequestError:
        return RequestError(
            502,
            NOT_AN_ANSWER,
            f"{self.edge.url} answered with {found}: check that a kvnet edge of this version listens there",
            definite=False,
        )


def _whole_number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None
