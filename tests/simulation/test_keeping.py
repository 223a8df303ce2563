"""What is kept and for how long: expiry, chunks, journals, pages; and that a planted bug in each is caught."""

from __future__ import annotations

from collections.abc import Collection
from random import Random

import pytest
from msgspec.structs import replace

from kvnet.core.freshness import ReplicaClock
from kvnet.core.manifest import Manifest
from kvnet.core.operations import PutLargeValue, PutValue
from kvnet.limits import profile
from kvnet.simulator import records, successor
from kvnet.simulator.chunk_shelf import ChunkShelf
from kvnet.simulator.clients import Clients
from kvnet.simulator.desk import NAMESPACE, Desk
from kvnet.simulator.disk import Expiring, SimulatedDisk
from kvnet.simulator.expiry import BRIEF, REMOVED_MS, ExpiredIsGone
from kvnet.simulator.faults import Alter, AnyFault, Clock, Crash, LyingDisk, Partition
from kvnet.simulator.journal import Kept
from kvnet.simulator.node import SimulatedNode
from kvnet.simulator.run import Run
from kvnet.simulator.safety import FoldOfAPrefix
from kvnet.simulator.successor import SimulatedSuccessor
from kvnet.simulator.swarm import Mode
from kvnet.simulator.world import ROOT, World
from kvnet.topology.load import load
from tests.support.worlds import caught, edges_of, make_world, settle, start

VICTIM = "fra"


def written(*ttls_s: int) -> World:
    """A world that runs, with a record for each of these times to live."""
    world = make_world(8, 1)
    world.expiry = ExpiredIsGone(world)
    start(world)
    write_brief(world, *ttls_s)
    settle(world)
    return world


def write_brief(world: World, *ttls_s: int) -> None:
    operations = [PutValue(NAMESPACE, b"%s%d" % (BRIEF, n), b"v", b"", 0, ttl) for n, ttl in enumerate(ttls_s)]
    for operation in operations:
        world.desk.submit([operation], None, lambda _: None)
    world.desk.commit()


def run_for(world: World, ms: float) -> None:
    end = world.now + ms
    while world.now < end:
        world.run_until(world.now + 100)
        world.look()


# -- expiry -----------------------------------------------------------------------------------------------------


def test_what_expires_is_hidden_at_every_node_and_then_removed_everywhere() -> None:
    world = written(1, 2, 3600, 0)
    run_for(world, 6000)
    assert world.expiry.removed == 2
    assert world.expiry.hidden_count > 0, "before they were removed"
    settle(world)
    for node in world.nodes.values():
        assert sorted(node.disk.records[NAMESPACE]) == [b"brief-2", b"brief-3"]
    world.expiry.finish()


def test_a_record_that_was_written_again_stays() -> None:
    world = written(2)
    run_for(world, 1000)
    write_brief(world, 0)
    run_for(world, 3000)
    assert world.expiry.removed == 0
    assert not world.root.disk.expiring


def test_removals_wait_while_the_disk_is_full_and_go_on_then() -> None:
    world = written(1, 1)
    world.root.disk.is_full = True
    run_for(world, 4000)
    assert world.expiry.removed == 0
    world.root.disk.is_full = False
    run_for(world, 2000)
    assert world.expiry.removed == 2


def test_no_more_are_removed_in_a_second_than_was_allowed() -> None:
    world = make_world(8, 1)
    world.removals_per_s = 4
    world.expiry = ExpiredIsGone(world)
    start(world)
    write_brief(world, *[1] * 12)
    run_for(world, 3000)
    assert 4 <= world.expiry.removed < 12
    run_for(world, 3000)
    assert world.expiry.removed == 12


