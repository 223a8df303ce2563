"""Each checker sees the bug that it is there to find: a test plants it, and the failure names property, node."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from msgspec.structs import replace

from kvnet.core.bootstrap import Bootstrap
from kvnet.core.entries import Delete, Put
from kvnet.core.events import Apply, ReceiptsWanted
from kvnet.core.frames import Frame, read_frame
from kvnet.core.lateness import Lateness
from kvnet.core.messages import Ack, Frames
from kvnet.core.overlay import Overlay
from kvnet.core.receipts import Receipts
from kvnet.core.replica import Replica
from kvnet.core.root import Root
from kvnet.core.state import Neighbour
from kvnet.core.stream import Stream
from kvnet.core.tree import Tree
from kvnet.core.versions import Version
from kvnet.limits import profile
from kvnet.simulator import safety
from kvnet.simulator.breaker import Breaker
from kvnet.simulator.checking import Checker
from kvnet.simulator.clients import Clients, NothingAcknowledgedIsLost
from kvnet.simulator.desk import CrashPoint, Desk
from kvnet.simulator.disk import SimulatedDisk
from kvnet.simulator.disturbances import Disturbances
from kvnet.simulator.faults import AnyFault, Crash, CrashInCommit, FlippedBit, FullDisk, Loss, Partition, Pause
from kvnet.simulator.liveness import AckedInTime, Deliveries, NoStorm, ParentLoops
from kvnet.simulator.records import Records
from kvnet.simulator.run import Run
from kvnet.simulator.safety import (
    AcksAreTrue,
    DurableBeforeSent,
    EpochsDiffer,
    EverythingIsBounded,
    FoldOfAPrefix,
    NeverBack,
    NoResurrection,
    OneHistory,
    StalenessIsABound,
)
from kvnet.simulator.swarm import Mode
from kvnet.simulator.watched import Looker
from kvnet.simulator.world import ROOT, World
from kvnet.timers import Timers
from kvnet.topology.load import load
from tests.support.worlds import caught, edges_of, make_world, settle, start, write_for

PARTED_MS = 12_000


def a_world(pops: int = 10) -> World:
    return make_world(pops, 1)


def all_edges(world: World) -> list[str]:
    """Return the edges, also before they run."""
    return [name for name in world.nodes if name != ROOT]


def a_relay(world: World) -> str:
    """The edge with most children."""
    return max(edges_of(world), key=lambda name: len(world.nodes[name].core.state.children))


def write_keys(world: World, duration_ms: float, *, keys: int = 3) -> Clients:
    """Clients write, and delete, a few keys again and again."""
    clients = Clients(
        world, random.Random(1), rate=40, keys=keys, value_bytes_max=100, until_ms=world.now + duration_ms
    )
    world.run_until(world.now + duration_ms)
    return clients


def want_receipts(world: World, duration_ms: float) -> None:
    """Have the coordinator hear what members have, from now on."""
    root = world.root
    root.feed(ReceiptsWanted(root.clock_ms() + duration_ms))


# -- safety --------------------------------------------------------------------------------------------------


def test_a_core_that_forwards_a_changed_frame_is_caught_at_its_child(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world()
    OneHistory(world)
    start(world)
    write_for(world, 500)
    settle(world)
    relay = a_relay(world)
    children = set(world.nodes[relay].core.state.children)
    assert children
    take = Stream.take

    def change(stream: Stream, peer: str, message: Frames) -> bool:
        if peer == relay:
            message = Frames(tuple(data[:-40] + b"?" + data[-39:] for data in message.frames))  # in the value
        return take(stream, peer, message)

    monkeypatch.setattr(Stream, "take", change)
    failure = caught(lambda: write_for(world, 2000), OneHistory)
    assert failure.node in children
    assert 0 < failure.seq <= world.root.disk.position.seq


def test_a_desk_that_does_not_wait_for_its_fsync_is_caught_at_the_coordinator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = a_world()
    DurableBeforeSent(world)
    start(world)
    make_durable = Desk._make_durable
    monkeypatch.setattr(
        Desk,
        "_make_durable",
        lambda desk, cut: world.at(world.now + 5, lambda _: make_durable(desk, cut), None),
    )
    failure = caught(lambda: write_for(world, 2000), DurableBeforeSent)
    assert failure.node == ROOT


def test_a_disk_that_loses_what_it_had_synced_is_caught_as_its_node_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = a_world()
    NeverBack(world)
    start(world)
    write_for(world, 1000)

    def lose(disk: SimulatedDisk, rng: random.Random) -> int:
        disk.journal.truncate(len(disk.journal.frames) - 1)
        disk._content = Records()
        disk._fold(disk.journal.frames)
        return 0

    monkeypatch.setattr(SimulatedDisk, "lose_power", lose)
    world.crash(ROOT, power=True)
    failure = caught(lambda: world.start(ROOT), NeverBack)
    assert failure.node == ROOT


def apply_twice(monkeypatch: pytest.MonkeyPatch, victim: str) -> None:
    """Have one node hand every frame to its disk a second time, and its disk not mind."""
    take, apply = Stream.take, SimulatedDisk.apply

    def twice(stream: Stream, peer: str, message: Frames) -> bool:
        moved = take(stream, peer, message)
        if moved and stream.state.config.name == victim:
            stream.state.out.append(Apply(tuple(read_frame(data) for data in message.frames)))
        return moved

    def apply_new(disk: SimulatedDisk, frames: Sequence[Frame], requests: Sequence = ()) -> None:
        new: dict[int, Frame] = {frame.last_seq: frame for frame in frames if frame.last_seq > disk.position.seq}
        apply(disk, list(new.values()), requests)

    monkeypatch.setattr(Stream, "take", twice)
    monkeypatch.setattr(SimulatedDisk, "apply", apply_new)


@pytest.mark.parametrize("checker", [NeverBack, NoResurrection])
def test_a_node_that_applies_an_old_frame_is_caught(
    monkeypatch: pytest.MonkeyPatch, checker: type[Checker]
) -> None:
    world = a_world()
    checker(world)
    start(world)
    victim = edges_of(world)[3]
    apply_twice(monkeypatch, victim)
    failure = caught(lambda: write_for(world, 2000), checker)
    assert failure.node == victim


def test_a_coordinator_that_opens_an_epoch_it_should_know_of_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world()
    EpochsDiffer(world, Disturbances(world))
    start(world)
    write_for(world, 200)
    world.crash(ROOT)
    behind = world.root.disk.copied()
    world.start(ROOT)
    assert world.run_while(lambda: not world.is_open, 5000)
    write_for(world, 200)
    world.crash(ROOT)
    world.replace_disk(ROOT, behind)
    monkeypatch.setattr(Root, "start", Root._open)  # it asks nobody where they stand
    failure = caught(lambda: world.start(ROOT), EpochsDiffer)
    assert failure.node == ROOT


def forget_deletes(monkeypatch: pytest.MonkeyPatch, victim: SimulatedDisk) -> None:
    """Have this disk go on to show what was deleted, and count as if it didn't."""
    take = Records.take

    def forgetful(records: Records, entry: object, version: object, **options: bool) -> None:
        shown = victim.get(entry.namespace, entry.key) if isinstance(entry, Delete) else None
        take(records, entry, version, **options)
        if shown is not None and victim._content is records:
            victim.records[entry.namespace][entry.key] = shown._replace(hash=bytes(16))

    monkeypatch.setattr(Records, "take", forgetful)


