"""Long JSON is sent compressed to who can read it; values never are."""

from __future__ import annotations

import gzip
import json

import pytest

from kvnet.api.encoding import AT_ONCE_BYTES, PAYS_BYTES, accepts_gzip


@pytest.mark.parametrize(
    ("told", "accepted"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("br, x-gzip", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("deflate, br", False),
        ("*", False),
        ("gzipped", False),
        ("", False),
    ],
)
def test_gzip_is_accepted_where_it_is_named(told, accepted):
    assert accepts_gzip(told) is accepted


@pytest.mark.parametrize("size", [PAYS_BYTES // 10, AT_ONCE_BYTES // 500])
async def test_a_long_list_is_shorter_and_says_the_same(api, node, ns, size):
    namespace = bytes.fromhex(ns[1:])
    node.put_many(
        namespace, [b"key-%04d-%b" % (number, b"k" * 1000 if size > 200 else b"") for number in range(size)]
    )
    plain = await api("GET", f"{ns}/keys")
    short = await api("GET", f"{ns}/keys", Accept_Encoding="gzip, deflate")
    assert short.headers["content-encoding"] == "gzip"
    assert short.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    assert int(short.headers["content-length"]) == len(short.body) < len(plain.body) / 3
    assert json.loads(gzip.decompress(short.body)) == plain.json
    assert "content-encoding" not in plain.headers


async def test_a_bulk_get_that_holds_room_is_shorter_too(api, ns, monkeypatch):
    monkeypatch.setattr("kvnet.api.bulk.READ_AT_ONCE_BYTES", 1000)
    await api("PUT", f"{ns}/values/k", b"v" * 60_000)
    asked = b'{"keys":["k"]}'
    short = await api("POST", f"{ns}/bulk/get", asked, Accept_Encoding="gzip")
    assert short.headers["content-encoding"] == "gzip"
    assert int(short.headers["content-length"]) == len(short.body) < 1000
    assert json.loads(gzip.decompress(short.body)) == (await api("POST", f"{ns}/bulk/get", asked)).json
    assert api.node.large_reads.count == 0


async def test_short_answers_and_values_are_sent_as_they_are(api, ns):
    await api("PUT", f"{ns}/values/k", b"v" * 60_000)
    got = await api("GET", f"{ns}/values/k", Accept_Encoding="gzip")
    assert (got.body, "content-encoding" in got.headers) == (b"v" * 60_000, False)
    listed = await api("GET", f"{ns}/keys", Accept_Encoding="gzip")
    assert listed.json["result"] == [{"name": "k"}]
