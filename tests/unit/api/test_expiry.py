"""A pair is hidden from its very second on, by every read, and not a moment before."""

from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvnet.storage.store import Store
from tests.support.backends import NOW_S
from tests.support.frames import FrameMaker
from tests.support.stores import open_store

EXPIRES_AT = int(NOW_S) + 60
LONG = b"longer than a slice" * 30


async def reads(api, ns, key):
    """What each read makes of a pair: value, metadata, listing."""
    value = await api("GET", f"{ns}/values/{key}")
    metadata = await api("GET", f"{ns}/metadata/{key}")
    listing = await api("GET", f"{ns}/keys?limit=1000")
    names = [each["name"] for each in json.loads(listing.body)["result"]]
    return [value.status == 200, metadata.status == 200, key in names]


@pytest.mark.parametrize(
    ("now_s", "shown"),
    [
        (EXPIRES_AT - 1, True),
        (EXPIRES_AT - 0.001, True),
        (float(EXPIRES_AT), False),
        (EXPIRES_AT + 0.001, False),
        (EXPIRES_AT + 1, False),
    ],
)
async def test_every_read_hides_a_pair_from_its_very_second_on(api, node, ns, now_s, shown):
    answer = await api("PUT", f"{ns}/values/k?expiration={EXPIRES_AT}", b"v")
    assert answer.status == 200, answer.body
    node.now = now_s
    assert await reads(api, ns, "k") == [shown] * 3


async def test_all_reads_agree_at_every_second_about_every_pair(api, node, ns):
    rng = random.Random(4)
    expiries = {f"key-{n}": EXPIRES_AT + rng.randrange(10) for n in range(20)}
    for key, expires_at in expiries.items():
        await api("PUT", f"{ns}/values/{key}?expiration={expires_at}", b"v")
    for expires_at in sorted(set(expiries.values())):
        for node.now in (expires_at - 1, expires_at - 0.25, expires_at, expires_at + 0.75, expires_at + 1):
            for key in rng.sample(sorted(expiries), 4):
                assert await reads(api, ns, key) == [node.now < expiries[key]] * 3


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> tuple[Store, bytes, dict[bytes, int]]:
    """Keys that expire in every second from 1 to 40, some never; with and without metadata, some of them long."""
    store = open_store(tmp_path_factory.mktemp("filled"))
    maker = FrameMaker()
    maker.open_epoch()
    namespace = maker.create_namespace("a")
    expiries = {}
    for number in range(200):
        key = (LONG if number % 7 == 0 else b"") + b"%03d" % number
        expiries[key] = number % 41
        maker.put(namespace, key, b"v", metadata=b"{}" if number % 3 else b"", expires_at=expiries[key])
    store.apply([maker.cut()])
    yield store, namespace, expiries
    store.close()


@settings(deadline=None)
@given(
    expires_at=st.integers(1, 40),
    beside=st.sampled_from([-1, -0.5, 0, 0.5, 1]),
    limit=st.integers(1, 60),
    prefix=st.sampled_from([b"", b"1", LONG, b"0"]),
)
def test_a_listing_shows_exactly_what_single_reads_show(filled, expires_at, beside, limit, prefix):
    store, namespace, expiries = filled
    now_s = expires_at + beside
    shown = []
    after = None
    while True:
        page, more = store.list_keys(namespace, prefix, after, limit, math.floor(now_s))
        shown += [each.key for each in page]
        if not more:
            break
        assert len(page) == limit
        after = page[-1].key
    singly = [
        key
        for key in sorted(expiries)
        if key.startswith(prefix) and not 0 < store.get(namespace, key).expires_at <= now_s
    ]
    assert shown == singly
    assert all(expiries[key] == 0 or expiries[key] > now_s for key in shown)