@pytest.mark.parametrize("checker", [FoldOfAPrefix, NoResurrection])
def test_a_disk_that_forgets_a_delete_is_caught(monkeypatch: pytest.MonkeyPatch, checker: type[Checker]) -> None:
    world = a_world()
    checker(world)
    Looker(world)
    start(world)
    victim = edges_of(world)[3]
    forget_deletes(monkeypatch, world.nodes[victim].disk)
    failure = caught(lambda: write_keys(world, 5000, keys=50), checker)
    assert failure.node == victim


def test_a_replica_whose_digest_is_not_that_of_its_records_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world()
    FoldOfAPrefix(world)
    start(world)
    victim = edges_of(world)[3]
    world.nodes[victim].disk._content.digest += 1
    monkeypatch.setattr(SimulatedDisk, "_fold", unchecked_fold)
    write_for(world, 500)
    settle(world)
    failure = caught(world.look, FoldOfAPrefix)
    assert failure.node == victim
    assert "digest" in failure.what


def unchecked_fold(disk: SimulatedDisk, frames: list[Frame]) -> None:
    """What a disk does that compares no digests."""
    for frame in frames:
        for seq, entry in enumerate(frame.entries(), frame.first_seq):
            disk._content.take(entry, Version(frame.epoch, seq))


def test_a_staleness_that_counts_from_a_beacon_s_arrival_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world()
    StalenessIsABound(world, Disturbances(world))
    Looker(world)
    start(world)
    monkeypatch.setattr(safety, "staleness_ms", lambda now_ms, beacon, **_: max(0.0, now_ms - beacon.at_ms))
    failure = caught(lambda: write_for(world, 10_000, every_ms=5), StalenessIsABound)
    assert failure.node in edges_of(world)


