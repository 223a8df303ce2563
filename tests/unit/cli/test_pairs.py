"""Lines of JSON: what can be stored and comes back the same, and what is refused with its place and its cure."""

from __future__ import annotations

import io
import json

import msgspec
import pytest

from kvnet.cli.pairs import read_pair, read_pairs, write_pair
from kvnet.client import Value
from kvnet.core.versions import Version
from kvnet.errors import ConfigError
from kvnet.limits import Limits

LIMITS = Limits()


def value(content: bytes, metadata_json: bytes = b"null", expires_at: int | None = None) -> Value:
    return Value(
        value=content,
        metadata=json.loads(metadata_json),
        metadata_json=metadata_json,
        expires_at=expires_at,
        version=Version(1, 1),
        pop="nrt",
        staleness_ms=None,
    )


@pytest.mark.parametrize("key", ["a", 'é/ \n\u2028\x00"\\', "キー", "x" * 2048])
@pytest.mark.parametrize("content", [b"", b"text\n", "olá".encode(), b"\x00\xff", bytes(65_536)])
def test_a_pair_comes_back_from_its_line(key, content):
    line = write_pair(key, value(content, expires_at=4_000_000_000))
    assert line.count(b"\n") == 1
    pair = read_pair(line, "line 1", LIMITS)
    assert (pair.key, pair.value, pair.metadata, pair.expiration) == (key, content, None, 4_000_000_000)


@pytest.mark.parametrize(
    "spelled", [b'{"a":1.10,"b":[12345678901234567890123,1e300]}', b'"\xc3\xa9"', b"0", b"false"]
)
def test_metadata_comes_back_as_it_was_spelled(spelled):
    pair = read_pair(write_pair("k", value(b"v", spelled)), "line 1", LIMITS)
    assert pair.metadata is not None
    assert bytes(pair.metadata) == spelled


def test_lines_may_be_empty_and_an_array_is_read_as_well():
    lines = b'\n{"key": "a", "value": "1"}\n\n{"key": "b", "value": "/w==", "base64": true}'
    array = b' [\n{"key": "a", "value": "1"},{"key": "b", "value": "/w==", "base64": true}\n]\n'
    for text in (lines, array):
        found = [(pair.key, pair.value) for pair in read_pairs(io.BytesIO(text), LIMITS)]
        assert found == [("a", b"1"), ("b", b"\xff")]
    assert list(read_pairs(io.BytesIO(b""), LIMITS)) == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "truncated"),
        ("nonsense", "not JSON"),
        ('{"key": "a"}', "missing required field `value`"),
        ('{"key": 1, "value": "v"}', "`key`"),
        ('{"key": "a", "value": null}', "Expected `str`, got `null`"),
        ('{"key": "a", "value": "v", "ttl": 60}', "unknown field `ttl`"),
        ('{"key": "", "value": "v"}', "1 to 2048"),
        ('{"key": "..", "value": "v"}', "not allowed"),
        ('{"key": "%s", "value": "v"}' % ("x" * 2049), "2049 bytes"),
        ('{"key": "a", "value": "%s"}' % ("x" * 65_537), "other --limits"),
        ('{"key": "a", "value": "?", "base64": true}', "not base64"),
        ('{"key": "a", "value": "v", "metadata": "%s"}' % ("x" * 1024), "1026 bytes"),
        ('{"key": "a", "value": "v", "expiration": 1700000000000}', "not milliseconds"),
        ('{"key": "a", "value": "v", "expiration": "soon"}', "`expiration`"),
        ('{"key": "a", "value": "v", "expiration_ttl": 59}', "at least 60"),
        ('{"key": "\\ud800", "value": "v"}', "line 2"),
        ("7", "Expected `object`"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_line_and_the_cure(line, told):
    text = f'{{"key": "good", "value": "1"}}\n{line}\n'.encode("utf-8", "surrogatepass")
    pairs = read_pairs(io.BytesIO(text), LIMITS)
    assert next(pairs).key == "good"
    with pytest.raises(ConfigError, match="line 2") as refused:
        next(pairs)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_bytes_that_are_no_text_and_an_array_that_ends_early_are_refused():
    for text in (b'{"key": "\xff", "value": "v"}', b'[{"key": "a", "value": "v"}', b"[1, 2]"):
        with pytest.raises(ConfigError):
            list(read_pairs(io.BytesIO(text), LIMITS))


def test_metadata_given_as_it_is_spelled_is_sent_so():
    from kvnet.client import wire

    form = wire.form(b"v", msgspec.Raw(b"1.10"))
    assert [field[2] for field in form._fields] == [b"v", "1.10"]
