"""Who breaks a world as a schedule says, and makes it whole again.

Each fault begins at its time and, where it lasts, ends by itself or with `Breaker.heal`. Faults may overlap: what
two of them have broken is whole again when both have ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from random import Random
from typing import Any, Final

from msgspec.structs import replace

from kvnet.errors import ConfigError
from kvnet.simulator.disk import SimulatedDisk
from kvnet.simulator.disturbances import LOSS_CONNECTED_MAX, Disturbances
from kvnet.simulator.faults import (
    Alter,
    AnyFault,
    Bandwidth,
    Burst,
    Clock,
    Crash,
    CrashInCommit,
    FlippedBit,
    FullDisk,
    HangUp,
    Loss,
    LyingDisk,
    Names,
    Partition,
    Pause,
    Slow,
    SlowDisk,
    Spike,
    Tamper,
    Twin,
    describe,
)
from kvnet.simulator.tampering import BulkTamperer, Tamperer
from kvnet.simulator.world import ROOT, World
from kvnet.topology.suggest import unknown
from kvnet.topology.wan_state import Cut as CutState
from kvnet.topology.wan_state import PairFault

CPU_MS_DISTURBING: Final = 2.0
"""A process that takes this long over an event may not keep up."""
MBPS_ENOUGH: Final = 10.0
"""What any swarm's load leaves room on."""
BACKLOG_MS_MAX: Final = 1000.0


