"""A monitor and the world around it, told step by step."""

from kvnet.monitor.truth import Truth
from kvnet.monitor.watch import Monitor
from kvnet.topology.wan_state import WanState

POPS = ("fra", "nrt", "gru")
ZERO = {
    "frame_bytes_received": 0,
    "frame_bytes_sent": 0,
    "control_messages_sent": 0,
    "parent": None,
}


class Told:
    """Ground truth that a test writes; reads like the launcher's file."""

    def __init__(self):
        self._next = None

    def poll(self):
        told, self._next = self._next, None
        return told

    def write(self, at_ms, up, *, wan=None, coordinator=0.0):
        self._next = Truth(
            up_since_ms=up,
            wan=wan or WanState(),
            written_ms=at_ms,
            tells_coordinator=True,
            coordinator_since_ms=coordinator,
        )


class Story:
    """A monitor, and a world around it that a test tells step by step; time is `now`, in milliseconds."""

    def __init__(self, pops=POPS, bound_ms=10_000.0):
        self.now = 0.0
        self.truth = Told()
        self.pops = pops
        self.bound_ms = bound_ms
        self.seqs = 0
        self.positions = dict.fromkeys(pops, (0, 0))
        self.start()

    def start(self):
        """Start the monitor, or another one in its place."""
        self.monitor = Monitor(
            pops=self.pops,
            floor_ms=100.0,
            one_way_ms=dict.fromkeys(self.pops, 50.0),
            bound_ms=self.bound_ms,
            source=_NoFeeds(),
            truth=self.truth,
            authorize=lambda token: token == "letmein",
            now_ms=lambda: self.now,
        )

    def up(self, **since):
        """Ground truth of now: these PoPs are up since then; the others are down."""
        self.truth.write(self.now, since)
        self.monitor.observe_truth()

    def all_up(self, since=0.0):
        self.up(**dict.fromkeys(self.pops, since))

    def coordinator(self, *message):
        self.monitor.take(self.monitor._coordinator_feed, message)

    def edge(self, pop, *message):
        self.monitor.take(self.monitor._edge_feeds[pop], message)

    def hello(self, pop, *, start=b"1", oldest_seq=0):
        message = ("hello", pop, start, self.now, {"oldest_seq": oldest_seq})
        (self.coordinator if pop == "coordinator" else lambda *m: self.edge(pop, *m))(*message)

    def commit(self, t0, *, entries=1, epoch=1, size=100, counters=None):
        """The coordinator tells of a frame; returns its last seq."""
        first, self.seqs = self.seqs + 1, self.seqs + entries
        self.coordinator("commits", [[epoch, first, self.seqs, t0, size, entries]], counters or ZERO)
        return self.seqs

    def arrive(self, wall, seq, *pops, epoch=1, counters=None):
        for pop in pops or self.pops:
            self.edge(pop, "stamps", [[epoch, seq, wall]], counters or ZERO)

    def idle(self, *pops):
        for pop in pops or self.pops:
            self.edge(pop, "idle", self.now, 0, ZERO)

    def report(self, since=None):
        return self.monitor.report(since)

    def violations(self):
        return [(v["write"], v["pop"], v["lag_ms"]) for v in self.report()["violations"]]


class _NoFeeds:
    async def follow(self, node):
        return
        yield
