"""Keys listed in order, at any length, from any place."""

from __future__ import annotations


def listed(store, namespace, prefix=b"", after=None, limit=1000, now_s=0):
    keys, more = store.list_keys(namespace, prefix, after, limit, now_s)
    return [each.key for each in keys], more


def test_listings_go_on_where_they_ended_at_any_length(store, maker):
    namespace, other = maker.create_namespace("a"), maker.create_namespace("b")
    lengths = (1, 501, 502, 503, 1004, 1005, 2047, 2048)
    keys = sorted(stem * length for stem in (b"\0", b"a", b"\xff") for length in lengths)
    for key in keys:
        maker.put(namespace, key, b"v")
        maker.put(other, key + b"x", b"v")
    store.apply([maker.cut()])
    for limit in (1, 5, len(keys)):
        seen: list[bytes] = []
        more = True
        while more:
            some, more = listed(store, namespace, after=seen[-1] if seen else None, limit=limit)
            assert len(some) == limit or not more
            seen += some
        assert seen == keys
    for prefix in (b"a", b"a" * 502, b"a" * 503, b"a" * 2048, b"\xff" * 2048, b"b", b"\0" * 600):
        matching = [key for key in keys if key.startswith(prefix)]
        assert listed(store, namespace, prefix) == (matching, False)
        for after in (b"", b"a", b"a" * 1004, b"\xff" * 2048, b"zz", prefix, prefix + b"\xff"):
            left = [key for key in matching if key > after]
            assert listed(store, namespace, prefix, after) == (left, False)
            assert listed(store, namespace, prefix, after, 2) == (left[:2], len(left) > 2)


def test_listings_skip_what_has_expired(store, maker, namespace):
    for number in range(2500):
        maker.put(namespace, b"%04d" % number, b"v", metadata=b'{"n":1}', expires_at=number)
    store.apply([maker.cut()])
    keys, more = listed(store, namespace, now_s=2496)
    assert keys == [b"0000", b"2497", b"2498", b"2499", b"key"]
    assert not more
    assert listed(store, namespace, now_s=2498, limit=2) == ([b"0000", b"2499"], True)
    assert store.list_keys(namespace, b"2499", None, 1, 0) == ([(b"2499", b'{"n":1}', 2499)], False)
    assert store.get(namespace, b"0001").expires_at == 1, "expiry is its reader's business"
