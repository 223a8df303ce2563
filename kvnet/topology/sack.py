"""One direction of one TCP connection, its losses repaired as a modern Linux repairs them (SACK, RACK-TLP, cubic).

The second answer to what a lost packet costs; delay, jitter, bandwidth, cuts, death are `LinkModel`'s (link.py).

**Packets.** A message is ceil(size / 1448) of them, each lost with the direction's probability. They leave evenly
spread over the time that the line and the window take for the message. Nothing overtakes: what arrives behind a
hole waits for it, but is not lost with it.

**Repair** (RFC 8985). A hole is a packet whose newest transmission is lost. Any packet that left after that and
gets through, be it new or itself a repetition, shows the hole. It leaves again a round trip after the one that
shows it, but not before a round trip and a quarter (the reordering window) after it last left itself. What
nothing shows leaves again by a timer: the last packet of a message as a tail loss probe after two round trips,
200 ms later if it is the only one under way; everything else at the time-out, and the probe no later than that.
The time-out is a round trip + max(200 ms, 4 rttvar), as Linux has it; from one to the next, with nothing shown
between, it doubles. How many transmissions of a packet are lost is drawn when it first leaves; what is sent later
only decides when they happen.

So a later message may bring an arrival *forward* that is already promised, or save a connection that was about to
die. The owner asks again after each `send`, too:

    promised = link.send(now_ms, size_bytes)
    due = link.due_ms(oldest_promised)              # may be less than promised; a promise is a name, not a time
    link.dead_at_ms                                 # may be later than before the send

**Window.** A flow carries no more than 1448 bytes × 1.22 / sqrt(loss) per round trip (Mathis et al. 1997), counted
in bytes, since what waits is sent in full packets. Beyond that, messages wait here, and `unsent_bytes` shows them.
After a round trip without a word ten packets may leave at once, if that is more.

Left out: that a time-out leaves a window of one packet. A real sender then sends nothing new until the repetition
is acknowledged, and the other holes after it; we repair too fast there and carry too much. Also that later sends
put a probe off, slow start, what repetitions take of window and line, lost or missing acknowledgements, the
receiver's window, other flows.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import exp, inf, nextafter, sqrt
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from kvnet.topology.link import HELD, RTO_MIN_MS, USER_TIMEOUT_MS, LinkModel

if TYPE_CHECKING:
    from kvnet.topology.wan import Wan

PACKET_BYTES: Final = 1448
"""A packet's payload: 1500 bytes without the headers of IP and TCP, and its timestamps."""
WINDOW_FACTOR: Final = 1.22
"""Packets per round trip times sqrt(loss): sqrt(3 / 2), for a window that halves with every loss."""
INITIAL_WINDOW_BYTES: Final = 10 * PACKET_BYTES
RACK_ROUND_TRIPS: Final = 1.25
PROBE_ROUND_TRIPS: Final = 2.0
DELAYED_ACK_MS: Final = 200.0
"""How much longer the probe for a lone packet waits, since its acknowledgement may have been delayed."""


@dataclass(slots=True, eq=False)
class Message:
    """A message behind the first hole, or with it."""

    travels_ms: float
    filled_at: float = -inf
    """What got through of it, or will whatever is sent, had left for good."""
    due: float = inf
    """Its arrival as things stand; it never grows."""


class Hole(NamedTuple):
    """A packet whose newest transmission is lost."""

    message: Message
    first_left: float
    left: float
    losses: int
    """How many of its repetitions will be lost as well."""
    repeats_at: float
    """As things stand; inf, if the connection dies first."""
    timeouts: int
    """In a row, including the one that comes; a probe is none. The wait after it doubles as often."""


REPEATS_AT: Final = attrgetter("repeats_at")


