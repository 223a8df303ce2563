from __future__ import annotations

from random import Random

import pytest
from msgspec.structs import replace

from kvnet.errors import ConfigError
from kvnet.simulator.plan import COMMIT_WRITES_PER_S, Plan, Step, plan
from kvnet.simulator.sizes import parse_sizes
from kvnet.topology.load import load
from kvnet.topology.schema import Topology

MOST = 65_536


def network(pops: int = 6) -> Topology:
    return load("world-2018").with_pops(pops)


# -- sizes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "mean", "drawn"),
    [
        ("100", 100, {100}),
        (" 8 ", 8, {8}),
        ("100-102", 101, {100, 101, 102}),
        ("100:0.5,50000:0.5", 25_050, {100, 50_000}),
        ("100:90, 200:10", 110, {100, 200}),
        ("10-11:1,20:1", 15.25, {10, 11, 20}),
    ],
)
def test_sizes_are_a_number_a_range_or_a_mixture(text: str, mean: float, drawn: set[int]) -> None:
    sizes = parse_sizes(text, MOST)
    rng = Random(1)
    assert sizes.mean == pytest.approx(mean)
    assert {sizes.draw(rng) for _ in range(300)} == drawn


def test_a_mixture_is_drawn_by_its_shares() -> None:
    sizes = parse_sizes("100:0.9,50000:0.1", MOST)
    rng = Random(1)
    large = sum(sizes.draw(rng) == 50_000 for _ in range(10_000))
    assert 900 < large < 1100


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("", "write 100"),
        ("many", "write 100"),
        ("5000-100", "ends before it begins"),
        ("100,200", "no share"),
        ("100:0,200:1", "no share"),
        ("100:nan", "no share"),
        ("7", "write larger ones"),
        ("100-70000", "raise limits.value_bytes_max"),
        ("-5", "write 100"),
    ],
)
def test_unreadable_sizes_are_refused_in_one_line_with_the_cure(text: str, cure: str) -> None:
    with pytest.raises(ConfigError, match=cure) as refused:
        parse_sizes(text, MOST)
    assert "\n" not in str(refused.value)


# -- what can't be planned ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pops", "rate", "sizes", "speeds", "cure"),
    [
        (1, 20, "100", {}, "add PoPs"),
        (3, 0, "100", {}, "above 0"),
        (3, -1, "100", {}, "above 0"),
        (3, float("nan"), "100", {}, "above 0"),
        (3, float("inf"), "100", {}, "above 0"),
        (3, 20, "100", {"link_mbps": 0}, "link speed"),
        (3, 20, "100", {"uplink_mbps": -3}, "uplink"),
        (3, 2 * COMMIT_WRITES_PER_S, "100", {}, "lower --rate"),
        (3, 50_000, "60000", {}, "smaller values"),
        (3, 20, "65537", {}, "value_bytes_max"),
    ],
)
def test_what_can_not_be_planned_is_refused(
    pops: int, rate: float, sizes: str, speeds: dict[str, float], cure: str
) -> None:
    with pytest.raises(ConfigError, match=cure) as refused:
        plan(network(pops), rate, sizes, **speeds)
    assert "\n" not in str(refused.value)


# -- plans -------------------------------------------------------------------------------------------------------


def test_a_slow_link_is_what_breaks_first_and_at_the_rate_that_fills_it() -> None:
    planned = plan(network(), 20, link_mbps=1)
    breaks = planned.breaks
    assert breaks is not None
    assert breaks.kind == "link"
    assert len(breaks.nodes) == 2
    assert planned.ended == "found"
    assert planned.holds_rate is not None
    assert planned.holds_rate < breaks.rate
    # An entry of 100 bytes is some 170 of a frame, and a megabit 125,000 bytes.
    assert 125_000 / 300 < planned.holds_rate < 125_000 / 150


def test_without_a_speed_limit_the_coordinator_is_what_breaks_first() -> None:
    planned = plan(network(3), 20)
    assert planned.breaks is not None
    assert planned.breaks.kind == "commit"
    assert planned.holds_rate == COMMIT_WRITES_PER_S
    assert planned.unsent_bytes_max == 0
    assert all(not step.broke for step in planned.steps)


def test_an_uplink_breaks_before_the_links_that_share_it() -> None:
    planned = plan(network(), 20, link_mbps=4, uplink_mbps=2)
    assert planned.breaks is not None
    assert planned.breaks.kind == "uplink"
    assert planned.breaks.measured > planned.breaks.allowed == 2e6
    children = planned.coordinator_children if planned.breaks.nodes == ("coordinator",) else planned.relay_children
    assert children > 1, "or nothing shared the uplink"


def test_a_rate_that_is_too_high_is_told_and_a_lower_one_found_that_holds() -> None:
    planned = plan(network(), 2000, link_mbps=1)
    assert "link" in planned.steps[0].broke
    assert planned.holds_rate is not None
    assert planned.holds_rate < 2000
    assert planned.breaks is not None
    assert planned.holds_rate < planned.breaks.rate <= 2000


def test_every_write_counts_and_flows_are_those_of_the_rate() -> None:
    planned = plan(network(), 100, "100-1000", effort_s=0)
    assert planned.writes == 1000
    assert planned.late == 0
    assert planned.floor_ms < planned.converge_p50_ms <= planned.converge_p99_ms <= planned.converge_max_ms < 1000
    needed_bps = 8 * planned.rate * planned.frame_bytes_per_write
    assert planned.frame_bytes_per_write == pytest.approx(550 + 123, rel=0.05)
    assert planned.link_median_bps == pytest.approx(needed_bps, rel=0.15)
    assert planned.received_median_bps == pytest.approx(needed_bps, rel=0.15)
    assert planned.coordinator_bps == pytest.approx(planned.coordinator_children * needed_bps, rel=0.15)
    assert planned.relay_bps == pytest.approx(planned.relay_children * needed_bps, rel=0.3)
    assert planned.journal_bytes_per_day == pytest.approx(86_400 * needed_bps / 8)
    assert planned.edge_tail_s == pytest.approx(4 * 1024 * 1024 * 8 / needed_bps)


def test_a_bound_that_can_not_be_kept_is_what_breaks() -> None:
    topology = network()
    timers = replace(topology.timers, bound_ms=1100)
    planned = plan(replace(topology, timers=timers), 20, "30000", link_mbps=5, effort_s=0)
    slow = plan(replace(topology, timers=timers), 20, "60000", link_mbps=0.9, effort_s=0)
    assert planned.late == 0
    assert slow.late > 0
    assert slow.steps[0].broke


def test_no_more_is_tried_than_the_effort_allows() -> None:
    little, much = (plan(network(), 20, link_mbps=2, effort_s=effort) for effort in (0, 60))
    assert little.ended == "effort" or len(little.steps) < len(much.steps)
    assert much.ended == "found"


def test_the_same_seed_is_the_same_plan_and_another_is_not() -> None:
    def planned(seed: int) -> Plan:
        return plan(network(), 50, "50-500", link_mbps=2, loss=0.02, tcp="sack", seed=seed, effort_s=0)

    assert planned(1) == planned(1)
    assert planned(1) != planned(2)


def test_progress_goes_on_never_beyond_the_whole_and_counts_the_trials() -> None:
    heard: list[tuple[float, str]] = []
    planned = plan(network(3), 20, link_mbps=1, progress=lambda done, note: heard.append((done, note)))
    fractions = [done for done, _ in heard]
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] < fractions[-1] <= 1
    assert {note.split(":")[0] for _, note in heard} == {f"trial {n + 1}" for n in range(len(planned.steps))}
    assert isinstance(planned.steps[0], Step)
