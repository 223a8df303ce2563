"""Laws of a connection over the WAN, whatever is sent and whatever happens to the network."""

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kvnet.topology.load import load
from kvnet.topology.wan import HELD, LinkModel, Wan, WanState

WORLD = load("world-2018")
CODES = [pop.code for pop in WORLD.pops]

codes = st.sampled_from(CODES)
seeds = st.integers(0, 2**32)
gaps_ms = st.lists(st.floats(0, 400), min_size=1, max_size=60)
sizes = st.integers(0, 70_000)
actions = st.lists(
    st.tuples(
        st.floats(0, 700),
        st.sampled_from(["send", "send", "send", "cut", "cut back", "heal", "loss", "slow"]),
        sizes,
    ),
    max_size=60,
)


def wan_with(**changes) -> Wan:
    wan = Wan(WORLD)
    wan.apply(WanState.from_dict(wan.state.to_dict() | changes))
    return wan


@given(codes, codes)
def test_distance_is_symmetric_and_obeys_the_formula(a, b):
    wan = Wan(WORLD)
    assert wan.one_way_ms(a, b) == wan.one_way_ms(b, a)
    assert wan.rtt_ms(a, b) == 2 * wan.one_way_ms(a, b)
    if a != b:
        assert 12.6 <= wan.rtt_ms(a, b) <= 12.6 + 1.73 * 20_016 / 100


@given(codes, codes, codes)
def test_no_detour_is_shorter(a, b, c):
    wan = Wan(WORLD)
    assert wan.one_way_ms(a, c) <= wan.one_way_ms(a, b) + wan.one_way_ms(b, c) + 1e-9


@given(
    seeds,
    gaps_ms,
    st.sampled_from([0.0, 0.05, 0.3]),
    st.sampled_from([0.0, 0.05, 0.4]),
    st.sampled_from([None, 1, 100]),
)
def test_nothing_overtakes(seed, gaps, loss, sigma, mbps):
    link = wan_with(loss=loss, jitter_sigma=sigma, bandwidth_mbps=mbps).link("iad", "nrt", random.Random(seed))
    now, promised = 0.0, []
    for gap in gaps:
        now += gap
        promised.append(link.send(now, 1000))
    assert all(a <= b for a, b in pairwise(promised))


@given(seeds, gaps_ms, st.sampled_from([0.0, 0.2]))
def test_without_jitter_nothing_is_faster_than_the_delay(seed, gaps, loss):
    wan = wan_with(loss=loss, jitter_sigma=0)
    link, delay, now = wan.link("iad", "nrt", random.Random(seed)), wan.one_way_ms("iad", "nrt"), 0.0
    for gap in gaps:
        now += gap
        assert link.send(now, 1000) >= now + delay


@given(seeds, gaps_ms)
def test_without_loss_nothing_waits_for_a_retransmission(seed, gaps):
    wan = wan_with(jitter_sigma=0)
    link, delay, now = wan.link("iad", "nrt", random.Random(seed)), wan.one_way_ms("iad", "nrt"), 0.0
    for gap in gaps:
        now += gap
        assert link.send(now, 1000) == now + delay
        assert link.unsent_bytes(now) == 0


@given(seeds, st.sampled_from([0.02, 0.1, 0.3]))
def test_as_many_flights_are_late_as_packets_are_lost(seed, loss):
    """Flights 20 s apart on a connection of their own, so that none joins another."""
    wan = wan_with(loss=loss, jitter_sigma=0)
    rng, flights, late = random.Random(seed), 1500, 0
    for _ in range(flights):
        late += wan.link("iad", "nrt", rng).send(0.0, 1000) > wan.one_way_ms("iad", "nrt")
    deviation = (flights * loss * (1 - loss)) ** 0.5
    assert abs(late - flights * loss) < 6 * deviation


@given(seeds, gaps_ms, st.sampled_from([0.0, 0.2]))
def test_the_same_seed_gives_the_same_times(seed, gaps, loss):
    wan = wan_with(loss=loss)
    links = [wan.link("iad", "nrt", random.Random(seed)) for _ in range(2)]
    now = 0.0
    for gap in gaps:
        now += gap
        assert links[0].send(now, 1000) == links[1].send(now, 1000)


class Receiver:
    """Drives a link as its owner must, and checks what the far end sees."""

    def __init__(self, wan: Wan, link: LinkModel) -> None:
        self.wan, self.link = wan, link
        self.queue: list[tuple[int, float]] = []
        self.arrived: list[int] = []
        self.arrived_at = 0.0

    def run_until(self, now: float) -> None:
        while self.queue and not self.dead(now) and self.link.due_ms(self.queue[0][1]) <= now:
            number, promised = self.queue.pop(0)
            due = self.link.due_ms(promised)
            assert due >= self.arrived_at, "a message overtook another"
            self.arrived_at = due
            self.arrived.append(number)

    def dead(self, now: float) -> bool:
        return now >= self.link.dead_at_ms


@given(seeds, actions, st.sampled_from([0.0, 0.05]))
def test_through_any_disturbance_messages_arrive_once_in_order_and_never_while_cut(seed, script, sigma):
    wan = wan_with(jitter_sigma=sigma)
    far = Receiver(wan, wan.link("iad", "nrt", random.Random(seed)))
    now, sent = 0.0, 0
    for gap, action, size in script:
        before = len(far.arrived)
        was_cut = wan.is_cut("iad", "nrt")
        now += gap
        far.run_until(now)
        assert not (was_cut and len(far.arrived) > before)
        if far.dead(now):
            return
        match action:
            case "send":
                far.queue.append((sent, far.link.send(now, size)))
                sent += 1
                continue
            case "cut":
                wan.cut("iad", "nrt")
            case "cut back":
                wan.cut("nrt", "iad")
            case "heal":
                wan.heal_all()
            case "loss":
                wan.set_loss(0.3)
            case "slow":
                wan.set_pair("iad", "nrt", extra_ms=size / 100)
        far.link.on_change(now)
    wan.heal_all()
    far.link.on_change(now)
    assert all(far.link.due_ms(promised) < HELD for _, promised in far.queue) or far.link.dead_at_ms < HELD
    far.run_until(now + 20_000)
    assert far.arrived == list(range(sent)) or far.link.dead_at_ms < HELD


groups = st.lists(
    st.sampled_from([*CODES[:8], "coordinator", "monitor", "europe", "asia"]), min_size=1, max_size=5
)


@given(st.lists(st.tuples(st.sampled_from(["cut", "heal"]), groups, groups), max_size=8))
def test_cuts_are_a_set_of_directions(changes):
    """Rules on groups say what a plain set of pairs would."""
    wan, pairs = Wan(WORLD), set()
    for change, senders, receivers in changes:
        named = {(a, b) for a in wan.members(senders) for b in wan.members(receivers)}
        if change == "cut":
            wan.cut(senders, receivers)
            pairs |= named
        else:
            wan.heal(senders, receivers)
            pairs -= named
    nodes = [*CODES[:12], "coordinator", "monitor", "fra", "nrt"]
    assert all(wan.is_cut(a, b) == ((a, b) in pairs) for a in nodes for b in nodes)
    assert WanState.from_dict(wan.state.to_dict()) == wan.state
