from __future__ import annotations

from kvnet.core.events import ChunksLacking
from kvnet.simulator.journal import Kept
from kvnet.simulator.story import _knew
from tests.support.worlds import make_world, settle, start

NAME = "iad"


def test_a_story_tells_what_a_node_waits_for_beside_frames() -> None:
    world = make_world(6, 1)
    start(world)
    node = world.nodes[NAME]
    assert not {"pages", "chunks"} & dict(_knew(node)).keys()
    node.feed(ChunksLacking((bytes(32),)))
    assert dict(_knew(node))["chunks"] == "1 needed now, 1 wanted"


def test_a_story_tells_how_far_a_replica_in_the_making_is() -> None:
    world = make_world(6, 1)
    for each in world.nodes.values():
        each.disk.journal.limit(Kept(2000))
    start(world)
    world.crash(NAME)
    for _ in range(30):  # more than is kept in memory
        world.write(60_000)
        world.run_until(world.now + 50)
    world.wipe(NAME)
    node = world.nodes[NAME]
    world.start(NAME)
    assert world.run_while(lambda: "pages" not in dict(_knew(node)), 5000)
    assert " of " in dict(_knew(node))["pages"]
    settle(world)
    assert "pages" not in dict(_knew(node))
