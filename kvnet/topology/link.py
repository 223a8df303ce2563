"""One direction of one TCP connection over the WAN, and when what is sent on it arrives.

Modelled: the pair's delay with jitter, order (nothing overtakes), packet loss as TCP makes the reader feel it,
bandwidth, cuts, and the death of a connection whose data stay unacknowledged.

**Loss.** A flight, all that leaves in one instant, is drawn once. A lost one leaves again one retransmission
time later, max(200 ms, srtt + 4 rttvar), doubling for every further loss; what is sent meanwhile joins it and
leaves with it. Acknowledgements are not drawn. `SackLinkModel` (sack.py) draws each packet and repairs it as a TCP
with selective acknowledgements does.

**Cuts.** While a direction is cut nothing arrives, not even what was under way. Once it is open again the held
data leave with the next retransmission, at most RETRY_MAX_MS later. Data that stay unacknowledged for
USER_TIMEOUT_MS, because this direction or the way back is cut, or because every retransmission was lost, kill
the connection.

The owner of a link keeps a queue of promised times:

    promised = link.send(now_ms, size_bytes)        # HELD while cut
    at that time: due = link.due_ms(promised)       # later, if a cut came between: wait on
    when the Wan changed: link.on_change(now_ms)    # then ask `due_ms` again for all that is queued
    at link.dead_at_ms: close the connection        # what is queued is lost
"""

from __future__ import annotations

import random
from math import exp, inf, pi, sqrt
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kvnet.topology.wan import Wan

HELD: Final = inf
"""The promise for a message that is not on its way: its direction is cut, or its connection is lost."""
RTO_MIN_MS: Final = 200.0
RETRY_MAX_MS: Final = 1000.0
"""Longest wait between the end of a cut and the retransmission that gets through."""
USER_TIMEOUT_MS: Final = 5000.0
"""TCP_USER_TIMEOUT of the links: unacknowledged for this long, the connection is dead."""
MEAN_DEVIATION: Final = sqrt(2 / pi)
"""Mean absolute deviation of a normal variable with deviation 1: what TCP's rttvar settles at."""


