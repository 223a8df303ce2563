"""JSON documents that are almost what they should be."""

from __future__ import annotations

import json
from random import Random
from typing import Any, Final

_RAW: Final = (
    b"null", b"true", b"0", b"-0", b"1.5", b"9007199254740993", b"1e400", b"-1e400", b"1" * 5000, b"NaN",
    b'""', b"[]",
    b"{}", b'"\\ud800"', b'"\xff"', b'"\\u0000"', b"[" * 5000, b'{"a":' * 5000, b'"' + b"x" * 3000 + b'"',
    b"",
    b"[[[[1]]]]", b'{"key":{"key":1}}', b'"..."', b"-", b"01", b"'a'",
)  # fmt: skip
"""What may stand in a value's place; most are JSON of another type, some aren't JSON."""
_HOLE: Final = "\N{REPLACEMENT CHARACTER}hole"


def mutate_json(document: Any, rng: Random) -> bytes:
    """Return the document as bytes with one thing changed: a value at any depth, a name, or the text itself."""
    match rng.randrange(5):
        case 0:
            text = json.dumps(document).encode()
            return text[: rng.randrange(len(text))]
        case 1:
            return rng.choice((b"\xef\xbb\xbf", b" " * 70_000, b"\x00", b"//")) + json.dumps(document).encode()
        case 2:
            return _twice(document).encode()
        case _:
            holed = json.dumps(_with_hole(document, rng)).encode()
            return holed.replace(json.dumps(_HOLE).encode(), rng.choice(_RAW))


def _with_hole(document: Any, rng: Random) -> Any:
    """Return the document with a hole in place of one of its values, of any depth alike."""
    match document:
        case dict() if document and rng.random() < 0.8:
            name = rng.choice(list(document))
            return document | {name: _with_hole(document[name], rng)}
        case list() if document and rng.random() < 0.8:
            at = rng.randrange(len(document))
            return [*document[:at], _with_hole(document[at], rng), *document[at + 1 :]]
        case _:
            return _HOLE


def _twice(document: Any) -> str:
    """Return the document with each name of its objects written twice, or in another case."""
    match document:
        case dict():
            members = [f"{json.dumps(name)}:{_twice(value)}" for name, value in document.items()]
            return "{" + ",".join([*members, *members, '"Key":1,"":2']) + "}"
        case list():
            return "[" + ",".join(_twice(value) for value in document) + "]"
        case _:
            return json.dumps(document)