class SackLinkModel(LinkModel):
    """One direction of one connection, from its start to its death; packet by packet."""

    __slots__ = (
        "_before",
        "_due",
        "_holes",
        "_pending",
        "_quiet_at",
        "_rack_ms",
        "_rtt_ms",
        "_spare_bytes",
        "_window_at",
        "_window_ms_per_byte",
    )

    def __init__(self, wan: Wan, sender: str, receiver: str, rng: random.Random, *, lossy: bool = True) -> None:
        """Open the direction `sender` → `receiver`; `Wan.link` checks the names."""
        super().__init__(wan, sender, receiver, rng, lossy=lossy)
        self._holes: list[Hole] = []  # in the order of their packets
        self._pending: list[Message] = []  # from the first hole's message on
        self._before = -inf  # the arrival of all that came before those
        self._due: dict[float, Message] = {}  # by promise, where a promise is more than a time; no two share one
        self._window_at = -inf  # at the window's rate, all that was sent is acknowledged
        self._quiet_at = -inf  # a round trip after the last packet left
        self._spare_bytes = 0.0  # of the initial window, beyond the window

    def send(self, now_ms: float, size_bytes: int) -> float:
        """Return a promise for a message handed to the connection now: its arrival as things stand; or HELD.

        `now_ms` never goes back. Afterwards `due_ms` may say less about what was sent before. While the connection
        is dying of a loss, a promise is a mere name: its `due_ms` is HELD until a later packet saves it.
        """
        if self._stalled and self._is_held(now_ms, size_bytes):
            return HELD
        if now_ms < self._releases:
            self._waiting_bytes += size_bytes
            if self._releases == inf and not self._holes:
                return HELD  # a cut has made sure that nothing saves the connection
        starts = leaves = now_ms
        if self._window_ms_per_byte:
            starts, leaves = self._pass_window(now_ms, size_bytes)
        if self._ms_per_byte:
            starts = max(starts, self._free_at)
            self._free_at = max(now_ms, self._free_at) + size_bytes * self._ms_per_byte
            leaves = max(leaves, self._free_at)
        travels = self._delay_ms
        if self._jitter:
            travels *= exp(self._gauss(self._mean_log, self._jitter))
        message = Message(travels)
        if self._loss or self._holes:
            self._draw(now_ms, size_bytes, starts, leaves, message)
        if self._pending:
            self._settle(now_ms, size_bytes)
        if not self._holes:
            return self._promise(leaves + travels)
        # A promise that may come to mean less is no other's; after `_before` no plain one is under way.
        name = max(message.due if message.due < inf else now_ms + USER_TIMEOUT_MS, nextafter(self._before, inf))
        while name in self._due:
            name = nextafter(name, inf)
        self._due[name] = message
        return name

    def due_ms(self, promised_ms: float) -> float:
        """Return when an undelivered message with this promise arrives as things stand; HELD, if never.

        It may be less than promised, and less than before the last `send`, but never in the past: ask again after
        each. The order of sending is the order of arrival, also among equals.
        """
        message = self._due.get(promised_ms)
        return super().due_ms(promised_ms if message is None else message.due)

    def unsent_bytes(self, now_ms: float) -> int:
        """Return what was handed over and still waits here: for a cut, the window, or the line."""
        unsent = super().unsent_bytes(now_ms)
        if self._window_ms_per_byte and not self._cut and now_ms >= self._releases:
            waits_ms = max(0.0, self._window_at - self._rtt_ms - now_ms)
            unsent = max(unsent, round(waits_ms / self._window_ms_per_byte))
        return unsent

    def _read_configuration(self) -> None:
        super()._read_configuration()
        self._rtt_ms = self._delay_ms + self._back_ms
        self._rto_ms = max(self._rto_ms, self._rtt_ms + RTO_MIN_MS)  # round trip + max(200, 4 rttvar)
        self._rack_ms = RACK_ROUND_TRIPS * self._rtt_ms
        self._window_ms_per_byte = self._rtt_ms * sqrt(self._loss) / (WINDOW_FACTOR * PACKET_BYTES)

    def _pass_window(self, now_ms: float, size_bytes: int) -> tuple[float, float]:
        """Return when the window lets the first and the last byte leave."""
        window = self._rtt_ms / self._window_ms_per_byte
        if now_ms >= self._quiet_at:
            self._spare_bytes = max(0.0, INITIAL_WINDOW_BYTES - window)
        spared = min(float(size_bytes), self._spare_bytes)
        self._spare_bytes -= spared
        before = max(now_ms, self._window_at)
        self._window_at = before + (size_bytes - spared) * self._window_ms_per_byte
        leaves = max(now_ms, self._window_at - self._rtt_ms)
        self._quiet_at = leaves + self._rtt_ms
        return max(now_ms, before - self._rtt_ms), leaves

    def _draw(self, now_ms: float, size_bytes: int, starts: float, leaves: float, message: Message) -> None:
        """Let the packets of a message leave, to be lost or to show the holes before them."""
        draw, loss = self._random, self._loss
        packets = max(1, -(-size_bytes // PACKET_BYTES))
        step = (leaves - starts) / packets
        probe_ms = PROBE_ROUND_TRIPS * self._rtt_ms
        if packets == 1 and now_ms >= self._arrives + self._back_ms:
            probe_ms += DELAYED_ACK_MS
        for behind in range(packets - 1, -1, -1):
            left = leaves - behind * step
            if self._holes:
                for hole in self._repeat(self._holes, left):
                    hole.message.filled_at = max(hole.message.filled_at, hole.repeats_at)
            if loss and draw() < loss:
                losses = 0
                while draw() < loss:
                    losses += 1
                wait = self._rto_ms if behind else min(probe_ms, self._rto_ms)
                self._holes.append(Hole(message, left, left, losses, left + wait, timeouts=1 if behind else 0))
            else:
                self._show(self._holes, left)
                message.filled_at = left
        if self._holes:
            if not self._pending:
                self._before = self._arrives
                self._due = {name: pending for name, pending in self._due.items() if name > now_ms}
            self._pending.append(message)

    def _repeat(self, holes: list[Hole], until: float) -> list[Hole]:
        """Let holes leave again before then, and take out those that got through: at `repeats_at`."""
        filled = []
        while holes and (hole := min(holes, key=REPEATS_AT)).repeats_at < until:
            left, at = hole.repeats_at, holes.index(hole)
            if hole.losses:
                repeats_at = left + self._rto_ms * 2**hole.timeouts
                if repeats_at >= hole.first_left + USER_TIMEOUT_MS:
                    repeats_at = inf
                holes[at] = hole._replace(
                    left=left, losses=hole.losses - 1, repeats_at=repeats_at, timeouts=hole.timeouts + 1
                )
            else:
                del holes[at]
                filled.append(hole)
                self._show(holes, left)
        return filled

    def _show(self, holes: list[Hole], left: float) -> None:
        """Repeat sooner what is missing of all that left before a packet that left then and got through."""
        for at, hole in enumerate(holes):
            found = max(left + self._rtt_ms, hole.left + self._rack_ms)
            if found < min(hole.repeats_at, hole.first_left + USER_TIMEOUT_MS):
                holes[at] = hole._replace(repeats_at=found, timeouts=0)

    def _settle(self, now_ms: float, size_bytes: int) -> None:
        """Say when what is pending arrives if nothing more is sent, and whether the connection lives."""
        holes = list(self._holes)
        filled = {message: message.filled_at for message in self._pending}
        for hole in self._repeat(holes, inf):
            filled[hole.message] = max(filled[hole.message], hole.repeats_at)
        filled |= dict.fromkeys((hole.message for hole in holes), inf)
        arrives = self._before
        for message in self._pending:
            arrives = max(arrives, filled[message] + message.travels_ms)
            # A hole filled sooner may be filled too soon to show another's lost repetition; a real connection is
            # later then. Ours keeps what it promised: rare, and no percentile moves at 20 % loss.
            message.due = min(message.due, arrives)
        self._arrives = self._pending[-1].due
        first = self._holes[0].message if self._holes else None
        while self._pending and self._pending[0] is not first:
            self._before = self._pending.pop(0).due
        if holes and self._releases < inf:
            self._waiting_bytes = max(size_bytes, self.unsent_bytes(now_ms))
            self._releases = inf
        elif not holes and self._releases == inf:
            self._releases = -inf  # saved
        dies = min((hole.first_left for hole in holes), default=inf) + USER_TIMEOUT_MS
        self.dead_at_ms = min(self.dead_at_ms, dies) if self._stalled else dies

    def _resume(self, now_ms: float) -> float:
        gate = super()._resume(now_ms)
        if gate > -inf:
            self._holes.clear()  # mended with all that was held, or beyond mending
            self._pending.clear()
        if -inf < gate < inf:
            self._window_at = self._releases + self._waiting_bytes * self._window_ms_per_byte
            self._arrives = gate = max(gate, self._window_at - self._rtt_ms + self._delay_ms)
        return gate

    def _promise(self, arrives: float) -> float:
        """Return this arrival, or that of the message before, and never a promise that may come to mean less."""
        arrives = max(arrives, self._arrives)
        while arrives in self._due:
            arrives = nextafter(arrives, inf)
        self._arrives = arrives
        return arrives