class LinkModel:
    """One direction of one connection, from its start to its death."""

    __slots__ = (
        "_arrives",
        "_back_ms",
        "_cut",
        "_delay_ms",
        "_drawn_at",
        "_free_at",
        "_gate_ms",
        "_gauss",
        "_jitter",
        "_loss",
        "_lossy",
        "_mean_log",
        "_ms_per_byte",
        "_random",
        "_releases",
        "_rto_ms",
        "_stalled",
        "_unacked_since",
        "_waiting_bytes",
        "_wan",
        "dead_at_ms",
        "receiver",
        "sender",
    )

    def __init__(self, wan: Wan, sender: str, receiver: str, rng: random.Random, *, lossy: bool = True) -> None:
        """Open the direction `sender` → `receiver`; `Wan.link` checks the names."""
        self.sender = sender
        self.receiver = receiver
        self.dead_at_ms = inf
        """When the connection dies of data nobody acknowledges, as things stand; inf while they move."""
        self._wan = wan
        self._lossy = lossy
        self._random, self._gauss = rng.random, rng.gauss
        self._arrives = -inf  # the last message that was promised a time
        self._drawn_at = -inf  # the flight whose loss was last decided
        self._releases = -inf  # until then everything waits for a retransmission
        self._free_at = -inf  # the line has serialised all it was given
        self._waiting_bytes = 0  # held by a cut or waiting for the retransmission
        self._unacked_since: float | None = None  # of the cut in force, or of the last one
        self._read_configuration()
        self._gate_ms = inf if self._cut else -inf  # nothing arrives before

    def send(self, now_ms: float, size_bytes: int) -> float:
        """Return when a message handed to the connection now arrives, never before an earlier one; or HELD.

        `now_ms` never goes back. Messages of the same instant are one flight.
        """
        if self._stalled and self._is_held(now_ms, size_bytes):
            return HELD
        leaves = now_ms
        if now_ms < self._releases:
            leaves = self._releases
            self._waiting_bytes += size_bytes
        elif self._loss and now_ms != self._drawn_at:
            self._drawn_at = now_ms
            if self._random() < self._loss:
                self._waiting_bytes = self.unsent_bytes(now_ms) + size_bytes
                leaves = self._lose(now_ms)
        if self._ms_per_byte:
            leaves = max(leaves, self._free_at) + size_bytes * self._ms_per_byte
            self._free_at = leaves
        if self._jitter:
            arrives = leaves + self._delay_ms * exp(self._gauss(self._mean_log, self._jitter))
        else:
            arrives = leaves + self._delay_ms
        if arrives < self._arrives:
            return self._arrives
        self._arrives = arrives
        return arrives

    def due_ms(self, promised_ms: float) -> float:
        """Return when an undelivered message with this promise arrives as things stand; HELD, if never.

        The order of sending is the order of arrival, also among equals.
        """
        if promised_ms == HELD:
            return HELD if self._releases == inf else self._gate_ms
        return max(promised_ms, self._gate_ms)

    def unsent_bytes(self, now_ms: float) -> int:
        """Return what was handed over and still waits here: for a cut, a retransmission, or the line."""
        if self._cut or now_ms < self._releases:
            return self._waiting_bytes
        return round(max(0.0, self._free_at - now_ms) / self._ms_per_byte) if self._ms_per_byte else 0

    def on_change(self, now_ms: float) -> None:
        """Take over what changed about the Wan; afterwards `due_ms` and `dead_at_ms` may say something else."""
        if now_ms >= self.dead_at_ms:
            return
        was_cut, was_stalled = self._cut, self._stalled
        backlog = self.unsent_bytes(now_ms)
        self._read_configuration()
        if self._stalled and not was_stalled and self._gate_ms <= now_ms:
            self._unacked_since = None  # what an earlier cut held has arrived since
        if self._stalled and self._unacked_since is None and now_ms < self._arrives + self._back_ms:
            self._unacked_since = now_ms
        if self._cut and not was_cut:
            self._gate_ms = inf
            self._waiting_bytes = backlog
        if self._releases < inf:
            self.dead_at_ms = inf
        if self._stalled and self._unacked_since is not None:
            self.dead_at_ms = min(self.dead_at_ms, self._unacked_since + USER_TIMEOUT_MS)
        if was_cut and not self._cut:
            self._gate_ms = self._resume(now_ms)
        elif not self._cut and now_ms >= self._releases:
            self._free_at = now_ms + backlog * self._ms_per_byte  # the same bytes over a line of another rate

    def _read_configuration(self) -> None:
        wan, state = self._wan, self._wan.state
        self._delay_ms = wan.one_way_ms(self.sender, self.receiver)
        self._back_ms = wan.one_way_ms(self.receiver, self.sender)
        self._loss = wan.loss(self.sender, self.receiver) if self._lossy else 0.0
        self._jitter = state.jitter_sigma if self._delay_ms else 0.0
        self._mean_log = -(self._jitter**2) / 2  # so that the mean delay is the configured one
        mbps = state.bandwidth_mbps
        self._ms_per_byte = 8 / (mbps * 1000) if mbps else 0.0
        self._cut = wan.is_cut(self.sender, self.receiver)
        self._stalled = self._cut or wan.is_cut(self.receiver, self.sender)
        # Both ways jitter independently, so the round trip's deviation is that of each way's, added as squares.
        rttvar = state.jitter_sigma * MEAN_DEVIATION * sqrt(self._delay_ms**2 + self._back_ms**2)
        self._rto_ms = max(RTO_MIN_MS, self._delay_ms + self._back_ms + 4 * rttvar)

    def _is_held(self, now_ms: float, size_bytes: int) -> bool:
        """Whether a cut holds what is sent now; one way being cut, an acknowledgement is awaited from now on."""
        if self._unacked_since is None:
            self._unacked_since = now_ms
            self.dead_at_ms = now_ms + USER_TIMEOUT_MS
        if self._cut:
            self._waiting_bytes += size_bytes
        return self._cut

    def _lose(self, now_ms: float) -> float:
        """Return when the flight that was lost now leaves for good: never, if that kills the connection."""
        waits, rto = self._rto_ms, self._rto_ms
        while waits < USER_TIMEOUT_MS and self._random() < self._loss:
            rto *= 2
            waits += rto
        if waits >= USER_TIMEOUT_MS:
            self._doom(now_ms)
        else:
            self._releases = now_ms + waits
        return self._releases

    def _doom(self, left_ms: float) -> None:
        """Let the connection die of what left then, and nothing arrive any more."""
        self.dead_at_ms = min(self.dead_at_ms, left_ms + USER_TIMEOUT_MS)
        self._releases = inf

    def _resume(self, now_ms: float) -> float:
        """Return when all that a cut held arrives: with the first retransmission after its end."""
        if self._releases == inf:
            return inf  # it dies of what was lost before the cut, whose end mends nothing
        if self._unacked_since is None:
            return -inf  # nothing was held
        retries, rto = self._unacked_since, self._rto_ms
        while retries < now_ms:
            retries += rto
            rto *= 2
        leaves = min(retries, now_ms + RETRY_MAX_MS)
        if self._loss and self._random() < self._loss:
            leaves = self._lose(leaves)
        self._releases = leaves
        self._free_at = leaves + self._waiting_bytes * self._ms_per_byte
        self._arrives = max(self._free_at + self._delay_ms, self._arrives)
        return self._arrives
