from __future__ import annotations

import pytest

from kvnet.cli.demo import judge
from kvnet.cli.spread import spread_lines

REPORT = {
    "bound_ms": 10_000.0,
    "connected": 3,
    "writes": 5,
    "unjudged": 0,
    "superseded": 0,
    "pending": 0,
    "violation_count": 0,
    "violations": [],
}


def test_verdict_is_kept_when_all_writes_were_judged_and_none_was_late():
    code, verdict = judge(REPORT, 5)
    assert (code, verdict.partition(":")[0]) == (0, "KEPT")


def test_violation_is_exit_code_3_and_names_the_pop():
    violation = {"write": "1-4", "writes": 1, "pop": "nrt", "lag_ms": 10_001.0, "why": "not arrived"}
    code, verdict = judge(REPORT | {"violation_count": 1, "violations": [violation]}, 5)
    assert code == 3
    assert "nrt: not arrived" in verdict


@pytest.mark.parametrize("change", [{"writes": 4}, {"pending": 1}, {"writes": 4, "unjudged": 1}])
def test_writes_that_nobody_judged_are_not_called_kept(change):
    code, verdict = judge(REPORT | change, 5)
    assert code == 1
    assert verdict.startswith("NOT PROVEN")


def test_bars_grow_with_time_and_columns_fill_the_width():
    per_pop = {
        code: {"p50_ms": time} for code, time in (("nrt", 100.0), ("gru", 50.0), ("fra", None), ("iad", 0.0))
    }
    assert spread_lines(per_pop, 30) == [
        "iad                0 ms",
        "gru █████         50 ms",
        "nrt ██████████   100 ms",
        "fra                – ms",
    ]
    assert [line.split()[0] for line in spread_lines(per_pop, 60)] == ["iad", "gru"]
    assert "nrt" in spread_lines(per_pop, 60)[0]


def test_no_pops_is_no_lines():
    assert spread_lines({}, 80) == []
