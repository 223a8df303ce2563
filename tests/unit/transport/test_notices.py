from __future__ import annotations

import logging

from kvnet.transport.notices import KEYS_MAX, Notices


def test_one_line_per_kind_and_peer_and_minute_and_the_rest_are_counted(caplog):
    now = 0.0
    notices = Notices(logging.getLogger("test"), clock=lambda: now)
    said = [notices.say("malformed", "fra", "fra: junk") for _ in range(5)]
    assert said == [True, False, False, False, False]
    assert notices.say("malformed", "nrt", "nrt: junk")
    assert notices.say("refused", "fra", "fra: no")
    now = 61.0
    assert notices.say("malformed", "fra", "fra: junk")
    assert [record.getMessage() for record in caplog.records] == [
        "malformed: fra: junk",
        "malformed: nrt: junk",
        "refused: fra: no",
        "malformed: fra: junk (4 more)",
    ]


def test_inventing_names_costs_no_memory():
    notices = Notices(logging.getLogger("test"))
    for i in range(3 * KEYS_MAX):
        notices.say("unknown", f"peer {i}", "junk")
    assert len(notices._said) <= KEYS_MAX
