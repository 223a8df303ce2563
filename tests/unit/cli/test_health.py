"""What `status` and `doctor` make of what nodes tell of their stores."""

from __future__ import annotations

import pytest
from rich.console import Console

from kvnet.cli.health import condition, store_findings
from kvnet.cli.sizes import bytes_in_words
from kvnet.cli.status import View, _table
from kvnet.cli.stored import NAMESPACES_SHOWN_MAX, furthest, namespaces_table, usage_lines

MIB = 1024 * 1024
WHOLE = {
    "role": "edge",
    "ready": True,
    "position": "1-100",
    "damaged": None,
    "bootstrap": None,
    "driver": {"storage_full": False},
    "store": {
        "keys": {"00": 10, "a1": 90},
        "map_bytes": 200 * MIB,
        "free_bytes": 10 * MIB,
        "map_size_bytes": 1024 * MIB,
        "journal_bytes": 3 * MIB,
        "horizon_seq": 40,
        "compacting": False,
    },
    "namespaces": {"a1": {"title": "settings", "keys": 90, "bytes": 5000}},
}
BOOTSTRAP = {"pages": 3, "all_pages": False, "proving": False, "keys": 45}


def rendered(*parts, width=80):
    console = Console(width=width)
    with console.capture() as captured:
        console.print(*parts, sep="\n", highlight=False)
    return captured.get()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, ""),
        ({"bootstrap": BOOTSTRAP}, "made anew: 45 %"),
        ({"bootstrap": BOOTSTRAP | {"keys": 500}}, "made anew: 99 %"),
        ({"bootstrap": BOOTSTRAP | {"all_pages": True}}, "made anew: 100 %"),
        ({"bootstrap": BOOTSTRAP | {"all_pages": True, "proving": True}}, "made anew: proof"),
        ({"damaged": "a record", "ready": False}, "damaged, heals"),
        ({"damaged": "a record", "bootstrap": BOOTSTRAP}, "made anew: 45 %"),
        ({"damaged": "a record", "role": "coordinator"}, "damaged"),
        ({"driver": {"storage_full": True}}, "disk full"),
        ({"store": WHOLE["store"] | {"compacting": True}}, "compacting"),
        ({"ready": False}, "not ready"),
    ],
)
def test_what_is_the_matter_with_a_node_is_told_in_few_words(change, told):
    assert condition(WHOLE | change, 100) == told


def test_without_a_whole_replica_a_bootstrap_counts_its_keys():
    assert condition(WHOLE | {"bootstrap": BOOTSTRAP}) == "made anew: 45 keys"


def findings(**answers):
    return {finding.subject: finding for finding in store_findings(answers)}


def test_whole_replicas_are_one_finding():
    found = findings(fra=WHOLE, nrt=WHOLE, akl="down")
    assert [finding.detail for finding in found.values()] == ["2 replicas are whole"]


def test_damage_and_full_disks_and_maps_are_findings_that_name_their_cure():
    store = WHOLE["store"]
    found = findings(
        coordinator=WHOLE | {"role": "coordinator", "damaged": "a record"},
        fra=WHOLE | {"damaged": "a record"},
        nrt=WHOLE | {"driver": {"storage_full": True}},
        akl=WHOLE | {"store": store | {"map_bytes": 1000 * MIB}},
    )
    assert not any(finding.ok for finding in found.values())
    assert "coordinator, fra" in found["damage"].detail
    assert "kvnet snapshot restore" in found["damage"].detail
    assert "free space" in found["full disks"].detail
    assert "map_size_gib" in found["map"].detail


def test_damaged_edges_alone_need_nobody():
    found = findings(fra=WHOLE | {"damaged": "a record"})
    assert "made anew" in found["damage"].detail
    assert "restore" not in found["damage"].detail


def test_much_free_room_in_a_file_names_the_command_that_gives_it_back():
    store = WHOLE["store"] | {"free_bytes": 150 * MIB}
    found = findings(fra=WHOLE | {"store": store}, nrt=WHOLE)
    assert found["free pages"].ok
    assert "`kvnet compact fra`" in found["free pages"].detail
    small = WHOLE["store"] | {"map_bytes": MIB, "free_bytes": MIB}
    assert "free pages" not in findings(fra=WHOLE | {"store": small})


def test_a_bootstrap_is_no_trouble():
    assert findings(fra=WHOLE | {"bootstrap": BOOTSTRAP})["bootstrap"].ok


CLUSTER = {"pops": {"fra": {"city": "Frankfurt am Main"}, "nrt": {"city": "Tokyo"}}}


def view(fra, coordinator=WHOLE):
    answers = {"coordinator": coordinator | {"head": "1-100"}, "fra": fra, "nrt": WHOLE}
    return View.of(CLUSTER, answers, "down")


def test_a_replica_that_is_made_anew_needs_an_eye_and_shows_how_far_it_is():
    told = view(WHOLE | {"bootstrap": BOOTSTRAP, "parent": "nrt", "staleness_ms": 12345})
    fra, nrt = told.rows
    assert fra.badness > nrt.badness
    text = rendered(_table(told.rows))
    assert "made anew: 45 %" in text
    assert max(map(len, text.splitlines())) <= 80


def test_without_trouble_there_is_no_column_for_it():
    assert "replica" not in rendered(_table(view(WHOLE).rows))


def test_a_damaged_coordinator_says_why_below_the_table():
    damaged = WHOLE | {"role": "coordinator", "damaged": "1 stored record isn't what was written"}
    assert view(WHOLE, damaged).summary()[1] == "coordinator: 1 stored record isn't what was written"


def test_largest_namespaces_come_first_and_the_rest_is_summed():
    many = {str(n): {"title": f"space-{n:02}", "keys": n, "bytes": 1000 * n} for n in range(15)}
    text = rendered(namespaces_table(WHOLE | {"namespaces": many}))
    lines = [line.split() for line in text.splitlines() if "space-" in line or "more" in line]
    assert lines[0] == ["space-14", "14", "13.7", "KiB"]
    assert len(lines) == NAMESPACES_SHOWN_MAX + 1
    assert lines[-1] == ["and", "5", "more", "10", "9.8", "KiB"]
    assert namespaces_table(WHOLE | {"namespaces": {}}) is None


def test_disks_and_journals_are_summed():
    answers = {
        "coordinator": WHOLE | {"store": WHOLE["store"] | {"horizon_seq": 0}},
        "fra": WHOLE,
        "nrt": WHOLE | {"store": WHOLE["store"] | {"map_bytes": 100 * MIB, "horizon_seq": 90}},
        "akl": "down",
    }
    assert usage_lines(answers) == [
        "disk: coordinator 200 MiB (5 % free); PoPs 100 MiB to 200 MiB, 300 MiB in all",
        "journals: coordinator's from 1 on, 3.0 MiB; PoPs' reach back 10 entries at least",
    ]
    assert usage_lines({"fra": "down"}) == []
    assert furthest({"fra": "down"}) is None
    assert furthest({"fra": WHOLE, "nrt": WHOLE | {"position": "1-101"}})["position"] == "1-101"


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (150 * 1024, "150 KiB"),
        (5 * MIB, "5.0 MiB"),
        (3 << 40, "3.0 TiB"),
        (5 << 50, "5120 TiB"),
    ],
)
def test_bytes_are_told_with_the_digits_that_count(size, told):
    assert bytes_in_words(size) == told
