"""Where `kvnet why-stale` finds a version held up, by what the replicas tell."""

from __future__ import annotations

import pytest

from kvnet.cli.held_up import Sight, Spread
from kvnet.core.versions import Version
from kvnet.topology.wan_state import Cut, WanState

OLD, NEW = Version(1, 40), Version(1, 42)
UNDISTURBED = WanState()


def status(parent, *path, **more):
    return {"parent": parent, "path": ["coordinator", *path], "staleness_ms": 300.0, "ready": True, **more}


def has(name, parent="coordinator", *path):
    return Sight(name, None, NEW, NEW, status(parent, *path))


def lacks(name, parent="coordinator", *path, **more):
    return Sight(name, None, OLD, OLD, status(parent, *path, **more))


def down(name):
    return Sight(name, "down", None, None, "down")


ROOT = Sight("coordinator", None, NEW, NEW, {"parent": None, "path": []})


def spread(*pops, root=ROOT, wan=UNDISTURBED):
    return Spread([root, *pops], wan)


def cut(a, *others):
    return WanState(cuts=(Cut((a,), others),))


def test_all_have_it():
    told = spread(has("iad"), has("fra"))
    assert told.conclusion() == "all 2 PoPs have 1-42"
    assert told.causes == {}


def test_replica_that_is_past_the_version_has_it_whatever_the_key_is_there_now():
    newer = Sight("fra", None, Version(1, 50), Version(1, 50), status("coordinator"))
    root = Sight("coordinator", None, NEW, Version(1, 45), {"parent": None, "path": []})
    told = spread(Sight("iad", None, NEW, NEW, status("coordinator")), root=root)
    assert told.causes == {}
    assert (told.lag(told.pops[0]), told.head) == (3, Version(1, 45))
    assert Spread([root, newer], UNDISTURBED).version == Version(1, 50), "whoever knows most is believed"


def test_the_first_that_lacks_it_is_named_with_all_behind_it():
    pops = [has("iad"), lacks("nrt", "iad", "iad"), lacks("kix", "nrt", "iad", "nrt"), lacks("icn", "nrt", "nrt")]
    told = spread(*pops, wan=cut("nrt", "iad"))
    assert {cause.at for cause in told.causes.values()} == {"nrt"}
    assert told.conclusion() == "1 of 4 PoPs have 1-42; 2 PoPs are behind nrt, which is cut off from iad"


def test_silent_and_isolated_pops_are_told_apart():
    others = ("coordinator", "iad", "fra")
    told = spread(has("iad"), down("fra"), lacks("nrt", "iad"), wan=cut("nrt", *others))
    assert told.conclusion() == ("1 of 3 PoPs have 1-42; fra is down; nrt is cut off from all other nodes")


def test_many_for_one_reason_are_one_sentence():
    waiting = {"waits_for_chunks": True, "large_values": {"chunks_needed_now": 3}}
    told = spread(*(lacks(name, **waiting) for name in "abcdefg"))
    reason = "each of a, b, c, d, e and 2 more waits for chunks of a large value"
    assert told.conclusion() == f"0 of 7 PoPs have 1-42; {reason}"
    assert told.causes["a"].in_words() == "a waits for chunks of a large value (3 lacking)"


def test_who_waits_for_chunks_of_a_parent_that_waits_is_behind_it():
    told = spread(lacks("iad", waits_for_chunks=True), lacks("fra", "iad", "iad", waits_for_chunks=True))
    assert {name: cause.at for name, cause in told.causes.items()} == {"iad": "iad", "fra": "iad"}


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"bootstrap": {"all_pages": True}}, "is being made anew: 100 %"),
        ({"damaged": "a record"}, "is damaged, and made anew from the network"),
        ({"driver": {"storage_full": True}}, "has a full disk"),
        ({"ready": False}, "isn't ready yet"),
        ({"late": True}, "hears nothing from the coordinator"),
        ({}, "is about to get it from the coordinator"),
    ],
)
def test_reason_is_what_the_node_says_of_itself(more, why):
    assert spread(lacks("iad", **more)).causes["iad"].why == why


def test_trouble_of_its_own_comes_before_that_of_its_parent():
    told = spread(down("iad"), lacks("fra", "iad", "iad", driver={"storage_full": True}))
    assert told.causes["fra"].at == "fra"


def test_orphan_is_behind_the_parent_that_went_down():
    told = spread(down("iad"), lacks("fra", None, "iad"))
    assert told.causes["fra"].at == "iad"
    assert told.conclusion() == "0 of 2 PoPs have 1-42; fra is behind iad, which is down"


def test_orphan_whose_parent_lives_looks_for_one():
    assert spread(has("iad"), lacks("fra", None, "iad")).causes["fra"].why == "has no parent, and looks for one"
    never = Sight("fra", None, None, Version(0, 0), {"parent": None, "path": []})
    assert spread(never).causes["fra"].why == "has no parent"


def test_without_a_coordinator_the_furthest_pop_is_believed():
    told = spread(has("iad", None), lacks("fra", None), root=down("coordinator"))
    assert told.reference is not None
    assert told.reference.name == "iad"
    assert told.conclusion() == "1 of 2 PoPs have 1-42; fra is behind the coordinator, which is down"


def test_circle_of_parents_has_an_end():
    told = spread(lacks("iad", "fra"), lacks("fra", "iad"))
    assert told.causes["iad"].why == "is in a circle with fra"


def test_deletion_is_a_version_too():
    root = Sight("coordinator", None, None, NEW, {"parent": None, "path": []})
    gone = Sight("iad", None, None, NEW, status("coordinator"))
    never_had = Sight("fra", None, None, OLD, status("coordinator"))
    told = spread(gone, never_had, lacks("nrt"), root=root)
    assert set(told.causes) == {"nrt"}
    assert told.conclusion().startswith("2 of 3 PoPs know that it is deleted, as of 1-42; nrt ")
    assert told.is_anywhere
    assert not spread(gone, never_had, root=root).is_anywhere


def test_pop_that_does_not_tell_of_the_key_has_a_reason():
    mute = Sight("fra", "HTTP 500", None, NEW, status("coordinator"))
    assert spread(mute).causes["fra"].why == "doesn't tell of the key (HTTP 500)"
    assert spread(mute).lag(mute) == 0


def test_more_causes_than_one_reads_are_counted():
    pops = [lacks(f"p{number}", wan) for number, wan in enumerate(["q"] * 8)]
    hosts = [lacks("q", driver={"storage_full": True})]
    others = [Sight(f"s{n}", "x", None, None, f"odd {n}") for n in range(6)]
    told = spread(*pops, *hosts, *others).conclusion()
    assert told.startswith("0 of 15 PoPs have 1-42; 8 PoPs are behind q, which has a full disk; ")
    assert told.endswith("; 2 more causes in the table")
