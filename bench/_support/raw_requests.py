"""HTTP requests as bytes, and what can be wrong with them: a request is a function of a seed and its number.

Each begins as one that the API takes, of any endpoint; none, one or a few things are then done to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any, Final, NamedTuple

from bench._support.json_mutations import mutate_json

PREFIX: Final = "/client/v4"
EXPENDABLE_ID: Final = "00112233445566778899aabbccddeeff"
"""A namespace that doesn't exist: what is deleted is never one that is used."""


class Manner(StrEnum):
    """How the bytes are sent, and how the client behaves then."""

    WHOLE = "whole"
    SLOW = "in pieces"
    HALF_CLOSED = "half-closed"
    CUT = "cut"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one connection sends."""

    number: int
    pieces: tuple[bytes, ...]
    manner: Manner
    answers: int
    """How many there are at most."""
    changes: tuple[str, ...]
    """What was done, for the report."""

    @property
    def raw(self) -> bytes:
        return b"".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Account:
    """What valid requests need to know."""

    id: str
    namespaces: tuple[str, ...]
    token: str


@dataclass(slots=True)
class Request:
    """One request, in the parts that changes are made to."""

    method: bytes
    path: bytes
    query: list[tuple[bytes, bytes]] = field(default_factory=list)
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    document: Any = None
    """What the body says, where it is JSON."""
    framing: bytes | None = None
    """The body as it is sent, if not verbatim after a Content-Length."""

    def encode(self) -> bytes:
        target = self.path
        if self.query:
            target += b"?" + b"&".join(name + b"=" + value for name, value in self.query)
        headers = list(self.headers)
        body = self.body if self.framing is None else self.framing
        if self.framing is None and (body or self.method in {b"PUT", b"POST"}):
            headers.append((b"Content-Length", b"%d" % len(body)))
        lines = b"".join(b"%b: %b\r\n" % line for line in headers)
        return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (self.method, target, lines, body)


class Change(NamedTuple):
    """One thing that can be done to a request."""

    name: str
    weight: int
    make: Callable[[Request, Random], None]


_WORDS: Final = (
    b"a",
    b"k/1",
    b"%C3%A9",
    b"a%2Fb",
    b"+",
    b"%00",
    b"..",
    b".",
    b"%2e%2e",
    b"x" * 600,
    b"%F0%9F%98%80",
)
_VALUES: Final = (b"", b"v", b"null", b"\x00\xff", b"x" * 70_000, b'{"value":"v"}')
_NUMBERS: Final = (
    b"0", b"-1", b"1", b"59", b"60", b"300", b"1e3", b"0x10", b"1.5", b"9007199254740993", b"18446744073709551616",
    b"9" * 400, b"NaN", b"%D9%A1%D9%A2", b"", b"+60", b" 60", b"1893456000", b"1893456000000", b"99999999999",
)  # fmt: skip
_VERSIONS: Final = (
    b"1-1",
    b"1-999999999999",
    b"0-0",
    b"-",
    b"1-",
    b"-1--1",
    b"1-1-1",
    b"9" * 300 + b"-1",
    b"\xd9\xa1-1",
    b"",
)


class Requests:
    """All requests of one seed."""

    def __init__(self, seed: int, account: Account, changes: Sequence[Change]) -> None:
        self._seed = seed
        self._account = account
        self._changes = changes
        self._weights = [change.weight for change in changes]

    def attempt(self, number: int) -> Attempt:
        """Return the attempt with this number, the same each time."""
        rng = Random(f"{self._seed}/{number}")
        count = rng.choice((1, 1, 1, 1, 1, 1, 2, 4, 8))
        changed: list[str] = []
        raw = b"".join(self._one(rng, changed) for _ in range(count))
        if rng.random() < 0.1:
            raw = _scramble(raw, rng)
            changed.append("bytes")
        manner = rng.choices(list(Manner), (70, 10, 8, 6, 6))[0]
        if manner in {Manner.CUT, Manner.RESET}:
            raw = raw[: rng.randrange(1, len(raw) + 1)]
        return Attempt(number, _pieces(raw, manner, rng), manner, count, tuple(changed))

    def _one(self, rng: Random, changed: list[str]) -> bytes:
        request = self._valid(rng)
        for change in rng.choices(self._changes, self._weights, k=rng.choice((0, 1, 1, 1, 2, 3))):
            change.make(request, rng)
            changed.append(change.name)
        return request.encode()

    def _valid(self, rng: Random) -> Request:
        make = rng.choices((self._pair, self._bulk, self._namespace, self._other), (8, 3, 3, 2))[0]
        request = make(rng)
        request.headers[:0] = [
            (b"Host", b"localhost"),
            (b"Authorization", b"Bearer " + self._account.token.encode()),
        ]
        return request

    def _namespaces(self) -> str:
        return f"{PREFIX}/accounts/{self._account.id}/storage/kv/namespaces"

    def _in_namespace(self, rng: Random, rest: str) -> bytes:
        return f"{self._namespaces()}/{rng.choice(self._account.namespaces)}/{rest}".encode()

    def _pair(self, rng: Random) -> Request:
        kind = rng.choice(("values", "values", "values", "metadata"))
        key = rng.choice(_WORDS) + (b"%d" % rng.randrange(1000) if rng.random() < 0.7 else b"")
        path = self._in_namespace(rng, kind + "/") + key
        method = b"GET" if kind == "metadata" else rng.choice((b"GET", b"PUT", b"PUT", b"PUT", b"DELETE", b"HEAD"))
        request = Request(method, path)
        if method == b"PUT":
            request.body = rng.choice(_VALUES) if rng.random() < 0.9 else rng.randbytes(rng.randrange(200_000))
            if rng.random() < 0.3:
                request.query.append((rng.choice((b"expiration", b"expiration_ttl")), rng.choice(_NUMBERS)))
            if rng.random() < 0.3:
                make_form(request, rng)
        return request

    def _bulk(self, rng: Random) -> Request:
        names = [f"k{rng.randrange(1000)}" for _ in range(rng.choice((0, 1, 2, 5, 101)))]
        match rng.randrange(4):
            case 0:
                pairs = [_pair_document(name, rng) for name in names]
                return with_json(Request(b"PUT", self._in_namespace(rng, "bulk")), pairs)
            case 1:
                return with_json(Request(b"POST", self._in_namespace(rng, "bulk/delete")), names)
            case 2:
                return with_json(Request(b"DELETE", self._in_namespace(rng, "bulk")), names)
            case _:
                wanted = {"keys": names, "type": rng.choice(("text", "json", "stream")), "withMetadata": True}
                return with_json(Request(b"POST", self._in_namespace(rng, "bulk/get")), wanted)

    def _namespace(self, rng: Random) -> Request:
        title = {"title": f"fuzz {rng.randrange(200)}"}
        match rng.randrange(6):
            case 0:
                query = [(rng.choice((b"page", b"per_page")), rng.choice(_NUMBERS)), (b"order", b"title")]
                return Request(b"GET", self._namespaces().encode(), query)
            case 1:
                return with_json(Request(b"POST", self._namespaces().encode()), title)
            case 2:
                return with_json(Request(b"PUT", f"{self._namespaces()}/{EXPENDABLE_ID}".encode()), title)
            case 3:
                return Request(b"DELETE", f"{self._namespaces()}/{EXPENDABLE_ID}".encode())
            case _:
                query = [(b"limit", rng.choice(_NUMBERS)), (b"prefix", rng.choice(_WORDS)), (b"cursor", b"AAAA")]
                return Request(b"GET", self._in_namespace(rng, "keys"), rng.sample(query, rng.randrange(4)))

    def _other(self, rng: Random) -> Request:
        known = rng.choice(self._account.namespaces)
        token = {
            "name": "fuzz",
            "scope": "read",
            "namespaces": rng.choice(([], [known], [EXPENDABLE_ID])),
            "expires_on": "2030-01-01T00:00:00Z",
        }
        paths = (
            "/accounts",
            f"/accounts/{self._account.id}",
            "/memberships",
            "/user/tokens/verify",
            "/openapi.json",
        )
        match rng.randrange(6):
            case 0:
                return with_json(Request(b"POST", f"{PREFIX}/user/tokens".encode()), token)
            case 1:
                path = f"{PREFIX}/user/tokens/{EXPENDABLE_ID}" + rng.choice(("", "/value"))
                return Request(rng.choice((b"GET", b"PUT", b"DELETE")), path.encode())
            case 2:
                return Request(b"GET", rng.choice((b"/status", b"/healthz", b"/metrics", b"/peer/v1", b"*", b"/")))
            case _:
                return Request(rng.choice((b"GET", b"OPTIONS")), (PREFIX + rng.choice(paths)).encode())


def with_json(request: Request, document: Any) -> Request:
    request.document = document
    request.body = json.dumps(document).encode()
    request.headers.append((b"Content-Type", b"application/json"))
    return request


def make_form(request: Request, rng: Random) -> None:
    """Make a form of the body."""
    boundary = b"b%d" % rng.randrange(10)
    metadata = rng.choice((b'{"a": 1}', b"", b"x" * 2000, b"[" * 500))
    request.body = (
        b'--%b\r\nContent-Disposition: form-data; name="value"\r\n\r\n%b\r\n'
        b'--%b\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n%b\r\n--%b--\r\n'
    ) % (boundary, request.body, boundary, metadata, boundary)
    request.headers.append((b"Content-Type", b"multipart/form-data; boundary=" + boundary))


def _pair_document(name: str, rng: Random) -> dict[str, Any]:
    pair: dict[str, Any] = {"key": name, "value": rng.choice(("v", "AAEC", "", "é"))}
    if rng.random() < 0.3:
        pair["base64"] = rng.random() < 0.5
    if rng.random() < 0.3:
        pair["expiration_ttl"] = rng.choice((60, 59, 2**53 + 1, 10**30))
    if rng.random() < 0.3:
        pair["metadata"] = rng.choice(({"a": [1]}, None, "x" * 1100))
    return pair


def _scramble(raw: bytes, rng: Random) -> bytes:
    """Change some bytes, wherever they are."""
    changed = bytearray(raw)
    for _ in range(rng.choice((1, 2, 5, 20))):
        at = rng.randrange(len(changed))
        match rng.randrange(4):
            case 0:
                changed[at] = rng.randrange(256)
            case 1:
                del changed[at : at + rng.choice((1, 3, 30))]
            case 2:
                changed[at:at] = rng.choice((b"\x00", b"\r\n", b"\n", b" ", b"%", b"\xff\xfe", rng.randbytes(8)))
            case _:
                end = at + rng.choice((2, 10, 100))
                changed[at:at] = changed[at:end]
        if not changed:
            return b"\n"
    return bytes(changed)


def _pieces(raw: bytes, manner: Manner, rng: Random) -> tuple[bytes, ...]:
    if manner is not Manner.SLOW:
        return (raw,)
    cuts = sorted(rng.randrange(len(raw) + 1) for _ in range(rng.choice((1, 2, 5))))
    return tuple(raw[start:end] for start, end in zip((0, *cuts), (*cuts, len(raw)), strict=True) if end > start)


def change_document(request: Request, rng: Random) -> None:
    """Change what a JSON body says, at any depth."""
    if request.document is None:
        with_json(request, {"title": "t"})
    request.body = mutate_json(request.document, rng)


def numbers() -> tuple[bytes, ...]:
    return _NUMBERS


def versions() -> tuple[bytes, ...]:
    return _VERSIONS
