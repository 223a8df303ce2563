"""What the SDKs make of tokens that may not."""

from __future__ import annotations

from dataclasses import replace

from tests.conformance.places import Route
from tests.conformance.sdk import refused


def test_unknown_token_is_refused(sdk):
    stranger = replace(sdk, route=Route(sdk.route.write.with_token("x" * 40), sdk.route.read))
    assert refused(stranger.write, "get") == (401, [10000])
    assert refused(stranger.put, "key", b"value") == (401, [10000])
    assert refused(stranger.write, "bulk_update", body=[{"key": "key", "value": "1"}]) == (401, [10000])
    assert sdk.list_keys() == []


def test_token_that_may_only_read_cannot_write(sdk, place):
    sdk.put("key", b"value")
    reader = replace(sdk, route=Route(place(sdk.route.write.name, "read"), place(sdk.route.read.name, "read")))
    assert reader.get("key").data == b"value"
    assert reader.read("bulk_get", keys=["key"]) == {"values": {"key": "value"}}
    for write in ("bulk_update", "bulk_delete"):
        assert refused(reader.write, write, body=[]) == (403, [10000])
    assert refused(reader.delete, "key") == (403, [10000])
    assert refused(reader.write, "delete") == (403, [10000])
    assert sdk.get("key").data == b"value"
