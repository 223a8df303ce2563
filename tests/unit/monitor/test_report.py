import pytest

from kvnet.monitor.report import report_text
from kvnet.monitor.tally import MARKS_MAX
from tests.support.monitored import ZERO


def test_an_empty_network_has_an_empty_report(story):
    report = story.report()
    assert (report["writes"], report["pending"], report["violations"]) == (0, 0, [])
    for name in ("converge_p50_ms", "converge_p99_ms", "converge_max_ms", "stretch_p50", "redundancy"):
        assert report[name] is None


def test_a_mark_begins_a_window_without_what_was_before(story):
    story.all_up()
    story.arrive(1900, story.commit(1000))
    story.now = 2000
    story.monitor.mark("bench")
    story.arrive(3100, story.commit(3000, entries=2))
    assert story.report("bench")["writes"] == 2
    assert story.report("bench")["converge_max_ms"] == pytest.approx(100)
    assert story.report()["writes"] == 3
    assert story.report()["converge_max_ms"] == pytest.approx(900)
    assert story.report("bench")["since"] == {"name": "bench", "wall_ms": 2000}


def test_a_commit_told_after_the_mark_belongs_where_its_fsync_was(story):
    story.all_up()
    story.now = 2000
    story.monitor.mark("bench")
    story.arrive(2100, story.commit(1990))
    assert story.report("bench")["writes"] == 0


def test_pending_and_overdue_writes_before_a_mark_are_not_the_windows(story):
    story.all_up()
    story.commit(1000)
    story.now = 20_000
    story.monitor.mark("bench")
    assert story.report()["violation_count"] == 3
    assert (story.report("bench")["violation_count"], story.report("bench")["pending"]) == (0, 0)


def test_an_unknown_mark_has_no_report(story):
    assert story.report("never") is None


def test_the_newest_mark_of_a_name_counts(story):
    for now in (1000, 2000):
        story.now = now
        story.monitor.mark("bench")
    assert story.report("bench")["since"]["wall_ms"] == 2000


def test_marks_are_bounded_and_the_whole_stays_whole(story):
    story.all_up()
    for i in range(MARKS_MAX + 10):
        story.now = 1000.0 * (i + 1)
        story.monitor.mark(f"mark-{i}")
        story.arrive(story.now + 100, story.commit(story.now + 1))
    assert story.report("mark-0") is None
    assert story.report()["writes"] == MARKS_MAX + 10
    assert story.report(f"mark-{MARKS_MAX + 9}")["writes"] == 1


def told(received=0, sent=0, parent="fra"):
    return ZERO | {"frame_bytes_received": received, "frame_bytes_sent": sent, "parent": parent}


def test_redundancy_and_copies_count_from_the_mark(story):
    story.all_up()
    story.coordinator("idle", 1.0, 0, told(sent=5000))
    for pop in story.pops:
        story.edge(pop, "idle", 1.0, 0, told(received=7000))
    story.now = 500
    story.monitor.mark("bench")
    seq = story.commit(1000, size=200, counters=told(sent=5400))
    story.arrive(1100, seq, "fra", counters=told(received=7200))
    story.arrive(1100, seq, "nrt", counters=told(received=7200))
    story.arrive(1100, seq, "gru", counters=told(received=7400, parent="nrt"))
    report = story.report("bench")
    assert report["redundancy"] == pytest.approx(800 / 600, abs=0.001)
    assert report["coordinator_copies"] == 2
    assert report["per_pop"]["gru"]["parent"] == "nrt"


def test_counters_go_on_over_a_restart(story):
    story.hello("fra", start=b"1")
    story.edge("fra", "idle", 1.0, 0, told(received=300))
    story.hello("fra", start=b"2")
    story.edge("fra", "idle", 2.0, 0, told(received=50))
    assert story.report()["counters"]["frame_bytes_received"] == 350


def test_the_report_says_who_lags(story):
    story.all_up()
    story.arrive(1100, story.commit(1000))
    story.arrive(2100, story.commit(2000), "fra", "gru")
    story.now = 2500
    per_pop = story.report()["per_pop"]
    assert (per_pop["nrt"]["lag_frames"], per_pop["nrt"]["lag_ms"], per_pop["nrt"]["position"]) == (1, 500, "1-1")
    assert (per_pop["fra"]["lag_frames"], per_pop["fra"]["lag_ms"], per_pop["fra"]["position"]) == (0, 0, "1-2")


def test_the_text_names_the_slowest_first_and_every_violation(story):
    story.all_up()
    seq = story.commit(1000)
    story.arrive(1100, seq, "fra")
    story.arrive(1200, seq, "gru")
    story.arrive(12_000, seq, "nrt")
    text = report_text(story.report())
    assert text.index("nrt") < text.index("gru") < text.index("fra")
    assert "1-1              nrt      11000 ms: arrived late" in text


def test_the_text_of_an_empty_report_has_dashes(story):
    assert "converged p50            - ms" in report_text(story.report())
