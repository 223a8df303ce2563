import pytest

from kvnet.monitor import arrivals as arrivals_module
from kvnet.topology.wan_state import Cut, WanState
from tests.support.monitored import ZERO


def test_a_write_converges_when_the_last_pop_has_it(story):
    story.all_up()
    seq = story.commit(1000)
    story.arrive(1050, seq, "fra")
    story.arrive(1170, seq, "nrt")
    assert story.report()["pending"] == 1
    story.arrive(1120, seq, "gru")
    report = story.report()
    assert report["converge_max_ms"] == pytest.approx(170)
    assert report["converge_p50_ms"] == pytest.approx(170, rel=0.002)
    assert report["stretch_p50"] == pytest.approx(1.7, rel=0.002)
    assert (report["writes"], report["pending"], report["violations"]) == (1, 0, [])
    assert report["per_pop"]["fra"]["max_ms"] == pytest.approx(50)


def test_a_batch_covers_all_frames_since_the_stamp_before(story):
    story.all_up()
    story.commit(1000)
    story.commit(1100, entries=3)
    story.arrive(1200, 4)
    report = story.report()
    assert (report["writes"], report["frames"], report["pending"]) == (4, 2, 0)
    assert report["converge_max_ms"] == pytest.approx(200)
    assert report["converge_p50_ms"] == pytest.approx(100, rel=0.002)  # three of four writes


def test_stamps_may_come_before_their_commit(story):
    story.all_up()
    story.arrive(1080, 1)
    story.arrive(1180, 2)
    story.commit(1000)
    story.commit(1100)
    assert story.report()["converge_max_ms"] == pytest.approx(80)
    assert story.report()["pending"] == 0


def test_a_stamp_beyond_the_last_commit_covers_all_commits_known(story):
    story.all_up()
    story.arrive(1300, 2)
    story.commit(1000)
    assert story.report()["converge_max_ms"] == pytest.approx(300)


def test_a_write_that_never_arrives_is_a_violation_and_counts_in_the_percentiles(story):
    story.all_up()
    seq = story.commit(1000)
    story.arrive(1100, seq, "fra", "gru")
    story.now = 10_900
    story.idle()
    assert story.violations() == []
    story.now = 31_000
    story.idle()
    assert story.violations() == [("1-1", "nrt", 30_000)]
    report = story.report()
    assert report["violation_count"] == 1
    assert report["pending"] == 1
    assert report["converge_max_ms"] == pytest.approx(30_000)


def test_a_late_arrival_is_a_violation_for_good(story):
    story.all_up()
    seq = story.commit(1000)
    story.arrive(1100, seq, "fra", "gru")
    story.arrive(11_500, seq, "nrt")
    story.now = 12_000
    assert story.violations() == [("1-1", "nrt", 10_500)]
    assert story.report()["converge_max_ms"] == pytest.approx(10_500)
    assert story.report()["pending"] == 0


def test_an_arrival_at_the_very_bound_keeps_it(story):
    story.all_up()
    story.arrive(11_000, story.commit(1000))
    assert story.violations() == []
    assert story.report()["converge_max_ms"] == pytest.approx(10_000)


def test_silence_excuses_nobody_but_a_feed_that_comes_back_may(story):
    story.all_up()
    seq = story.commit(1000)
    story.arrive(1100, seq, "fra", "gru")
    story.now = 15_900
    assert story.violations() == []
    story.now = 16_100
    assert story.violations() == [("1-1", "nrt", 15_100)]
    assert "silent" in story.report()["violations"][0]["why"]
    story.hello("nrt")
    story.arrive(1200, seq, "nrt")
    assert story.violations() == []
    assert story.report()["converge_max_ms"] == pytest.approx(200)


def test_a_pop_that_is_down_is_not_waited_for(story):
    story.up(fra=0.0, gru=0.0)
    story.arrive(1100, story.commit(1000), "fra", "gru")
    story.now = 60_000
    report = story.report()
    assert (report["pending"], report["violations"], report["connected"]) == (0, [], 2)
    assert report["converge_max_ms"] == pytest.approx(100)


def test_a_pop_that_comes_up_late_has_ten_seconds_of_its_own(story):
    story.up(fra=0.0, gru=0.0)
    seq = story.commit(1000)
    story.arrive(1100, seq, "fra", "gru")
    story.now = 30_000
    story.up(fra=0.0, gru=0.0, nrt=30_000.0)
    story.now = 39_900
    story.idle()
    assert story.violations() == []
    story.arrive(39_950, seq, "nrt")
    story.now = 60_000
    story.idle()
    assert story.violations() == []
    assert story.report()["converge_max_ms"] == pytest.approx(100)


def test_a_pop_that_comes_up_and_does_not_catch_up_in_time_is_a_violation(story):
    story.up(fra=0.0, gru=0.0)
    seq = story.commit(1000)
    story.arrive(1100, seq, "fra", "gru")
    assert story.report()["pending"] == 0
    story.now = 30_000
    story.up(fra=0.0, gru=0.0, nrt=30_000.0)
    story.now = 40_100
    story.idle()
    assert story.violations() == [("1-1", "nrt", 10_100)]
    story.arrive(41_000, seq, "nrt")
    assert story.violations() == [("1-1", "nrt", 11_000)]


