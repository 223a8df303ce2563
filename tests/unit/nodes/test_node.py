"""Who may ask a node for what only other nodes and admins may have."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kvnet.core.catalog import Scope, Token, hash_token
from kvnet.errors import RequestError
from kvnet.transport.handshake import Identity
from kvnet.transport.signing import HEADER, sign
from nodes.edge import Edge
from nodes.verifying import VERIFY_PATH

ME = Identity(name="fra", start_id=bytes(8), cluster_id="c", secret=b"s" * 16)
TOKENS = {hash_token(scope): Token(scope, scope, Scope(scope), hash_token(scope)) for scope in Scope}


@pytest.fixture
def ask():
    edge = Edge.__new__(Edge)  # only what the check reads: a whole node has a port and a store
    edge.me = ME
    edge.store = SimpleNamespace(tokens=TOKENS)
    edge.topology = SimpleNamespace(node_names=lambda: ["coordinator", "fra"])
    return lambda headers: edge._authorise(SimpleNamespace(headers=headers, method="GET", path=VERIFY_PATH), b"")


def test_an_admin_and_a_node_are_let_in(ask):
    ask({"Authorization": "Bearer admin"})
    ask({HEADER: sign(ME, "GET", VERIFY_PATH, b"")})


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({HEADER: sign(ME, "GET", "/elsewhere", b"")}, 401),
        ({"Authorization": "Bearer nobody's"}, 401),
        ({"Authorization": "Bearer write"}, 403),
        ({"Authorization": "admin"}, 400),
        ({"Authorization": "Bearer \udcff"}, 400),
    ],
)
def test_others_are_told_why_not(ask, headers, status):
    with pytest.raises(RequestError) as refused:
        ask(headers)
    assert refused.value.status == status
