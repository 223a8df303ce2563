"""The monitor's ledger, histograms and judge against the plainest program that could be right."""

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvnet.monitor.histogram import Histogram
from kvnet.monitor.presence import Presence
from tests.support.monitored import ZERO, Story

PRECISION = 0.002


def nearest_rank(samples, fraction):
    return sorted(samples)[max(1, ceil(fraction * len(samples))) - 1]


@given(
    st.lists(st.tuples(st.floats(0.01, 1e6), st.integers(1, 5)), min_size=1),
    st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]),
    st.integers(0, 20),
)
def test_a_histogram_finds_the_percentiles_that_sorting_finds(weighted, fraction, split):
    first, second = Histogram(), Histogram()
    for i, (sample, weight) in enumerate(weighted):
        (first if i < split else second).add(sample, weight)
    first.merge(second)
    samples = [sample for sample, weight in weighted for _ in range(weight)]
    assert first.count == len(samples)
    assert first.maximum == max(samples)
    assert first.percentile(fraction) == pytest.approx(nearest_rank(samples, fraction), rel=PRECISION)


@st.composite
def networks(draw):
    """Frames (t0, entries) and, by PoP, batches (last frame of it, wall time), all times rising."""
    gaps = draw(st.lists(st.tuples(st.integers(1, 9000), st.integers(1, 4)), min_size=1, max_size=12))
    frames, t0 = [], 0
    for gap, entries in gaps:
        t0 += gap
        frames.append((float(t0), entries))
    pops = []
    for _ in range(draw(st.integers(1, 4))):
        ends = sorted({*draw(st.lists(st.integers(0, len(frames) - 1), max_size=6)), len(frames) - 1})
        wall, batches = 0.0, []
        for end in ends:
            wall = max(wall, frames[end][0]) + draw(st.integers(0, 15_000))
            batches.append((end, wall))
        pops.append(batches)
    return frames, pops


@given(networks(), st.randoms(use_true_random=False), st.booleans())
def test_convergence_and_violations_are_those_of_a_naive_judge(network, rng, repeated):
    """Whatever the order in which the feeds' messages come, and if all are told twice."""
    frames, pops = network
    names = [f"p{i}" for i in range(len(pops))]
    seqs, seq = [], 0
    for _, entries in frames:
        seq += entries
        seqs.append(seq)

    samples, late, per_pop = [], set(), {name: [] for name in names}
    for i, (t0, entries) in enumerate(frames):
        lags = [next(wall for end, wall in batches if end >= i) - t0 for batches in pops]
        samples += [max(lags)] * entries
        for name, lag in zip(names, lags, strict=True):
            per_pop[name] += [lag] * entries
            if lag > 10_000:
                late.add((f"1-{seqs[i] - entries + 1}", name, lag))

    story = Story(pops=tuple(names))
    story.all_up()
    committed = zip(seqs, frames, strict=True)
    feeds = [[("commit", [1, end - n + 1, end, t0, 100, n]) for end, (t0, n) in committed]]
    for name, batches in zip(names, pops, strict=True):
        feeds.append([(name, [1, seqs[end], wall]) for end, wall in batches])
    if repeated:
        feeds = [feed + feed for feed in feeds]
    while any(feeds):
        kind, row = rng.choice([feed for feed in feeds if feed]).pop(0)
        if kind == "commit":
            story.coordinator("commits", [row], ZERO)
        else:
            story.edge(kind, "stamps", [row], ZERO)

    report = story.report()
    assert (report["writes"], report["pending"], report["unjudged"]) == (len(samples), 0, 0)
    assert report["converge_max_ms"] == pytest.approx(max(samples), rel=1e-4, abs=0.01)
    for name, fraction in (("converge_p50_ms", 0.5), ("converge_p99_ms", 0.99)):
        assert report[name] == pytest.approx(nearest_rank(samples, fraction), rel=2 * PRECISION, abs=0.01)
    for name in names:
        found = report["per_pop"][name]
        assert found["p50_ms"] == pytest.approx(nearest_rank(per_pop[name], 0.5), rel=2 * PRECISION, abs=0.01)
        assert found["writes"] == len(samples)
    assert set(story.violations()) == late


@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=12),
    st.integers(0, 3000),
    st.integers(0, 3000),
)
def test_exposure_is_the_longest_run_of_connected_milliseconds(changes, t0, waited):
    """Counting the milliseconds one by one."""
    presence, at, spans = Presence(), 0, []
    for i, gap in enumerate(changes):
        at += gap
        if i % 2 == 0:
            presence.update(float(at), float(at))
            spans.append([at, 10_000])
        else:
            presence.update(None, float(at))
            spans[-1][1] = at
    until = t0 + waited
    longest = run = 0
    for millisecond in range(t0, until):
        run = run + 1 if any(begin <= millisecond < end for begin, end in spans) else 0
        longest = max(longest, run)
    assert presence.exposure_ms(t0, until) == longest