@pytest.mark.parametrize("planted", [True, False])
def test_a_beacon_that_does_not_tell_how_long_it_was_held_is_caught_behind_whoever_held_it(
    monkeypatch: pytest.MonkeyPatch, *, planted: bool
) -> None:
    """The wall clocks made up for it, and where they were wrong nothing was checked."""
    world = a_world()
    disturbances = Disturbances(world)
    checker = StalenessIsABound(world, disturbances)
    start(world)
    holder = all_edges(world)[3]
    follower = next(peer for peer in world.nodes[holder].links if peer != ROOT)
    world.crash(follower)
    world.root.set_clock(step_ms=3_600_000)  # whoever goes by it thinks that beacons come from the future
    disturbances.clock_error_ms = 3_600_000
    write_for(world, 3000)
    world.look()
    world.wan.isolate([holder, follower])
    world.wan_changed()
    write_for(world, 500)
    own_beacon = Stream._own_beacon
    if planted:
        monkeypatch.setattr(Stream, "_own_beacon", lambda stream: own_beacon(stream)._replace(held_ms=0.0))
    world.start(follower)
    write_for(world, 4000)
    assert follower in checker._beacons
    if not planted:
        assert world.nodes[follower].core.state.beacon_held_ms > 100
        world.look()
        return
    failure = caught(world.look, StalenessIsABound)
    assert failure.node == follower
    assert checker.looked > 9


def test_a_core_that_keeps_every_frame_in_memory_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world(8)
    EverythingIsBounded(world)
    start(world)

    def remember(stream: Stream, frames: list) -> None:
        stream._recent.extend(frames)
        stream._recent_first.extend(frame.first_seq for frame in frames)
        stream._recent_bytes += sum(len(frame.data) for frame in frames)

    monkeypatch.setattr(Stream, "_remember", remember)
    for _ in range(100):
        world.write(60_000)
    failure = caught(world.look, EverythingIsBounded)
    assert failure.node == ROOT
    assert "recent_bytes" in failure.what


def test_a_core_that_keeps_asks_for_ever_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world(8)
    EverythingIsBounded(world)
    start(world)
    on_ask = Lateness.on_ask

    def keep(lateness: Lateness, peer: str, ask: object) -> bool:
        answer = on_ask(lateness, peer, ask)
        lateness._kept_asks[f"{peer} {len(lateness._kept_asks)}"] = ask._replace(seq=1 << 40)
        return answer

    monkeypatch.setattr(Lateness, "on_ask", keep)
    world.crash(ROOT)
    world.run_until(world.now + 10_000)
    failure = caught(world.look, EverythingIsBounded)
    assert "kept_asks" in failure.what


def test_a_core_that_fills_a_link_that_takes_no_more_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world(8)
    EverythingIsBounded(world)
    start(world)
    child = next(iter(world.root.core.state.children))
    world.wan.cut(ROOT, child)
    world.wan_changed()
    monkeypatch.setattr(type(world.root), "unsent_bytes", lambda node, peer: 0)
    for _ in range(10):
        world.write(60_000)
    failure = caught(world.look, EverythingIsBounded)
    assert failure.node == ROOT
    assert f"unsent for {child}" in failure.what


# -- liveness ------------------------------------------------------------------------------------------------