def test_time_before_a_crash_still_counts_when_the_bound_was_broken_then(story):
    story.all_up()
    seq = story.commit(1000)
    story.arrive(1100, seq, "fra", "gru")
    story.now = 20_000
    story.up(fra=0.0, gru=0.0)
    story.now = 50_000
    story.up(fra=0.0, gru=0.0, nrt=50_000.0)
    assert story.violations() == [("1-1", "nrt", 19_000)]
    story.arrive(50_500, seq, "nrt")
    assert story.violations() == [("1-1", "nrt", 19_000)]


def test_what_a_pop_had_before_it_crashed_is_waited_for_a_moment(story):
    story.all_up()
    seq = story.commit(1000)
    story.arrive(1100, seq, "fra", "gru")
    story.now = 1200
    story.up(fra=0.0, gru=0.0)
    assert story.report()["pending"] == 1
    story.arrive(1150, seq, "nrt")
    assert story.report()["converge_max_ms"] == pytest.approx(150)


def test_a_restarted_edge_has_what_it_opened_with_since_it_opened(story):
    story.all_up()
    story.hello("nrt", start=b"1")
    seq = story.commit(1000)
    story.arrive(1100, seq, "fra", "gru")
    story.now = 2000
    story.up(fra=0.0, gru=0.0, nrt=1900.0)
    story.hello("nrt", start=b"2", oldest_seq=seq)
    story.idle("nrt")
    story.now = 30_000
    report = story.report()
    assert (report["pending"], report["violations"], report["unjudged"]) == (0, [], 0)
    assert report["converge_max_ms"] == pytest.approx(100)


def test_a_restarted_edge_opened_late_if_it_tells_so(story):
    story.all_up()
    story.hello("nrt", start=b"1")
    seq = story.commit(1000)
    story.hello("nrt", start=b"2", oldest_seq=seq)
    story.arrive(1400, seq, "nrt")
    story.arrive(1100, seq, "fra", "gru")
    assert story.report()["converge_max_ms"] == pytest.approx(400)


def test_a_cut_pop_has_its_time_from_the_heal(story):
    cut = WanState(cuts=(Cut(("nrt",), ("coordinator", "fra", "gru")),))
    story.all_up()
    story.now = 500
    story.truth.write(500, dict.fromkeys(story.pops, 0.0), wan=cut)
    story.monitor.observe_truth()
    assert story.report()["connected"] == 2
    seq = story.commit(1000)
    story.arrive(1100, seq, "fra", "gru")
    story.now = 60_000
    assert (story.violations(), story.report()["pending"]) == ([], 0)
    story.all_up()
    story.now = 69_000
    story.arrive(69_000, seq, "nrt")
    assert story.violations() == []
    assert story.report()["per_pop"]["nrt"]["connected_since_ms"] == 60_000


def test_nobody_is_connected_while_the_coordinator_is_down(story):
    story.all_up()
    seq = story.commit(1000)
    story.arrive(1100, seq, "fra")
    story.now = 1150
    story.truth.write(1150, dict.fromkeys(story.pops, 0.0), coordinator=None)
    story.monitor.observe_truth()
    story.now = 30_000
    story.truth.write(30_000, dict.fromkeys(story.pops, 0.0), coordinator=30_000)
    story.monitor.observe_truth()
    story.arrive(31_000, seq, "nrt", "gru")
    assert (story.violations(), story.report()["pending"]) == ([], 0)
    assert story.report()["converge_max_ms"] == pytest.approx(100)


def test_a_coordinator_whose_outage_only_its_feed_tells_excuses_the_pops(story):
    story.monitor._judge.observe(dict.fromkeys(story.pops, 0.0), 0.0)
    story.hello("coordinator", start=b"1")
    seq = story.commit(1000)
    story.arrive(1100, seq, "fra")
    story.now = 1200
    story.coordinator("lost", "closed")
    story.now = 30_000
    story.coordinator("lost", "refused")
    assert (story.violations(), story.report()["pending"]) == ([], 1)
    story.arrive(31_000, seq, "nrt")  # before the coordinator's feed is found again
    story.now = 32_000
    story.hello("coordinator", start=b"2")
    story.arrive(31_000, seq, "gru")
    assert (story.violations(), story.report()["pending"]) == ([], 0)
    assert story.report()["converge_max_ms"] == pytest.approx(100)


def test_a_lost_feed_of_a_coordinator_that_went_on_excuses_nobody(story):
    story.monitor._judge.observe(dict.fromkeys(story.pops, 0.0), 0.0)
    story.hello("coordinator", start=b"1")
    seq = story.commit(1000)
    story.coordinator("lost", "closed")
    story.arrive(31_000, seq)
    story.now = 32_000
    story.hello("coordinator", start=b"1")
    assert {pop for _, pop, _ in story.violations()} == set(story.pops)


