"""Every call on many pairs that the SDKs have, by both of the names that each has."""

from __future__ import annotations

import base64
import time

from tests.conformance.sdk import refused


def test_bulk_put_is_read_far_away(sdk):
    at = int(time.time()) + 7200
    data = bytes(range(256))
    pairs = [
        {"key": "text", "value": "Grüße"},
        {"key": "empty", "value": ""},
        {"key": "binary", "value": base64.b64encode(data).decode(), "base64": True},
        {"key": "described", "value": "{}", "metadata": {"a": [1]}},
        {"key": "expiring", "value": "1", "expiration": at},
        {"key": "a/b c:!%41?x=é", "value": "awkward"},
        {"key": "twice", "value": "first"},
        {"key": "twice", "value": "second"},
    ]
    written = sdk.write("bulk_update", body=pairs)
    assert written["unsuccessful_keys"] == []
    assert sdk.list_keys() == [
        {"name": "a/b c:!%41?x=é"},
        {"name": "binary"},
        {"name": "described", "metadata": {"a": [1]}},
        {"name": "empty"},
        {"name": "expiring", "expiration": at},
        {"name": "text"},
        {"name": "twice"},
    ]
    assert sdk.get("binary").data == data
    assert sdk.get("empty").data == b""
    assert sdk.get("text").data.decode() == "Grüße"
    assert sdk.get("twice").data == b"second"
    assert sdk.get("expiring").expiration == at


def test_bulk_get_answers_for_every_key_that_was_asked_for(sdk):
    at = int(time.time()) + 7200
    pairs = [
        {"key": "number", "value": "1"},
        {"key": "object", "value": '{"a": [1, null]}', "metadata": {"b": "c"}, "expiration": at},
    ]
    sdk.write("bulk_update", body=pairs)
    keys = ["number", "object", "missing"]
    assert sdk.read("bulk_get", keys=keys) == {
        "values": {"number": "1", "object": '{"a": [1, null]}', "missing": None}
    }
    assert sdk.read("bulk_get", keys=keys, type="json") == {
        "values": {"number": 1, "object": {"a": [1, None]}, "missing": None}
    }
    assert sdk.read("bulk_get", keys=keys, type="json", with_metadata=True) == {
        "values": {
            "number": {"value": 1, "metadata": None},
            "object": {"value": {"a": [1, None]}, "metadata": {"b": "c"}, "expiration": at},
            "missing": None,
        }
    }


def test_bulk_delete_removes_what_is_there(sdk):
    """The second of the deletions, and the puts and gets, go by the older names of these calls."""
    pairs = [{"key": name, "value": name} for name in "abcd"]
    assert sdk.write("keys.bulk_update", body=pairs) == {"successful_key_count": 4, "unsuccessful_keys": []}
    assert sdk.read("keys.bulk_get", keys=["a", "d"]) == {"values": {"a": "a", "d": "d"}}
    deleted = sdk.write("bulk_delete", body=["a", "c", "missing"])
    assert deleted == {"successful_key_count": 3, "unsuccessful_keys": []}
    assert sdk.write("keys.bulk_delete", body=["d"]) == {"successful_key_count": 1, "unsuccessful_keys": []}
    assert sdk.list_keys() == [{"name": "b"}]
    assert refused(sdk.get, "a") == (404, [10009])
    assert sdk.get("b").data == b"b"


def test_bulk_of_nothing_is_done(sdk):
    nothing = {"successful_key_count": 0, "unsuccessful_keys": []}
    assert sdk.write("bulk_update", body=[]) == nothing
    assert sdk.write("bulk_delete", body=[]) == nothing


def test_bulk_with_one_bad_element_is_refused_whole(sdk):
    good = {"key": "good", "value": "1"}
    assert (
        refused(sdk.write, "bulk_update", body=[good, {"key": "bad", "value": "1", "expiration_ttl": 59}])[0]
        == 400
    )
    assert refused(sdk.write, "bulk_update", body=[good, {"key": "..", "value": "1"}])[0] == 400
    assert refused(sdk.write, "bulk_update", body=[good, {"key": "bad", "value": "!", "base64": True}])[0] == 400
    assert refused(sdk.write, "bulk_delete", body=["good", ""])[0] == 400
    assert sdk.list_keys() == []


def test_bulk_get_of_what_it_cannot_answer_is_refused(sdk):
    pairs = [{"key": "text", "value": "not JSON"}, {"key": "binary", "value": "/w==", "base64": True}]
    sdk.write("bulk_update", body=pairs)
    assert refused(sdk.read, "bulk_get", keys=[]) == (400, [10029])
    assert refused(sdk.read, "bulk_get", keys=[f"{number}" for number in range(101)]) == (400, [10029])
    assert refused(sdk.read, "bulk_get", keys=["text"], type="json") == (400, [10029])
    assert refused(sdk.read, "bulk_get", keys=["text", "binary"]) == (400, [10029])
    hundred = [f"{number}" for number in range(99)]
    assert sdk.read("bulk_get", keys=[*hundred, "text"]) == {
        "values": dict.fromkeys(hundred) | {"text": "not JSON"}
    }
