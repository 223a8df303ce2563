from __future__ import annotations

import pytest

from kvnet.core.spread import Share, Spread
from kvnet.errors import ProtocolError


@pytest.mark.parametrize(
    ("spelled", "members", "count"),
    [
        ("all", 152, 152),
        ("100%", 152, 152),
        ("99%", 100, 99),
        ("99%", 152, 151),
        ("99.9%", 1000, 999),
        ("99.9%", 152, 152),
        ("0.001%", 152, 1),
        ("50%", 3, 2),
        ("7%", 100, 7),
        ("29%", 100, 29),
        ("all", 1, 1),
    ],
)
def test_a_share_is_counted_exactly_and_rounded_up(spelled, members, count):
    assert Share.parse(spelled).count_of(members) == count


@pytest.mark.parametrize(
    "spelled", ["", "99", "%", "0%", "0.000%", "100.001%", "101%", "-1%", "1.2345%", "1e2%", " 9%", "ALL", "local"]
)
def test_what_is_no_share_is_refused(spelled):
    with pytest.raises(ValueError, match="share"):
        Share.parse(spelled)


def test_a_spread_comes_back_from_the_wire():
    spread = Spread(complete=False, applied=1, of=3, missing=("nrt", "per"), took_ms={"fra": 12.345})
    assert Spread.from_wire(spread.to_wire()) == spread._replace(took_ms={"fra": 12.3})


@pytest.mark.parametrize(
    "told",
    [
        None,
        {},
        {"complete": 1, "applied": 1, "of": 1, "missing": [], "took_ms": {}},
        {"complete": True, "applied": "1", "of": 1, "missing": [], "took_ms": {}},
        {"complete": True, "applied": 1, "of": 1, "missing": [7], "took_ms": {}},
        {"complete": True, "applied": 1, "of": 1, "missing": [], "took_ms": {"fra": "soon"}},
        {"complete": True, "applied": 1, "of": 1, "missing": [], "took_ms": {b"fra": 1}},
    ],
)
def test_what_is_no_spread_is_the_peers_fault(told):
    with pytest.raises(ProtocolError):
        Spread.from_wire(told)