def test_a_tree_that_never_leaves_a_loop_is_caught_in_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = Timers(coordinator_children_max=2, children_max=2)
    world = World(load("world-2018").with_pops(16), seed=1, timers=narrow)
    loops = ParentLoops(world)
    start(world)
    write_for(world, 3000)
    assert loops.longest_ms < 2000
    parents = {name: list(world.nodes[name].core.state.parents) for name in edges_of(world)}
    loop = next(
        (above, middle, below)
        for below, (middle, *others) in parents.items()
        for above in parents.get(middle, ())
        if not others and above in world.nodes[below].links and parents.get(above) and parents[middle] == [above]
    )
    first, _, last = loop

    def consider(tree: Tree, neighbour: Neighbour) -> None:
        """Take one's grandchild as parent, as the rule forbids."""
        state = tree.state
        if state.config.name == first and neighbour.name == last and last not in state.parents:
            for parent in list(state.parents):
                tree.leave(parent)
            tree.add_parent(last, late=True)

    monkeypatch.setattr(Tree, "consider", consider)
    monkeypatch.setattr(Lateness, "become_late", lambda *_: None)
    failure = caught(lambda: write_for(world, 15_000), ParentLoops)
    assert failure.node in loop
    assert loops.longest_ms > 2000


def test_a_stream_that_drops_every_50th_frame_for_one_node_is_caught_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = a_world()
    victim = all_edges(world)[3]
    deliveries = Deliveries(world, Disturbances(world))
    start(world)
    run_after = Stream._run_after

    def drop(stream: Stream, child: object) -> object:
        run = run_after(stream, child)
        if run is None or child.name != victim:
            return run
        kept = tuple(data for data in run.message.frames if read_frame(data).last_seq % 50)
        return run._replace(message=Frames(kept))

    monkeypatch.setattr(Stream, "_run_after", drop)
    failure = caught(lambda: write_for(world, 20_000), Deliveries)
    assert failure.node == victim
    assert failure.seq == 50
    assert "was connected" in failure.what
    assert deliveries.ledger.in_time > 0


def test_a_node_that_stays_on_an_abandoned_history_lacks_the_writes_of_the_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It had the new writes by their seqs, since it was further on: only another chain tells."""
    world = a_world()
    disturbances = Disturbances(world)
    start(world)
    behind = world.root.disk.copied()
    write_for(world, 2000)
    settle(world)
    victim = edges_of(world)[3]
    start_over = Stream.start_over
    monkeypatch.setattr(
        Stream, "start_over", lambda stream: stream.state.config.name == victim or start_over(stream)
    )
    world.crash(ROOT)
    world.replace_disk(ROOT, behind)
    world.start(ROOT, accept_loss=True)
    monkeypatch.setattr(Root, "_decide", Root._open)
    assert world.run_while(lambda: not world.is_open, 5000)
    deliveries = Deliveries(world, disturbances)
    world.write()
    seq = world.root.disk.position.seq
    assert seq < world.nodes[victim].disk.position.seq
    failure = caught(lambda: world.run_until(world.now + 30_000), Deliveries)
    assert failure.node == victim
    assert failure.seq == seq
    assert deliveries.ledger.in_time == 9


def test_an_ack_of_what_readers_do_not_see_yet_is_caught_at_its_member(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told when the frame comes, not when it is applied: a disk that is full shows the difference."""
    world = a_world()
    AcksAreTrue(world)
    start(world)
    settle(world)
    victim = edges_of(world)[3]
    on_frames = Replica._on_frames

    def tell_early(core: Replica, peer: str, message: Frames) -> None:
        on_frames(core, peer, message)
        receipts = core.receipts
        if core.name == victim and receipts._life is not None:
            receipts._note(Ack(victim, receipts._life, core.state.tip.version))

    monkeypatch.setattr(Replica, "_on_frames", tell_early)
    want_receipts(world, 60_000)
    write_for(world, 500)
    world.nodes[victim].disk.is_full = True
    failure = caught(lambda: write_for(world, 2000), AcksAreTrue)
    assert failure.node == victim
    assert failure.seq > world.nodes[victim].disk.position.seq


