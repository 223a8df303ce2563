from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from math import inf

import pytest
from msgspec.structs import fields
from rich.console import Console

from bench import protocol_sweep
from bench._support import bars, simulated, sweep_plots, sweep_tables, sweeps
from bench._support.bars import Bar, Trial, Verdict
from bench._support.simulated import CLEAN, Case, Condition, Ran, Seeds, in_order, run_case, spread
from kvnet.simulator.measure import Measured
from kvnet.timers import Timers

SMALL = Case(pops=8, writes=5)


def measured(**changes) -> Measured:
    ones = {field.name: 1 for field in fields(Measured) if field.required}
    return Measured(**(ones | {"tcp": "flight", "violations": 0} | changes))


def ran(case: Case = SMALL, *, cpu_s: float = 1.0, **changes) -> Ran:
    return Ran(case, measured(**changes), "", cpu_s)


def unformed(case: Case = SMALL) -> Ran:
    return Ran(case, None, "3 of 8 PoPs have not formed", 1.0)


def text_of(table) -> str:
    out = StringIO()
    Console(width=220, file=out).print(table)
    return out.getvalue()


# -- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--sweep", "speed"], "degree"),
        (["--against", "time"], "size"),
        (["--pops", "10001"], "10,000"),
        (["--pops", "0"], "at least 1"),
        (["--seeds", "none"], "whole number"),
        (["--bars", "--pops", "100"], "330"),
        (["--bars", "--writes", "100"], "leave out --writes"),
        (["--json", "no/such/folder/x.json"], "create it first"),
    ],
)
def test_a_wrong_option_names_the_cure_and_exits_with_2(arguments, told, capsys):
    with pytest.raises(SystemExit) as end:
        protocol_sweep.parse(arguments)
    assert end.value.code == 2
    assert told in capsys.readouterr().err


def test_without_a_question_all_sweeps_are_asked_for():
    assert protocol_sweep.parse([]).sweep == list(sweeps.SWEEPS)
    assert protocol_sweep.parse(["--bars"]).sweep == protocol_sweep.parse(["--against", "loss"]).sweep == []
    assert protocol_sweep.parse(["--sweep", "degree", "--sweep", "degree"]).sweep == ["degree"]


# -- cases -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sweep", sweeps.SWEEPS.values(), ids=lambda sweep: sweep.name)
def test_every_sweep_has_the_default_beside_what_it_tries(sweep):
    settings = sweep.settings()
    assert sweep.defaults() in settings
    assert sweep.changes(sweep.defaults()) == ()
    assert len({sweep.changes(values) for values in settings}) == len(settings) > 1


@pytest.mark.parametrize("sweep", sweeps.SWEEPS.values(), ids=lambda sweep: sweep.name)
def test_a_sweep_sets_knobs_that_exist_within_their_ranges(sweep):
    for values in sweep.settings():
        network = Case(pops=8, changes=sweep.changes(values)).network()
        assert tuple(getattr(network.timers, knob) for knob in sweep.knobs) == values
        assert network.timers.beacon_interval_busy_ms <= network.timers.beacon_interval_ms
        assert network.timers.coordinator_links <= network.timers.coordinator_children_max


def test_sweeps_have_the_default_in_common_so_that_it_runs_once():
    cases = [set(sweeps.sweep_cases(sweep, 152, 10, [1])) for sweep in sweeps.SWEEPS.values()]
    assert set.intersection(*cases) == {Case(pops=152, condition=each, writes=10) for each in sweeps.CONDITIONS}


def test_a_case_is_a_network_as_asked_for():
    case = Case(
        pops=20, condition=Condition("lost", loss=0.2), profile="internet", changes=(("late_intervals", 3.0),)
    )
    network = case.network()
    assert (network.wan.profile, network.wan.jitter_sigma, network.wan.loss) == ("internet", 0.0, 0.2)
    assert network.coordinator.place == "iad"
    assert "iad" in {pop.code for pop in network.pops}
    assert network.timers.late_intervals == 3.0
    assert network.timers.children_max == Timers().children_max


@pytest.mark.parametrize(("pops", "name"), [(152, "world-2018"), (330, "world-2026"), (400, "world-2026")])
def test_a_size_says_which_network_it_is(pops, name):
    network = Case(pops=pops).network()
    assert (len(network.pops), network.name) == (pops, name)


