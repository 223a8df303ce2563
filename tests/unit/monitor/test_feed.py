import pytest

from kvnet.errors import ProtocolError

MALFORMED = [
    [],
    ["hello"],
    ["hello", "fra", b"1", 5.0, {}],
    ["stamps", [], {}],
    ["stamps", [[1, 2]], {}],
    ["stamps", [[1, 2, float("nan")]], {}],
    ["stamps", [[1, "2", 3.0]], {}],
    ["stamps", [[1, 2, 3.0]]],
    ["idle", None, 4, {}],
    ["commits", [[1, 2, 1, 3.0, 100, 1]], {}],
    ["commits", [[1, 1, 2, 3.0, 100]], {}],
    "stamps",
]


@pytest.mark.parametrize("message", MALFORMED)
def test_what_is_not_of_the_feed_is_refused_and_changes_nothing(story, message):
    before = story.report()
    with pytest.raises(ProtocolError):
        story.edge("fra", *message)
    with pytest.raises(ProtocolError):
        story.coordinator(*message)
    assert story.report() == before


def test_a_bad_stamp_takes_the_good_ones_of_its_message_with_it(story):
    story.all_up()
    story.commit(1000)
    with pytest.raises(ProtocolError):
        story.edge("fra", "stamps", [[1, 1, 1100.0], [1]], {})
    assert story.report()["per_pop"]["fra"]["position"] == "0-0"


def test_status_names_the_feeds_that_are_silent(story):
    story.hello("fra")
    story.hello("nrt")
    story.edge("nrt", "lost", "closed")
    assert story.monitor.status()["silent"] == ["nrt", "gru"]
    assert story.monitor.status()["feeds_open"] == 1