def test_a_node_that_keeps_its_acks_to_itself_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world()
    acked = AckedInTime(world, Disturbances(world))
    start(world)
    settle(world)
    victim = min(edges_of(world), key=lambda name: len(world.nodes[name].core.state.children))
    tell = Receipts.tell

    def keep_silent(receipts: Receipts) -> None:
        if receipts.state.config.name != victim:
            tell(receipts)

    want_receipts(world, 120_000)
    write_for(world, 2000)
    world.run_until(world.now + acked.patience_ms)
    judged = acked.in_time
    assert judged >= 9 * 10
    monkeypatch.setattr(Receipts, "tell", keep_silent)
    failure = caught(lambda: write_for(world, 2 * acked.patience_ms), AckedInTime)
    assert failure.node == victim


def test_a_node_without_links_lacks_writes_for_no_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """That a node has no path of links once counted as an explanation: nothing could ever be unexplained."""
    world = a_world()
    victim = all_edges(world)[3]
    deliveries = Deliveries(world, Disturbances(world))
    start(world)
    dial = World.dial
    monkeypatch.setattr(World, "dial", lambda w, node, peer: victim in {node.name, peer} or dial(w, node, peer))
    world.run_until(world.now + 15_000)  # a node that has just started isn't missed yet
    for link in list(world.nodes[victim].links.values()):
        world.close(link)
    failure = caught(lambda: write_for(world, 20_000), Deliveries)
    assert failure.node == victim
    assert failure.what.startswith(f"nothing explains that {victim} lacks ")
    assert not deliveries.ledger.excused


def ledger_of(world: World, *faults: AnyFault) -> tuple[Deliveries, Disturbances]:
    """Write for 13 s while these faults are at work; return who judged what became of it."""
    disturbances = Disturbances(world)
    start(world)
    deliveries = Deliveries(world, disturbances)
    Breaker(world, disturbances, faults, rng=random.Random(1))
    write_for(world, 2000)
    world.run_until(world.now + 11_000)
    return deliveries, disturbances


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (lambda name: Crash(at_ms=0, lasts_ms=60_000, nodes=(name,)), "down"),
        (lambda name: Crash(at_ms=0, lasts_ms=60_000, nodes=(name,), silent=True, power=True), "down"),
        (lambda name: Partition(at_ms=0, lasts_ms=60_000, senders=(name,)), "cut off"),
        (lambda name: Pause(at_ms=0, lasts_ms=60_000, nodes=(name,)), "stands still"),
        (lambda name: FullDisk(at_ms=0, lasts_ms=60_000, nodes=(name,)), "its disk is full"),
        (lambda name: Crash(at_ms=0, lasts_ms=11_900, nodes=(name,), wiped=True), "whole again"),
    ],
)
def test_the_ledger_tells_why_a_write_is_missing(fault: Callable[[str], AnyFault], cause: str) -> None:
    world = a_world()
    victim = all_edges(world)[3]
    deliveries, _ = ledger_of(world, fault(victim))
    writes = len(world.durable_at) - 1
    assert set(deliveries.ledger.excused) <= {cause, "down", "connected for less than the bound"}
    assert 0 < deliveries.ledger.excused[cause] <= deliveries.ledger.excused.total() <= writes
    assert deliveries.ledger.in_time > 0
    assert deliveries.ledger.due == deliveries.ledger.in_time + deliveries.ledger.excused.total()


def stop_taking(monkeypatch: pytest.MonkeyPatch, victim: str) -> None:
    """Have a node's core drop all frames after the network has formed, and take no pages instead."""
    take, begin = Stream.take, Bootstrap.begin

    def drop(stream: Stream, peer: str, message: Frames) -> bool:
        is_broken = stream.state.config.name == victim and stream.state.now > 3500
        return False if is_broken else take(stream, peer, message)

    def stay(bootstrap: Bootstrap) -> None:
        if bootstrap.state.config.name != victim:
            begin(bootstrap)

    monkeypatch.setattr(Stream, "take", drop)
    monkeypatch.setattr(Bootstrap, "begin", stay)