def test_a_clock_that_forgets_what_it_had_reached_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off and started again, a node knows the time by what it remembers alone."""
    world = make_world(8, 1)
    world.removals_per_s = 0
    ExpiredIsGone(world)
    start(world)
    write_brief(world, 2)
    settle(world)
    run_for(world, 4000)
    world.crash(VICTIM)
    for name in world.nodes:
        if name != VICTIM:
            world.wan.cut(VICTIM, name)
    world.wan_changed()
    world.start(VICTIM)
    run_for(world, 500)
    world.crash(VICTIM)
    monkeypatch.setattr("kvnet.simulator.node.ReplicaClock", lambda stamp=0, reached_ms=0.0: ReplicaClock(stamp))
    world.start(VICTIM)
    assert world.nodes[VICTIM].disk.expiring
    failure = caught(lambda: run_for(world, 500), ExpiredIsGone)
    assert failure.node == VICTIM
    assert "which had expired" in failure.what


def test_a_coordinator_that_removes_what_has_not_expired_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def due(disk: SimulatedDisk, now_s: float, limit: int) -> list[Expiring]:
        return [Expiring(int(now_s), *place) for place in disk.expiring][:limit]

    world = written(3600)
    monkeypatch.setattr(SimulatedDisk, "due", due)
    writer = world.desk.writer

    def expire(rows: list[Expiring], now_s: float) -> None:
        for row in rows:
            writer._delete(row.namespace, row.key, None)

    monkeypatch.setattr(writer, "expire", expire)
    failure = caught(lambda: run_for(world, 3000), ExpiredIsGone)
    assert failure.node == ROOT
    assert "which expires at" in failure.what


def test_a_coordinator_that_removes_all_at_once_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    due = SimulatedDisk.due
    monkeypatch.setattr(SimulatedDisk, "due", lambda disk, now_s, limit: due(disk, now_s, 1000))
    world = make_world(8, 1)
    world.removals_per_s = 4
    ExpiredIsGone(world)
    start(world)
    write_brief(world, *[1] * 12)
    failure = caught(lambda: run_for(world, 5000), ExpiredIsGone)
    assert "records within a second" in failure.what


def test_a_coordinator_that_removes_nothing_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Desk, "_remove", lambda desk, _: None)
    world = written(1)
    run_for(world, REMOVED_MS + 3000)
    failure = caught(world.expiry.finish, ExpiredIsGone)
    assert failure.node == ROOT
    assert "is still there" in failure.what


def test_a_wall_that_is_set_back_brings_nothing_back() -> None:
    outcome = a_run(
        Clock(at_ms=2000, lasts_ms=10_000, nodes=(ROOT,), step_ms=3_600_000.0),
        Crash(at_ms=14_000, lasts_ms=1000, nodes=(ROOT,)),
        brief_share=0.5,
    ).run()
    assert not outcome.failed
    assert outcome.removed > 0


# -- runs -------------------------------------------------------------------------------------------------------


def a_run(*faults: AnyFault, mode: Mode = Mode.SAFETY, **drawn: object) -> Run:
    """A run of 8 PoPs in which nothing breaks but this, and journals are kept for a second."""
    run = Run(load("world-2018").with_pops(8), 1, mode)
    drawn = {"write_rate": 20.0, "keys": 300, "large_share": 0.0, "brief_share": 0.0, **drawn}
    run.drawn = replace(run.drawn, faults=faults, broken=(), **drawn)
    for node in run.world.nodes.values():
        node.disk._kept = Kept(20_000, 5000.0)
        node.disk.journal.limit(node.disk._kept)
        if run.drawn.large_share:
            node.disk._chunk_life_ms = node.disk.chunks.life_ms = run.drawn.chunk_life_ms
    if run.drawn.large_share:
        run.world.limits = profile("workers-kv")
    return run


AWAY = Crash(at_ms=1000, lasts_ms=15_000, nodes=(VICTIM,))
"""Longer than any journal reaches."""


def test_who_was_away_for_longer_than_any_journal_reaches_is_made_anew() -> None:
    run = a_run(AWAY)
    outcome = run.run()
    assert not outcome.failed
    assert outcome.made_anew == 1
    assert run.world.root.disk.horizon_seq > 0


# -- chunks -----------------------------------------------------------------------------------------------------


def test_chunks_of_replaced_values_are_collected_and_who_missed_them_takes_pages() -> None:
    """Its frames name chunks that are kept nowhere any more."""
    run = a_run(AWAY, large_share=0.2, chunk_life_ms=5000.0, write_rate=10.0)
    for node in run.world.nodes.values():
        node.disk._kept = Kept()
        node.disk.journal.limit(Kept())
    outcome = run.run()
    assert not outcome.failed
    assert outcome.made_anew == 1
    stored = max(len(node.disk.chunks.data) for node in run.world.nodes.values())
    large = [write.operations[0] for write in run.clients.writes if isinstance(write.operations[0], PutLargeValue)]
    offered = {name for operation in large for name in Manifest.unpack(operation.manifest).chunks}
    assert 0 < stored < len(offered)


def test_a_disk_that_collects_chunks_which_a_record_names_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    collect = ChunkShelf.collect

    def forget(shelf: ChunkShelf, now_ms: float, *named: Collection[bytes]) -> None:
        collect(shelf, now_ms, *([()] if shelf is run.world.nodes[VICTIM].disk.chunks else named))

    monkeypatch.setattr(ChunkShelf, "collect", forget)
    run = a_run(large_share=0.05, chunk_life_ms=3000.0)
    outcome = run.run()
    assert outcome.failed.startswith(f"whole values: {VICTIM} has lost ")
    assert outcome.node == VICTIM


# -- pages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forged", [False, True])
def test_altered_pages_are_found_out_and_never_seen(forged: bool) -> None:
    run = a_run(AWAY, Alter(at_ms=0, lasts_ms=19_000, pages=0.5, forged=forged))
    outcome = run.run()
    assert not outcome.failed
    assert outcome.altered > 0
    assert outcome.made_anew == 1
    told = [detail for _, what, detail in run.world.nodes[VICTIM].reports if what in {"bootstrap", "diverged"}]
    assert any(
        "isn't the coordinator's" in each or "is not the" in each if forged else "altered" in each for each in told
    )


def test_a_replica_whose_digest_nobody_compares_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(successor, "Divergence", _Unheard)
    replay = SimulatedSuccessor.replay

    def trust(made: SimulatedSuccessor, until: object, digest: bytes, look: object) -> None:
        while True:
            try:
                return replay(made, until, digest, look)
            except _Unheard:
                frames = made.journal.frames_after(made.replayed.seq, 1)
                if not frames:
                    return None
                made.replayed, made.stamp = frames[0].position, frames[0].stamp

    monkeypatch.setattr(SimulatedSuccessor, "replay", trust)
    outcome = a_run(AWAY, Alter(at_ms=0, lasts_ms=19_000, pages=0.9, forged=True)).run()
    assert outcome.failed.startswith(FoldOfAPrefix.name)
    assert outcome.node == VICTIM


class _Unheard(Exception):
    """A digest that differs, of which nobody hears."""


def test_a_bit_in_a_page_is_found_by_its_checksum_and_a_record_by_its_hash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = make_world(8, 1)
    start(world)
    world.write()
    page = world.root.disk.read_page(b"")
    body = bytearray(page.body)
    body[-1] ^= 1
    with pytest.raises(records.PageDamaged, match="on its way"):
        records.unpack_page(bytes(body))
    found = records.unpack_page(page.body)
    found[0] = found[0][0], found[0][1]._replace(value=b"another")
    with pytest.raises(records.PageDamaged, match="what its hash says"):
        records.unpack_page(records.pack_page(found))


# -- power ------------------------------------------------------------------------------------------------------


def test_a_coordinator_s_journal_that_is_short_costs_nothing_that_was_acknowledged() -> None:
    outcome = a_run(
        Partition(at_ms=1000, lasts_ms=8000, senders=(ROOT,)),
        Crash(at_ms=12_000, lasts_ms=1000, nodes=(ROOT,), power=True),
        brief_share=0.2,
    ).run()
    assert not outcome.failed
    assert not outcome.excuses
    assert outcome.made_anew > 0


def test_a_replica_that_was_made_anew_on_a_lying_disk_may_be_the_one_before_it_again() -> None:
    run = a_run(
        AWAY,
        LyingDisk(at_ms=15_900, lasts_ms=4000, nodes=(VICTIM,)),
        edge_durability="commit",
    )
    run.world.edges_sync = True
    adopted: list[int] = []
    lost: list[int] = []
    lose_power = SimulatedDisk.lose_power

    def count(disk: SimulatedDisk, rng: Random) -> int:
        before = disk.position.seq
        frames = lose_power(disk, rng)
        lost.append(before - disk.position.seq)
        return frames

    class Adopted(ExpiredIsGone):
        def on_adopted(self, node: SimulatedNode) -> None:
            adopted.append(node.disk.position.seq)

    Adopted(run.world)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SimulatedDisk, "lose_power", count)
        outcome = run.run()
    assert not outcome.failed
    assert adopted
    assert max(lost) > 0


def test_clients_write_pairs_that_live_for_a_while_and_pairs_that_come_to_stay() -> None:
    world = make_world(8, 1)
    start(world)
    clients = Clients(
        world, Random(1), rate=40, keys=3, value_bytes_max=100, until_ms=world.now + 5000, brief_share=0.5
    )
    world.run_until(world.now + 5000)
    brief = [w.operations[0] for w in clients.writes if w.operations[0].key.startswith(BRIEF)]
    assert {operation.ttl_s == 0 for operation in brief} == {True, False}
    assert edges_of(world)