def test_a_large_network_gets_fewer_writes():
    assert sweeps.writes_to(1000, 1200) == 1200
    assert sweeps.writes_to(3000, 1200) == 400
    assert sweeps.writes_to(3000, 100) == 100


def test_the_bound_ends_where_it_is_first_broken():
    assert sweeps.bound_end({0.0: 0, 0.2: 0, 0.4: 0}) is None
    assert sweeps.bound_end({0.0: 0, 0.4: 7, 0.2: 3}) == 0.2


# -- running -----------------------------------------------------------------------------------------------------


def test_the_same_case_comes_out_equal_in_this_process_and_in_others():
    cases = [replace(SMALL, seed=seed) for seed in (1, 2)]
    here = [each.measured for each in in_order(run_case, cases, 1)]
    there = [each.measured for each in in_order(run_case, cases, 2)]
    assert here == there
    assert here[0] is not None
    assert here[0].writes == 5
    assert here[0] != here[1]


def test_a_cut_is_written_to_for_as_long_as_it_lasts():
    result = run_case(replace(SMALL, rate=1.0, writes=100, condition=Condition("cut", cut=0.3))).measured
    assert result is not None
    assert result.writes == simulated.CUT_MS / 1000
    assert result.healed_ms is not None


# -- sums --------------------------------------------------------------------------------------------------------


def test_a_spread_tells_the_range_only_where_there_is_one():
    assert spread([]) is None
    assert spread([3.0, 1.0, 2.0]).text() == "2 (1–3)"
    assert spread([1.04, 1.01]).text(1) == "1.0"
    assert spread([100.0, 2000.0, inf]).text() == "2,000 (100–never)"


def test_networks_that_did_not_form_are_counted_and_left_out():
    seeds = Seeds((ran(converge_p99_ms=10.0, violations=2, writes=5), unformed()))
    assert (seeds.unformed, seeds.violations, seeds.writes) == (1, 2, 5)
    assert seeds.spread("converge_p99_ms").text() == "10"
    assert seeds.spread("healed_ms") is None
    assert Seeds((unformed(),)).spread("converge_p99_ms") is None


def test_json_has_no_infinity():
    told = simulated.document(ran(converge_max_ms=inf, healed_ms=inf))
    assert told["converge_max_ms"] is told["healed_ms"] is None
    json.dumps(told, allow_nan=False)
    assert simulated.document(unformed())["not_formed"] == "3 of 8 PoPs have not formed"


# -- bars --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([1.0, 1.1, 1.1], Verdict.PASS),
        ([1.0, 1.1, 1.2], Verdict.MEDIAN),
        ([1.0, 1.2, 1.2], Verdict.FAIL),
        ([1.0, 1.0, inf], Verdict.MEDIAN),
    ],
)
def test_a_bar_is_judged_by_the_median(values, verdict):
    assert Bar("p50", "× floor", lambda _: 0.0, 1.1).judge(values) == verdict


def test_a_violation_under_one_seed_is_one_too_many():
    assert bars.NO_VIOLATION.judge([0, 0, 0]) == Verdict.PASS
    assert bars.NO_VIOLATION.judge([0, 0, 1]) == Verdict.FAIL


def test_speed_has_to_be_at_least_what_the_bar_says():
    assert bars.EVENTS_PER_S.judge([100_000, 120_000, 130_000]) == Verdict.PASS
    assert bars.EVENTS_PER_S.judge([90_000, 120_000, 130_000]) == Verdict.MEDIAN
    assert bars.EVENTS_PER_S.judge([90_000, 95_000, 130_000]) == Verdict.FAIL
    fast = bars.judge_speed([ran(events=300_000, cpu_s=2.0)], [ran(virtual_ms=10_000.0, cpu_s=2.0)])
    assert [each.values for each in fast] == [(150_000.0,), (5.0,)]


def test_a_network_that_does_not_form_fails_all_bars_of_its_experiment():
    trial = Trial("cut", SMALL, (bars.NO_VIOLATION, Bar("p99", "ms", bars._measured("converge_p99_ms"), 500)))
    judged = bars.judge([trial], {SMALL: unformed()})
    assert [each.verdict for each in judged] == [Verdict.FAIL, Verdict.FAIL]


