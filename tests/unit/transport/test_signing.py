from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvnet.errors import RequestError
from kvnet.transport.signing import WINDOW_MS, check, sign
from tests.support.peers import identity

KNOWN = ("coordinator", "fra", "ams")
NOW = 1_522_540_800_000
SENDER, RECEIVER = identity("fra"), identity("coordinator", start=2)


def signed(*, sender=SENDER, method="POST", path="/peer/v1/write", body=b"body", at_ms=NOW) -> str:
    return sign(sender, method, path, body, wall_ms=lambda: at_ms)


def checked(header, *, method="POST", path="/peer/v1/write", body=b"body", at_ms=NOW) -> str:
    return check(RECEIVER, KNOWN, header, method, path, body, wall_ms=lambda: at_ms)


def test_a_signed_request_names_its_sender():
    assert checked(signed()) == "fra"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "fra",
        signed(sender=identity("fra", secret=b"wrong")),
        signed(sender=identity("fra", cluster="another")),
        signed(sender=identity("zzz")),
        signed(method="PUT"),
        signed(path="/peer/v1/verify"),
        signed(body=b"another"),
        signed().replace("fra", "ams"),
        signed()[:-1] + "!",
    ],
    ids=["none", "empty", "name only", "secret", "cluster", "sender", "method", "path", "body", "name", "proof"],
)
def test_anything_but_this_request_signed_by_a_known_node_is_refused(header):
    with pytest.raises(RequestError) as raised:
        checked(header)
    assert (raised.value.status, raised.value.code) == (401, 10000)


@given(st.integers(-3 * WINDOW_MS, 3 * WINDOW_MS))
def test_a_signature_is_good_for_a_minute_around_its_time(off_ms):
    if abs(off_ms) <= WINDOW_MS:
        assert checked(signed(), at_ms=NOW + off_ms) == "fra"
    else:
        with pytest.raises(RequestError, match="clock"):
            checked(signed(), at_ms=NOW + off_ms)