def test_a_restarted_monitor_judges_what_the_feeds_still_know(story):
    story.all_up()
    story.now = 70_000
    story.start()
    story.all_up()
    story.seqs = 40
    for pop in story.pops:
        story.hello(pop, oldest_seq=41)
    forgotten, known = story.commit(1000), story.commit(65_000)
    story.arrive(65_300, known)
    report = story.report()
    assert (report["writes"], report["unjudged"], report["pending"]) == (2, 1, 0)
    assert (report["converge_max_ms"], report["violations"]) == (pytest.approx(300), [])
    assert forgotten == 41


def test_an_edge_that_was_down_when_a_write_was_made_leaves_it_judged_after_a_restart_of_the_monitor(story):
    """It has forgotten since when it has the write, but it never counted for that write's convergence."""
    story.now = 20_000
    story.up(fra=0.0, gru=0.0, nrt=8000.0)
    story.hello("fra")
    story.hello("gru")
    seq = story.commit(5000)
    story.hello("nrt", oldest_seq=seq)
    story.arrive(5100, seq, "fra", "gru")
    report = story.report()
    assert (report["unjudged"], report["pending"], report["violations"]) == (0, 0, [])
    assert report["converge_max_ms"] == pytest.approx(100)


def test_commits_that_a_killed_coordinator_never_told_are_unjudged(story):
    story.all_up()
    story.arrive(1100, story.commit(1000))
    story.seqs += 5
    story.arrive(2100, story.commit(2000, epoch=2), epoch=2)
    report = story.report()
    assert (report["writes"], report["unjudged"], report["pending"]) == (2, 5, 0)


def test_a_position_of_an_older_epoch_has_none_of_the_newer_ones_frames(story):
    story.all_up()
    story.commit(1000, entries=10)
    story.arrive(1100, 10)
    story.seqs = 8  # the operator let the second epoch begin without the last two writes
    story.commit(2000, epoch=2)
    assert story.report()["superseded"] == 10
    story.edge("nrt", "stamps", [[1, 10, 2050]], ZERO)
    assert story.report()["pending"] == 1
    story.arrive(2100, 9, epoch=2)
    report = story.report()
    assert (report["pending"], report["violations"]) == (0, [])


def test_repeated_feeds_change_nothing(story):
    story.all_up()
    seq = story.commit(1000)
    story.arrive(1100, seq)
    before = [story.report()[name] for name in ("writes", "frames", "converge_max_ms", "pending")]
    story.coordinator("commits", [[1, seq, seq, 1000.0, 100, 1]], ZERO)
    story.arrive(1100, seq)
    story.arrive(9000, seq)
    assert [story.report()[name] for name in ("writes", "frames", "converge_max_ms", "pending")] == before
    assert story.violations() == []


def test_a_pop_that_was_wiped_has_lost_nothing_that_was_measured(story):
    story.all_up()
    seq = story.commit(1000)
    story.arrive(1100, seq)
    story.hello("nrt", start=b"1")
    story.hello("nrt", start=b"2", oldest_seq=0)
    story.arrive(5000, 0, "nrt")
    assert story.report()["per_pop"]["nrt"]["position"] == "1-0"
    story.arrive(6000, seq, "nrt")
    assert story.report()["converge_max_ms"] == pytest.approx(100)


def test_memory_is_bounded_and_what_is_forgotten_is_judged(story, monkeypatch):
    monkeypatch.setattr(arrivals_module, "FRAMES_KEPT", 100)
    monkeypatch.setattr(arrivals_module, "_DROPPED_AT_ONCE", 10)
    story.all_up()
    for i in range(300):
        seq = story.commit(i * 1000.0)
        story.arrive(i * 1000.0 + 100, seq, "fra", "gru")
        story.now = i * 1000.0 + 200
    frames = story.monitor._arrivals._frames
    assert len(frames) <= 100
    report = story.report()
    story.idle()
    assert report["violation_count"] >= 280
    assert len(report["violations"]) == 200
    assert report["writes"] == 300
    assert report["converge_p50_ms"] > 10_000  # unfinished writes count with their age
    story.arrive(story.now, story.seqs, "nrt")
    assert story.report()["pending"] == 0
    assert story.report()["violation_count"] >= report["violation_count"]


def test_stamps_far_ahead_of_the_coordinators_feed_lose_their_times_not_their_truth(story, monkeypatch):
    monkeypatch.setattr(arrivals_module, "STAMPS_WAITING_MAX", 10)
    story.all_up()
    for seq in range(1, 31):
        story.arrive(seq * 100.0 + 50, seq)
    for seq in range(1, 31):
        assert story.commit(seq * 100.0) == seq
    report = story.report()
    assert (report["pending"], report["violations"]) == (0, [])
    assert 20 <= report["unjudged"] < 30
    assert report["converge_max_ms"] == pytest.approx(50)