def test_a_node_is_missed_again_ten_seconds_after_its_fault_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world()
    victim = all_edges(world)[3]
    fault = Pause(at_ms=0, lasts_ms=11_000, nodes=(victim,))
    stop_taking(monkeypatch, victim)
    deliveries, _ = ledger_of(world, fault)
    assert deliveries.ledger.excused["stands still"] > 0
    failure = caught(lambda: world.run_until(world.now + 20_000), Deliveries)
    assert failure.node == victim


def test_adverts_that_answer_adverts_are_a_storm(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world()
    storm = NoStorm(world, messages_per_s_max=150)
    start(world)
    world.run_until(world.now + 5000)
    assert 0 < storm.most_per_s < 150
    send = Overlay.send_advert
    monkeypatch.setattr(Overlay, "send_advert", lambda self, to, *, wants_echo: send(self, to, wants_echo=True))
    caught(lambda: world.run_until(world.now + 10_000), NoStorm)


# -- clients and convergence ---------------------------------------------------------------------------------


def checked_clients(world: World, *faults: AnyFault, keys: int = 3) -> NothingAcknowledgedIsLost:
    """Clients write for 5 s while these faults are at work; then everything settles."""
    disturbances = Disturbances(world)
    start(world)
    clients = Clients(world, random.Random(1), rate=40, keys=keys, value_bytes_max=100, until_ms=world.now + 5000)
    checker = NothingAcknowledgedIsLost(world, disturbances, clients)
    Breaker(world, disturbances, faults, rng=random.Random(1))
    world.run_until(world.now + 7000)
    settle(world)
    assert clients.told["acknowledged"] > 50
    return checker


def test_a_desk_that_answers_before_the_fsync_loses_what_it_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world()
    submit = Desk.submit

    def hasty(desk: Desk, operations: object, request_id: bytes, answer: Callable[[bool], None]) -> object:
        ticket = submit(desk, operations, None, lambda _: None)
        world.at(world.now, answer, True)
        return ticket

    monkeypatch.setattr(Desk, "submit", hasty)
    checker = checked_clients(world, CrashInCommit(at_ms=1000, lasts_ms=500, point=CrashPoint.APPEND), keys=50)
    failure = caught(lambda: checker.finish(world.live()), NothingAcknowledgedIsLost)
    assert failure.what.endswith("was acknowledged and is gone")


def test_a_replica_on_which_the_first_writer_wins_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    world = a_world()
    victim = all_edges(world)[3]
    take = Records.take

    def keep_first(records: Records, entry: object, version: object, **options: bool) -> None:
        disk = world.nodes[victim].disk
        shown = disk.get(entry.namespace, entry.key) if isinstance(entry, Put) else None
        take(records, entry, version, **options)
        if shown is not None and disk._content is records:
            record = disk.records[entry.namespace][entry.key]
            disk.records[entry.namespace][entry.key] = record._replace(value=shown.value)

    monkeypatch.setattr(Records, "take", keep_first)
    checker = checked_clients(world, keys=50)
    checker.finish([world.root])
    failure = caught(lambda: checker.finish([world.nodes[victim]]), NothingAcknowledgedIsLost)
    assert failure.node == victim


def a_run(*faults: AnyFault, mode: Mode = Mode.SAFETY) -> Run:
    """A run of 8 PoPs in which nothing breaks but this."""
    run = Run(load("world-2018").with_pops(8), 1, mode)
    run.drawn = replace(run.drawn, faults=faults, broken=(), write_rate=20.0, keys=300)
    return run


def test_a_node_that_never_catches_up_after_the_heal_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    victim = "fra"
    stop_taking(monkeypatch, victim)
    outcome = a_run(Crash(at_ms=1000, lasts_ms=60_000, nodes=(victim,))).run()
    assert outcome.failed.startswith("converges: 1 of 8 edges are not where the coordinator is")
    assert outcome.node == victim


def test_a_coordinator_that_never_writes_again_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    decide = Root._decide
    monkeypatch.setattr(Root, "_decide", lambda root: root.state.now > 3000 or decide(root))
    outcome = a_run(Crash(at_ms=1000, lasts_ms=5000, nodes=(ROOT,))).run()
    assert outcome.failed == "converges: the coordinator doesn't write: no reason"
    assert outcome.node == ROOT


def test_a_coordinator_that_needs_accept_loss_for_nothing_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator did what the refusal said, and the run went on as if nothing had been wrong."""
    decide = Root._decide

    def refuse_unless_told(root: Root) -> None:
        if root.state.config.fresh or root.state.config.accept_loss:
            decide(root)
        else:
            root._refuse("the network is ahead; start with --accept-loss")

    monkeypatch.setattr(Root, "_decide", refuse_unless_told)
    outcome = a_run(Crash(at_ms=1000, lasts_ms=5000, nodes=(ROOT,))).run()
    assert outcome.failed.startswith("needs no help: the coordinator has lost nothing")
    assert outcome.node == ROOT


def test_a_broken_invariant_of_the_core_ends_a_run_at_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    leave = Tree.add_parent

    def serve_myself(tree: Tree, peer: str, *, late: bool) -> None:
        leave(tree, peer, late=late)
        if tree.state.config.name == "fra":
            tree.state.path = ("coordinator", "fra")

    monkeypatch.setattr(Tree, "add_parent", serve_myself)
    outcome = a_run().run()
    assert outcome.failed == "invariant: a path through myself"
    assert outcome.node == "fra"


# -- nothing planted -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(Mode))
def test_a_run_in_which_nothing_is_planted_passes_and_was_looked_at(mode: Mode) -> None:
    run = a_run(
        Crash(at_ms=2000, lasts_ms=12_000, nodes=("fra",)),
        Crash(at_ms=5000, lasts_ms=2000, nodes=(ROOT,), power=True),
        Loss(at_ms=1000, lasts_ms=15_000, loss=0.2),
        mode=mode,
    )
    outcome = run.run()
    assert outcome.failed == ""
    assert outcome.faults == {"crash": 2, "loss": 1}
    assert outcome.acknowledged > 100
    assert outcome.ledger["in time"] > 1000
    assert outcome.ledger["down"] > 10
    assert outcome.converged_ms is not None
    assert 0 < outcome.storm_per_s < 150
    heard = run.world.heard
    checkers = {
        type(listener.__self__): listener.__self__ for listeners in vars(heard).values() for listener in listeners
    }
    assert checkers.keys() >= {
        OneHistory,
        DurableBeforeSent,
        NeverBack,
        EpochsDiffer,
        FoldOfAPrefix,
        NoResurrection,
        StalenessIsABound,
        EverythingIsBounded,
        Deliveries,
        AcksAreTrue,
        AckedInTime,
    }
    assert checkers[FoldOfAPrefix].looked > 30
    assert checkers[StalenessIsABound].looked > 30
    assert checkers[EverythingIsBounded].looked > 5
    frames = len(run.world.history.frames)
    assert len(checkers[DurableBeforeSent]._durable) == len(checkers[EpochsDiffer]._frames) == frames > 100
    assert checkers[NeverBack]._at.keys() == checkers[NoResurrection]._seen.keys() | {ROOT} == {*run.world.nodes}


def test_a_large_value_that_is_shown_without_its_chunks_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    victim = "fra"
    look = SimulatedDisk._look_for_chunks

    def overlook(disk: SimulatedDisk, frame: Frame, applicable: int = 0) -> None:
        if disk is not run.world.nodes[victim].disk:
            look(disk, frame, applicable)

    monkeypatch.setattr(SimulatedDisk, "_look_for_chunks", overlook)
    run = a_run(Crash(at_ms=1000, lasts_ms=8000, nodes=(victim,)))
    run.drawn = replace(run.drawn, large_share=0.1)
    run.world.limits = profile("workers-kv")
    outcome = run.run()
    assert outcome.failed.startswith(f"whole values: {victim} shows a large value and lacks")


def test_a_replica_that_finds_a_flipped_bit_is_made_anew_and_gives_no_page_before() -> None:
    victim = "fra"
    run = a_run(FlippedBit(at_ms=1000, lasts_ms=3000, nodes=(victim,)), mode=Mode.LIVENESS)
    outcome = run.run()
    assert not outcome.failed
    assert any(what == "damaged" for _, what, _ in run.world.nodes[victim].reports)
    assert not run.world.nodes[victim].disk.is_damaged