class Breaker:
    """Breaks a world as a schedule says, and makes it whole again."""

    def __init__(
        self, world: World, disturbances: Disturbances, schedule: Sequence[AnyFault], *, rng: Random
    ) -> None:
        """The schedule begins now.

        Raises:
            ConfigError: it names a node or region that the world doesn't have, or a disk of the future.
        """
        self.world = world
        self.disturbances = disturbances
        self.begun: Counter[str] = Counter()
        """How many of each kind took effect."""
        self._rng = rng
        self._calm = world.wan.state
        self._cuts: dict[int, tuple[CutState, ...]] = {}
        self._pairs: dict[int, PairFault] = {}
        self._losses: dict[int, float] = {}
        self._bandwidths: dict[int, float] = {}
        self._paused: Counter[str] = Counter()
        self._full: Counter[str] = Counter()
        self._lying: Counter[str] = Counter()
        self._fsyncs: dict[int, Callable[[], float]] = {}
        self._tampering: dict[int, Tamperer] = {}
        self.altering: dict[int, BulkTamperer] = {}
        """By the fault's number, also after its end."""
        self._ends: dict[int, Callable[[], None]] = {}
        self._lasting: dict[int, AnyFault] = {}
        self._healed = False
        self._old_disks: dict[tuple[str, float], SimulatedDisk] = {}
        self._number = 0
        began = world.now
        for fault in schedule:
            self._check(fault)
        for fault in sorted(schedule, key=lambda fault: fault.at_ms):
            if isinstance(fault, Crash) and fault.disk_from_ms is not None:
                for name in fault.nodes:
                    world.at(began + fault.disk_from_ms, self._keep_disk, (name, fault.disk_from_ms))
            world.at(began + fault.at_ms, self._begin, fault)

    def _check(self, fault: AnyFault) -> None:
        match fault:
            case Crash(nodes=nodes) | Pause(nodes=nodes) | Slow(nodes=nodes) | FullDisk(nodes=nodes):
                self._know(*nodes)
            case LyingDisk(nodes=nodes) | Clock(nodes=nodes):
                self._know(*nodes)
            case FlippedBit(nodes=nodes):
                self._know(*nodes)
                if ROOT in nodes:
                    raise ConfigError("fault schedule: flipped_bit is for edges, which the network makes anew")
            case Twin(node=node):
                self._know(node)
            case Partition(senders=senders, receivers=receivers):
                try:
                    self.world.wan.members((*senders, *receivers))
                except ConfigError as error:
                    raise ConfigError(f"fault schedule: {error}") from None
            case Spike(sender=a, receiver=b) | Burst(sender=a, receiver=b) | HangUp(a=a, b=b):
                self._know(a, b)
            case _:
                pass
        if isinstance(fault, Crash) and fault.disk_from_ms is not None and fault.disk_from_ms > fault.at_ms:
            raise ConfigError(
                f"fault schedule: disk_from_ms {fault.disk_from_ms:g} is after at_ms {fault.at_ms:g}: "
                "write a time at or before the crash"
            )

    def _know(self, *names: str) -> None:
        for name in names:
            if name not in self.world.nodes:
                raise ConfigError(f"fault schedule: {unknown('node', name, list(self.world.nodes))}")

    def heal(self, *, keep: Collection[str] = ()) -> None:
        """End every fault that lasts; what the schedule still holds does not begin any more.

        Breaker of single nodes that are all in `keep` stay.
        """
        self._healed = True
        for number, fault in list(self._lasting.items()):
            names = set(getattr(fault, "nodes", ()) or getattr(fault, "senders", ()))
            if not names or not names <= set(keep):
                self._end(number)

    # -- beginning and ending --------------------------------------------------------------------------------

    def _begin(self, fault: AnyFault) -> None:
        if self._healed:
            return
        self._number += 1
        number = self._number
        end = self._take_effect(fault, number)
        self.begun[str(fault.__struct_config__.tag)] += 1
        if self.world.trace is not None:
            self.world.trace.on_fault(self.world.now, describe(fault))
        if end is not None:
            self._ends[number] = end
            self._lasting[number] = fault
            self.world.at(self.world.now + fault.lasts_ms, self._end, number)

    def _end(self, number: int) -> None:
        end = self._ends.pop(number, None)
        self._lasting.pop(number, None)
        if end is not None:
            end()

    def _take_effect(self, fault: AnyFault, number: int) -> Callable[[], None] | None:
        """Break what the fault says; return what makes it whole again."""
        match fault:
            case Crash():
                return self._crash(fault)
            case CrashInCommit():
                return self._crash_in_commit(fault)
            case Pause(nodes=nodes):
                return self._stall(nodes, until=self.world.now + fault.lasts_ms)
            case Slow(nodes=nodes):
                return self._slow(nodes, fault.cpu_ms)
            case FullDisk(nodes=nodes):
                return self._fill(nodes)
            case FlippedBit(nodes=nodes):
                return self._flip(nodes)
            case LyingDisk(nodes=nodes):
                return self._lie(nodes)
            case Alter():
                return self._alter(fault, number)
            case SlowDisk():
                return self._slow_disk(fault, number)
            case Clock():
                return self._set_clocks(fault)
            case Twin(node=node):
                return self._twin(node)
            case Partition():
                return self._cut(fault, number)
            case Spike():
                pair = PairFault(fault.sender, fault.receiver, fault.extra_ms)
                return self._disturb_pair(number, pair)
            case Burst():
                return self._burst(fault, number)
            case Loss(loss=loss):
                self._losses[number] = loss
                disconnects = loss > LOSS_CONNECTED_MAX
                if disconnects:
                    self.disturbances.begin()
                self._wan_changed()
                return partial(self._forget, self._losses, number, everything=disconnects)
            case Bandwidth(mbps=mbps):
                self._bandwidths[number] = mbps
                if mbps < MBPS_ENOUGH:
                    self.disturbances.begin()
                self._wan_changed()
                return partial(self._quicken, number, everything=mbps < MBPS_ENOUGH)
            case HangUp(a=a, b=b):
                link = self.world.nodes[a].links.get(b)
                if link is not None:
                    self.world.close(link)
                return None
            case Tamper():
                return self._tamper(fault, number)
        raise AssertionError(f"a fault of an unknown kind: {fault}")

    # -- nodes -----------------------------------------------------------------------------------------------

    def _keep_disk(self, wanted: tuple[str, float]) -> None:
        name, _ = wanted
        self._old_disks[wanted] = self.world.nodes[name].disk.copied()

    def _stop(self, name: str, *, silent: bool = False, power: bool = False) -> None:
        self.world.kept_down[name] += 1
        self.disturbances.begin(name)
        if self.world.nodes[name].core is not None:
            self.world.crash(name, silent=silent, power=power)

    def _start(self, name: str) -> None:
        self.world.kept_down[name] -= 1
        self.disturbances.end(name)
        if not self.world.kept_down[name] and self.world.nodes[name].core is None:
            self.world.start(name)

    def _crash(self, fault: Crash) -> Callable[[], None]:
        for name in fault.nodes:
            self._stop(name, silent=fault.silent, power=fault.power)
            if fault.wiped:
                self.world.wipe(name)
            elif fault.disk_from_ms is not None:
                self.world.replace_disk(name, self._old_disks[name, fault.disk_from_ms])
            if name == ROOT and (fault.wiped or fault.disk_from_ms is not None):
                self.disturbances.excuses.append("the coordinator's disk was replaced")

        def end() -> None:
            for name in fault.nodes:
                self._start(name)

        return end

    def _crash_in_commit(self, fault: CrashInCommit) -> Callable[[], None]:
        desk = self.world.desks.get(ROOT)
        if desk is not None and desk.is_open:
            desk.crash_at = fault.point

        def end() -> None:
            if desk is not None:
                desk.crash_at = None
            self.world.at(self.world.now, self._start_if_down, None)  # it may be about to die at this very moment

        return end

    def _start_if_down(self, _: object) -> None:
        if self.world.root.core is None and not self.world.kept_down[ROOT]:
            self.world.start(ROOT)

    def _stall(self, nodes: Names, until: float) -> Callable[[], None]:
        self.disturbances.begin(*nodes)
        for name in nodes:
            node = self.world.nodes[name]
            self._paused[name] += 1
            node.stalled_until = max(node.stalled_until, until)

        def end() -> None:
            self.disturbances.end(*nodes)
            for name in nodes:  # an early end wakes them; who was restarted meanwhile runs already
                self._paused[name] -= 1
                if not self._paused[name]:
                    self.world.nodes[name].resume()

        return end

    def _slow(self, nodes: Names, cpu_ms: float) -> Callable[[], None]:
        disturbed = nodes if cpu_ms >= CPU_MS_DISTURBING else ()
        for name in disturbed:
            self.disturbances.begin(name)
        for name in nodes:
            self.world.nodes[name].cpu_ms += cpu_ms

        def end() -> None:
            for name in disturbed:
                self.disturbances.end(name)
            for name in nodes:
                self.world.nodes[name].cpu_ms = max(0.0, self.world.nodes[name].cpu_ms - cpu_ms)

        return end

    # -- disks -----------------------------------------------------------------------------------------------

    def _fill(self, nodes: Names) -> Callable[[], None]:
        self.disturbances.begin(*nodes)
        for name in nodes:
            self._full[name] += 1
            self.world.nodes[name].disk.is_full = True

        def end() -> None:
            self.disturbances.end(*nodes)
            for name in nodes:
                self._full[name] -= 1
                self.world.nodes[name].disk.is_full = self._full[name] > 0

        return end

    def _lie(self, nodes: Names) -> Callable[[], None]:
        if ROOT in nodes:
            self.disturbances.excuses.append("the coordinator's disk lied")
        for name in nodes:
            self._lying[name] += 1
            self.world.nodes[name].disk.is_lying = True

        def end() -> None:
            for name in nodes:
                self._lying[name] -= 1
                node = self.world.nodes[name]
                ran = node.core is not None
                if ran:
                    self._stop(name, power=True)
                node.disk.is_lying = self._lying[name] > 0
                if ran:
                    self._start(name)

        return end

    def _flip(self, nodes: Names) -> Callable[[], None]:
        self.disturbances.begin(*nodes)
        for name in nodes:
            self.world.nodes[name].disk.is_damaged = True

        def end() -> None:
            self.disturbances.end(*nodes)
            for name in nodes:
                self.world.nodes[name].notice_damage()

        return end

    def _slow_disk(self, fault: SlowDisk, number: int) -> Callable[[], None]:
        rng = Random(self._rng.getrandbits(64))
        least, most = sorted((fault.least_ms, fault.most_ms))
        self._fsyncs[number] = lambda: rng.uniform(least, most)
        self._set_fsync()

        def end() -> None:
            del self._fsyncs[number]
            self._set_fsync()

        return end

    def _set_fsync(self) -> None:
        """The slow disk that began last decides, for the desks there are and for those to come."""
        fsync_ms = next(reversed(self._fsyncs.values()), float)
        self.world.fsync_ms = fsync_ms
        for desk in self.world.desks.values():
            desk.fsync_ms = fsync_ms

    def _set_clocks(self, fault: Clock) -> Callable[[], None]:
        self.disturbances.clock_error_ms += abs(fault.step_ms) + 86_400 * abs(fault.drift_ppm) / 1e6
        for name in fault.nodes:
            self.world.nodes[name].set_clock(step_ms=fault.step_ms, drift_ppm=fault.drift_ppm)

        def end() -> None:
            for name in fault.nodes:
                self.world.nodes[name].set_clock(step_ms=-fault.step_ms, drift_ppm=-fault.drift_ppm)

        return end

    def _twin(self, name: str) -> Callable[[], None]:
        self.disturbances.begin(name)
        if name == ROOT:
            self.disturbances.excuses.append("two coordinators")
        id_ = self.world.add_twin(name)
        self.world.start(id_)

        def end() -> None:
            if self.world.nodes[id_].core is not None:
                self.world.crash(id_)
            del self.world.nodes[id_]
            if name == ROOT and self.world.root.core is not None:
                self._stop(name)  # whoever ends such a thing restarts the one that stays: its new epoch wins
                self._start(name)
            self.disturbances.end(name)

        return end

    # -- the network -----------------------------------------------------------------------------------------

    def _wan_changed(self) -> None:
        state = replace(
            self._calm,
            cuts=tuple(cut for cuts in self._cuts.values() for cut in cuts),
            loss=max([self._calm.loss, *self._losses.values()]),
            bandwidth_mbps=min(self._bandwidths.values(), default=self._calm.bandwidth_mbps),
            pairs=_merged(self._pairs.values()),
        )
        self.world.wan.apply(state)
        self.world.wan_changed()

    def _forget(self, of: dict[int, Any], number: int, *, everything: bool = False) -> None:
        of.pop(number, None)
        if everything:
            self.disturbances.end()
        self._wan_changed()

    def _quicken(self, number: int, *, everything: bool) -> None:
        """End a limit of bandwidth; bulk links that have seconds to carry at the old speed are made anew.

        What a link was given it carries at the speed of that time. On a line that got quicker it would not.
        """
        self._forget(self._bandwidths, number, everything=everything)
        for node in list(self.world.nodes.values()):
            for link in list(node.bulk.links.values()):
                queue = link.direction(node).queue
                if queue and queue[-1][0] - self.world.now > BACKLOG_MS_MAX:
                    self.world.close(link)

    def _cut(self, fault: Partition, number: int) -> Callable[[], None]:
        wan = self.world.wan
        senders = tuple(name for name in wan.members(fault.senders) if name in self.world.nodes)
        receivers = tuple(name for name in wan.members(fault.receivers) if name in self.world.nodes) or tuple(
            node.id for node in self.world.nodes.values() if node.id == node.name and node.id not in senders
        )
        cuts = (CutState(senders, receivers), *([] if fault.one_way else [CutState(receivers, senders)]))
        ways = [(a, b) for cut in cuts for a in cut.senders for b in cut.receivers]
        self.disturbances.begin(*ways)
        self._cuts[number] = cuts
        self._wan_changed()
        if fault.flapping_ms is not None:
            self.world.at(self.world.now + fault.flapping_ms, self._flap, (number, cuts, fault.flapping_ms))

        def end() -> None:
            self._cuts.pop(number, None)
            self.disturbances.end(*ways)
            self._wan_changed()

        return end

    def _flap(self, flap: tuple[int, tuple[CutState, ...], float]) -> None:
        number, cuts, every_ms = flap
        if number not in self._ends:
            return
        if number in self._cuts:
            del self._cuts[number]
        else:
            self._cuts[number] = cuts
        self._wan_changed()
        self.world.at(self.world.now + every_ms, self._flap, flap)

    def _disturb_pair(self, number: int, pair: PairFault) -> Callable[[], None]:
        way = (pair.sender, pair.receiver)
        self.disturbances.begin(way)
        self._pairs[number] = pair
        self._wan_changed()

        def end() -> None:
            self._pairs.pop(number, None)
            self.disturbances.end(way)
            self._wan_changed()

        return end

    def _burst(self, fault: Burst, number: int) -> Callable[[], None]:
        way = (fault.sender, fault.receiver)
        rng = Random(self._rng.getrandbits(64))
        self.disturbances.begin(way)
        self._pairs[number] = PairFault(*way)
        self._gilbert((number, fault, rng, True))

        def end() -> None:
            self._pairs.pop(number, None)
            self.disturbances.end(way)
            self._wan_changed()

        return end

    def _gilbert(self, chain: tuple[int, Burst, Random, bool]) -> None:
        number, fault, rng, is_bad = chain
        if number not in self._pairs:
            return  # it has ended
        self._pairs[number] = PairFault(fault.sender, fault.receiver, 0.0, fault.loss if is_bad else None)
        self._wan_changed()
        lasts = rng.expovariate(1 / (fault.bad_ms if is_bad else fault.good_ms))
        self.world.at(self.world.now + lasts, self._gilbert, (number, fault, rng, not is_bad))

    def _alter(self, fault: Alter, number: int) -> Callable[[], None]:
        """The one that began last has its way with every page and chunk."""
        tamperer = BulkTamperer(fault, Random(self._rng.getrandbits(64)))
        self.altering[number] = self.world.bulk_tampering = tamperer
        self.disturbances.begin()

        def end() -> None:
            if self.world.bulk_tampering is tamperer:
                self.world.bulk_tampering = None
            self.disturbances.end()

        return end

    def _tamper(self, fault: Tamper, number: int) -> Callable[[], None]:
        """The one that began last has its way with every message."""
        self._tampering[number] = Tamperer(self.world, fault, Random(self._rng.getrandbits(64)))
        self.world.tampering = self._tampering[number]
        self.disturbances.begin()

        def end() -> None:
            holed = self._tampering.pop(number).holed
            self.world.tampering = next(reversed(self._tampering.values()), None)
            for link in holed:
                self.world.close(link)
            self.disturbances.end()

        return end


def _merged(pairs: Iterable[PairFault]) -> tuple[PairFault, ...]:
    """Return one fault for each way: the delays added, the worst of the losses."""
    by_way: dict[tuple[str, str], PairFault] = {}
    for pair in pairs:
        known = by_way.get((pair.sender, pair.receiver))
        if known is not None:
            losses = [loss for loss in (known.loss, pair.loss) if loss is not None]
            pair = PairFault(  # noqa: PLW2901
                pair.sender, pair.receiver, known.extra_ms + pair.extra_ms, max(losses, default=None)
            )
        by_way[pair.sender, pair.receiver] = pair
    return tuple(by_way.values())
