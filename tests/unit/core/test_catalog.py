from __future__ import annotations

import contextlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvnet.core.catalog import CatalogItem, Cluster, Member, Namespace, Scope, Token, key_of, read_item, value_of
from kvnet.errors import ProtocolError

TIMES = st.integers(0, 1 << 60)
NAMES = st.text(st.characters(codec="utf-8"), max_size=20)
ITEMS = st.one_of(
    st.builds(Namespace, st.binary(min_size=16, max_size=16), NAMES, TIMES),
    st.builds(Token, NAMES, NAMES, st.sampled_from(Scope), st.binary(max_size=32)),
    st.builds(Member, NAMES, TIMES),
    st.builds(Cluster, NAMES, st.binary(max_size=16), TIMES),
)
KEYS = st.one_of(
    st.binary(max_size=20),
    st.builds(
        lambda prefix, name: prefix + name,
        st.sampled_from([b"namespace/", b"token/", b"member/", b"cluster"]),
        st.one_of(st.just(b""), st.binary(max_size=20), st.binary(max_size=16).map(lambda b: b.hex().encode())),
    ),
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 64) - 1), st.floats(), NAMES, st.binary()
)
FIELDS = st.dictionaries(
    st.sampled_from(["title", "created_ms", "name", "scope", "hash", "joined_ms", "account_id", "cluster_id"]),
    SCALARS,
)


@given(ITEMS)
def test_an_item_reads_what_it_writes(item: CatalogItem) -> None:
    assert read_item(key_of(item), value_of(item)) == item


@given(ITEMS)
def test_fields_of_a_later_version_do_no_harm(item: CatalogItem) -> None:
    value = msgpack.packb({**msgpack.unpackb(value_of(item)), "later": 1})
    assert read_item(key_of(item), value) == item


@given(KEYS, st.one_of(st.binary(), st.one_of(FIELDS, SCALARS, st.lists(SCALARS)).map(msgpack.packb)))
def test_what_is_no_item_is_the_peers_fault(key: bytes, value: bytes) -> None:
    """A number where bytes belong made that many zero bytes; an infinite time stopped the node."""
    with contextlib.suppress(ProtocolError):
        read_item(key, value)


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        (b"token/x", {"name": "x", "scope": "read", "hash": 1 << 40}),
        (b"member/fra", {"joined_ms": float("inf")}),
        (b"namespace/xyz", {"title": "t", "created_ms": 0}),
        (b"token/x", {"name": "x", "scope": "god", "hash": b""}),
        (b"cluster/", {"account_id": "a", "cluster_id": b"", "created_ms": 0}),
        (b"unknown", {}),
    ],
)
def test_these_are_none(key: bytes, fields: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        read_item(key, msgpack.packb(fields))


@pytest.mark.parametrize("scope", Scope)
def test_a_scope_covers_those_before_it(scope: Scope) -> None:
    order = [Scope.READ, Scope.WRITE, Scope.ADMIN]
    assert [scope.covers(needed) for needed in order] == [
        order.index(needed) <= order.index(scope) for needed in order
    ]