def test_each_bar_is_judged_by_all_seeds_of_its_own_experiment():
    lossy = replace(SMALL, condition=Condition("lost", loss=0.2))
    bar = Bar("p99", "ms", bars._measured("converge_p99_ms"), 5)
    trials = [Trial("clean", SMALL, (bar,)), Trial("lossy", lossy, (bar,))]
    cases = [case for trial in trials for case in trial.cases([1, 2], writes=3)]
    done = {case: ran(case, converge_p99_ms=case.seed + 10 * case.condition.loss) for case in cases}
    assert [each.values for each in bars.judge(trials, done)] == [(1.0, 2.0), (3.0, 4.0)]


def test_every_bar_reads_what_a_run_has():
    for trial in bars.TRIALS:
        for bar in trial.bars:
            assert bar.value(ran(healed_ms=1.0)) in {0, 1}


def test_the_bars_are_told_with_what_failed():
    slow = Bar("p99", "ms", bars._measured("converge_p99_ms"), 500)
    trial = Trial("30 % crashed", SMALL, (slow, bars.NO_VIOLATION))
    judged = bars.judge([trial], {SMALL: ran(converge_p99_ms=612.0)})
    told = text_of(sweep_tables.bars_table(judged, "The bars"))
    assert "30 % crashed" in told
    assert "≤ 500" in told
    assert "612" in told
    assert "FAIL" in told
    document = sweep_tables.bars_document(judged, [ran()])
    assert [each["verdict"] for each in document["bars"]] == ["FAIL", "pass"]


# -- tables ------------------------------------------------------------------------------------------------------


def test_a_sweep_is_told_beside_its_default():
    sweep = sweeps.SWEEPS["lateness"]
    cases = sweeps.sweep_cases(sweep, 8, 5, [1, 2])
    default = {case for case in cases if not case.changes}
    done = {case: ran(case, converge_p99_ms=100.0 if case in default else 150.0) for case in cases}
    found = sweep_tables.of_sweep(done, sweep, 8)
    assert all(len(seeds.runs) == 2 for seeds in found.values())
    told = text_of(sweep_tables.sweep_table(sweep, 8, found))
    assert f"{Timers().late_intervals:g} *" in told
    assert "1.50" in told
    rows = sweep_tables.sweep_document(sweep, 8, found)["rows"]
    assert sum(row["is_default"] for row in rows) == len(sweeps.CONDITIONS)


def test_a_network_that_did_not_form_has_a_row_too():
    cases = sweeps.loss_cases(8, [0.0, 0.4], 5, [1])
    done = {case: unformed(case) if case.condition.loss else ran(case) for case in cases}
    found = sweep_tables.of_losses(done, 8, [0.0, 0.4])
    assert "1 of 1 not formed" in text_of(sweep_tables.loss_table(8, found))
    assert len(sweep_tables.loss_document(8, found)["rows"]) == 4


def test_sizes_are_told_by_condition():
    cases = sweeps.size_cases([10, 3000], 500, [1])
    found = sweep_tables.of_sizes({case: ran(case, violations=3, writes=9) for case in cases}, [10, 3000])
    told = text_of(sweep_tables.size_table(found))
    assert "3,000" in told
    assert "3 of 9" in told
    assert {condition for condition, _ in found} == {CLEAN, sweeps.CONDITIONS[3]}


# -- pictures ----------------------------------------------------------------------------------------------------


def test_pictures_are_drawn_whatever_was_measured(tmp_path):
    pytest.importorskip("matplotlib")
    sweep = sweeps.SWEEPS["degree"]
    cases = [*sweeps.sweep_cases(sweep, 8, 5, [1, 2]), *sweeps.loss_cases(8, [0.0, 0.4], 5, [1, 2])]
    done = {case: unformed(case) if case.seed == 2 else ran(case, converge_p99_ms=inf) for case in cases}
    sweep_plots.plot_sweep(sweep, 8, sweep_tables.of_sweep(done, sweep, 8), tmp_path / "sweep.svg")
    sweep_plots.plot_sizes(sweep_tables.of_sizes(done, [8]), tmp_path / "size.svg")
    sweep_plots.plot_losses(8, sweep_tables.of_losses(done, 8, [0.0, 0.4]), tmp_path / "loss.svg")
    trial = Trial("clean", SMALL, bars.CLEAN_BARS)
    judged = bars.judge([trial], {SMALL: unformed()}) + bars.judge_speed([ran(events=9)], [unformed()])
    sweep_plots.plot_bars(judged, "The bars", tmp_path / "bars.svg")
    assert len(list(tmp_path.iterdir())) == 4
