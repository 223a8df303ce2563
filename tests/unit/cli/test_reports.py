"""What `status`, `rtt --verify`, `verify`, `logs` and `up` make of what they are told."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from kvnet.cli import up
from kvnet.cli.differences import FINDINGS_MAX, Finding
from kvnet.cli.logs import Tail
from kvnet.cli.polling import require_some, urls_of
from kvnet.cli.rtt import compare
from kvnet.cli.status import View
from kvnet.cli.verify import _lines, _table
from kvnet.errors import KvnetError
from kvnet.topology.load import load
from kvnet.topology.wan import Wan
from kvnet.topology.wan_state import parse_loss
from nodes.cluster import RunFolder

CLUSTER = {
    "coordinator": {"url": "http://c"},
    "pops": {"fra": {"url": "http://f", "city": "Frankfurt"}, "nrt": {"url": "http://n", "city": "Tokyo"}},
}
SAME = {"position": "1-5", "digest": "aa", "recomputed": "aa", "differing": []}


def view(fra, nrt="down", coordinator=None):
    answers = {"coordinator": coordinator or {"head": "1-9"}, "fra": fra, "nrt": nrt}
    return View.of(CLUSTER, answers, "down")


def test_lag_counts_the_entries_behind_the_head():
    fra, nrt = view({"position": "1-7", "parent": "nrt"}, {"position": "1-9"}).rows
    assert (fra.lag, nrt.lag) == (2, 0)


def test_without_a_coordinator_nobody_knows_the_lag():
    told = view({"position": "1-7"}, coordinator="down")
    assert told.rows[0].lag is None
    assert told.summary()[0].startswith("coordinator down")


def test_silent_pop_needs_an_eye_before_a_late_one():
    late, silent = view({"position": "1-1"}).rows
    assert silent.problem == "down"
    assert silent.badness > late.badness


def test_summary_tells_who_is_level_and_who_is_silent():
    told = view({"position": "1-9", "staleness_ms": 250}).summary()[0]
    assert told == "head 1-9: 1 of 2 PoPs hold it, 1 don't answer, stalest view 250 ms"


def test_broken_bound_is_told():
    report = {"writes": 3, "violation_count": 1, "converge_p50_ms": 1, "converge_p99_ms": 2}
    told = View.of(CLUSTER, {"coordinator": "down", "fra": "down", "nrt": "down"}, report).summary()[1]
    assert "broken 1 times" in told


def test_report_without_a_judged_write_promises_nothing_of_times():
    report = {"writes": 3, "violations": [], "converge_p50_ms": None, "converge_p99_ms": None}
    told = View.of(CLUSTER, {"coordinator": "down", "fra": "down", "nrt": "down"}, report).summary()[1]
    assert told == "monitor: 3 writes, none judged yet; the bound held"


def test_everybody_silent_is_a_failure():
    with pytest.raises(KvnetError, match="kvnet up"):
        require_some(dict.fromkeys(urls_of(CLUSTER), "down"), ".kvnet")
    require_some({"fra": "down", "nrt": {}}, ".kvnet")


def rendered(answers, findings):
    console = Console(width=80)
    with console.capture() as captured:
        console.print(_table(answers, findings))
    return captured.get()


def test_equal_replicas_share_a_line_and_others_have_their_own():
    bad = SAME | {"recomputed": "bb"}
    told = rendered({"coordinator": SAME, "fra": SAME, "nrt": bad, "akl": "down"}, [Finding("nrt", "missing")])
    assert "2, coordinator to fra" in told
    assert "1 finding" in told
    assert "down" in told


def test_many_findings_of_a_node_are_counted_after_the_first():
    findings = [Finding("fra", "missing", "n1", "settings", str(n)) for n in range(FINDINGS_MAX + 5)]
    lines = _lines([*findings, Finding("nrt", "extra", "n1", "settings", "k")])
    assert lines[0] == "fra: settings / 0: missing"
    assert lines[-2:] == ["nrt: settings / k: extra", "and 5 more: --json names them"]


def test_links_are_compared_with_what_was_asked_for():
    topology = load("world-2018")
    asked_ms = Wan(topology).rtt_ms("fra", "nrt")
    near_ms = Wan(topology).rtt_ms("fra", "ams")
    answers = {
        "fra": {"rtt_ms": {"nrt": asked_ms + 1, "ams": near_ms + 5, "atlantis": 1.0, "lhr": None}},
        "nrt": {"rtt_ms": {"fra": asked_ms * 1.2}},
        "ams": "down",
    }
    links = compare(topology, answers)
    assert [(link.node, link.peer) for link in links] == [("nrt", "fra"), ("fra", "ams"), ("fra", "nrt")]
    assert [link.is_off for link in links] == [True, True, False]


@pytest.mark.parametrize(("text", "loss"), [("0.2", 0.2), ("20%", 0.2), (" 5% ", 0.05), ("0", 0.0)])
def test_loss_is_a_fraction_or_percent(text, loss):
    assert parse_loss(text) == pytest.approx(loss)


def test_tail_goes_on_where_it_was_and_starts_anew_in_an_emptied_log(tmp_path):
    log = tmp_path / "log"
    tail = Tail("fra | ", log)
    assert tail.last(2) == []
    log.write_text("one\ntwo\nthree\nfo")
    assert tail.last(2) == ["fra | two", "fra | three"]
    log.write_text("one\ntwo\nthree\nfour\n")
    assert tail.more() == ["fra | four"]
    assert tail.more() == []
    log.write_text("new\n")
    assert tail.more() == ["fra | new"]


@pytest.mark.parametrize(
    ("variable", "data", "typed"),
    [
        (None, ".kvnet", "kvnet down"),
        (None, "my net", "kvnet down --data 'my net'"),
        ("/nets/a", "/nets/a", "kvnet down"),
        ("/nets/a", "/nets/b", "kvnet down --data /nets/b"),
        ("/nets/a", ".kvnet", "kvnet down --data .kvnet"),
    ],
)
def test_what_to_type_next_reaches_the_network_that_was_started(tmp_path, monkeypatch, variable, data, typed):
    """KVNET_DATA and another --data: the commands that `up` told went to the network of the variable."""
    monkeypatch.delenv("KVNET_DATA", raising=False)
    if variable is not None:
        monkeypatch.setenv("KVNET_DATA", variable)
    folder = RunFolder(tmp_path)
    folder.claim(load("world-2018").with_pops(2), {})
    told = up._summary(folder, 1000.0, Path(data), stays=True)
    assert told.splitlines()[-1].strip() == typed
