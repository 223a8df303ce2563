"""Every call on single pairs that the SDKs have: written at one node, read at another."""

from __future__ import annotations

import time
from urllib.parse import quote

import pytest

from tests.conformance.sdk import SdkError, refused

AWKWARD = [
    "a/b c:!%41?x=\u00e9",
    "a%2Fb",
    "a/b",
    "+",
    "a+b c",
    "\U0001f600",
    "\x01\t\n\x7f",
    "\u00e9",
    "e\u0301",
    "?#&=",
    "//",
    "k" * 512,
]
"""Keys that clients spell in different ways; two of them look alike and are not."""

takes_bytes = pytest.mark.parametrize("sdk_process", ["python-5.9.0", "npm-7.3.0"], indirect=True)
"""4.3.1 takes only text, and leaves empty fields out of its forms."""


def test_value_and_metadata_are_read_far_away(sdk):
    metadata = {"by": "ada", "tags": [1, 2.5, None, True], "city": "São Paulo"}
    sdk.put("plain", b"hello")
    sdk.put("described", "Grüße".encode(), metadata)
    assert sdk.get("plain").data == b"hello"
    assert sdk.get("described").data.decode() == "Grüße"
    assert sdk.read("metadata.get", key_name="described") == metadata
    assert sdk.read("metadata.get", key_name="plain") is None
    assert sdk.list_keys() == [{"name": "described", "metadata": metadata}, {"name": "plain"}]


@takes_bytes
def test_empty_value_is_a_value(sdk):
    sdk.put("empty", b"")
    found = sdk.get("empty")
    assert (found.data, found.headers["content-length"]) == (b"", "0")


@takes_bytes
def test_bytes_survive(sdk):
    data = bytes(range(256)) + b"\r\n--boundary--\r\n" + bytes(range(255, -1, -1)) * 4096
    sdk.put("binary", data)
    assert sdk.get("binary").data == data


def test_expiration_is_told_in_a_header_and_in_lists(sdk):
    at = int(time.time()) + 7200
    earliest = int(time.time()) + 600
    sdk.put("absolute", b"1", expiration=at)
    sdk.put("relative", b"2", expiration_ttl=600)
    sdk.put("both", b"3", expiration=at, expiration_ttl=600)
    sdk.put("none", b"4")
    latest = int(time.time()) + 601
    found = {name: sdk.get(name) for name in ("absolute", "relative", "both", "none")}
    assert [value.data for value in found.values()] == [b"1", b"2", b"3", b"4"]
    assert found["absolute"].expiration == at
    for name in ("relative", "both"):
        assert earliest <= (found[name].expiration or 0) <= latest
    assert "expiration" not in found["none"].headers
    assert {key["name"]: key.get("expiration") for key in sdk.list_keys()} == {
        name: value.expiration for name, value in found.items()
    }


def test_second_write_within_a_second_is_tried_again_and_replaces_all_of_the_first(sdk):
    """The SDK that may not try again shows that the node did refuse."""
    sdk.put("key", b"first", {"old": True}, expiration_ttl=600)
    assert _refused_in_time(sdk, "key") == (429, [10001])
    sdk.put("key", b"second")
    found = sdk.get("key")
    assert (found.data, found.expiration) == (b"second", None)
    assert sdk.read("metadata.get", key_name="key") is None
    assert sdk.list_keys() == [{"name": "key"}]


def test_missing_key_is_not_found_and_can_be_deleted(sdk):
    sdk.delete("missing")
    assert refused(sdk.get, "missing") == (404, [10009])
    assert refused(sdk.read, "metadata.get", key_name="missing") == (404, [10009])
    assert sdk.list_keys() == []


def test_awkward_keys_are_the_same_at_both_ends(sdk):
    for number, key in enumerate(AWKWARD):
        sdk.put(_spelled(sdk, key), str(number).encode(), {"number": number})
    names = sorted(AWKWARD, key=lambda key: key.encode())
    assert sdk.list_keys() == [{"name": name, "metadata": {"number": AWKWARD.index(name)}} for name in names]
    for number, key in enumerate(AWKWARD):
        assert sdk.get(_spelled(sdk, key)).data == str(number).encode(), key
        assert sdk.read("metadata.get", key_name=_spelled(sdk, key)) == {"number": number}, key
    gone = AWKWARD[:4]
    for key in gone:
        sdk.delete(_spelled(sdk, key))
    assert [key["name"] for key in sdk.list_keys()] == [name for name in names if name not in gone]
    for key in gone:
        assert refused(sdk.get, _spelled(sdk, key)) == (404, [10009]), key
        assert refused(sdk.read, "metadata.get", key_name=_spelled(sdk, key)) == (404, [10009]), key


def test_what_breaks_a_limit_is_refused(sdk):
    assert refused(sdk.put, "k" * 513, b"1") == (414, [10001])
    assert refused(sdk.put, "key", b"1", {"m": "m" * 1017}) == (413, [10001])
    assert refused(sdk.put, "key", b"1", expiration_ttl=59) == (400, [10034])
    assert refused(sdk.put, "key", b"1", expiration=1) == (400, [10034])
    assert refused(sdk.read, "keys.list", limit=9) == (400, [10001])
    assert refused(sdk.read, "keys.list", limit=1001) == (400, [10001])
    assert sdk.list_keys() == []
    sdk.put("key", b"1", {"m": "m" * 1016})
    assert sdk.read("metadata.get", key_name="key") == {"m": "m" * 1016}


@pytest.mark.parametrize(("sdk_process", "route"), [("npm-7.3.0", "edge")], indirect=True)
def test_largest_value_passes_and_a_longer_one_does_not(sdk):
    """By one SDK and the longer way; it takes its time."""
    data = b"25 MiB --" * 2_912_712
    data = data[: 25 * 2**20]
    assert refused(sdk.put, "longer", data + b".") == (413, [10001])
    sdk.put("largest", data)
    assert sdk.get("largest").data == data


def _refused_in_time(sdk, key):
    """Return the answer to a write that comes within a second of the one before, at the latest the 20th."""
    for number in range(20):
        try:
            sdk.put(key, f"too early {number}".encode(), {"old": True}, max_retries=0, expiration_ttl=600)
        except SdkError as error:
            return error.answer
    return None


def _spelled(sdk, key):
    """Return the key as a user of this SDK must spell it: 4.3.1 puts it into the address as it comes."""
    return quote(key, safe="") if sdk.is_python_4 else key
