"""Events go in, effects come out. Order is the contract.

The driver (asyncio or simulated) feeds one event at a time and carries out the effects in the order given:

- `Send` may be carried out at once, also for frames that are not applied yet: forwarding rests on the chain
  check alone. It may be lost with its link; then `PeerLost` comes.
- `Apply` must end in exactly one `Applied` event, after the transaction is committed (durable where the node's
  durability says so), or in `Diverged`. The driver may commit several in one transaction. Whatever speaks of a
  position (adverts, answers) is only sent after the core has seen that event.
- `Empty` likewise ends in `Applied(GENESIS)`.
- `Connect` ends in `PeerUp` or `DialFailed`; repeating it while a link is up or being dialled does nothing.
- `AwaitWritable` ends in one `LinkWritable` as soon as the link has room (at once, in a later turn, if it has it
  already), or in `PeerLost`.
- `SetDeadline` replaces the deadline before it; a spurious or late `DeadlineReached` is harmless.
- `Report` is for logs and metrics, and may be dropped.

Both are msgspec's structs, not dataclasses: the core makes some of each for everything that happens, and a frozen
dataclass takes five times as long to be made.

Given, not taken: the time (`now_ms`, monotonic, float milliseconds), randomness, and the two ports below.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from msgspec import Struct

from kvnet.core.frames import Frame
from kvnet.core.messages import Message
from kvnet.core.versions import Position


class Started(Struct, frozen=True, gc=False):
    """The node is ready to dial and be dialled."""


class PeerUp(Struct, frozen=True, gc=False):
    """A link to this peer stands; both sides have proven that they know the secret."""

    peer: str
    rtt_ms: float
    """Round trip of the handshake."""


class PeerLost(Struct, frozen=True, gc=False):
    """The link is gone, with all that was under way on it."""

    peer: str


class DialFailed(Struct, frozen=True, gc=False):
    peer: str


class MessageReceived(Struct, frozen=True, gc=False):
    peer: str
    message: Message


class LinkWritable(Struct, frozen=True, gc=False):
    """The answer to `AwaitWritable`: less than `UNSENT_BYTES_MAX` is unsent on this link."""

    peer: str


class Applied(Struct, frozen=True, gc=False):
    """The store now stands at this position."""

    position: Position


class FramesCut(Struct, frozen=True, gc=False):
    """The coordinator's writer has made these frames durable, and the store has applied them."""

    frames: tuple[Frame, ...]


class Diverged(Struct, frozen=True, gc=False):
    """The store found that it isn't what the coordinator's was; nothing of the last `Apply` was committed."""

    why: str


class DeadlineReached(Struct, frozen=True, gc=False):
    """The last `SetDeadline` is due."""


Event = (
    Started
    | PeerUp
    | PeerLost
    | DialFailed
    | MessageReceived
    | LinkWritable
    | Applied
    | FramesCut
    | Diverged
    | DeadlineReached
)


class Apply(Struct, frozen=True, gc=False):
    """Commit these frames, oldest first."""

    frames: tuple[Frame, ...]


class Empty(Struct, frozen=True, gc=False):
    """Throw the replica and its journal away: its history is not the network's."""


class Send(Struct, frozen=True, gc=False):
    peer: str
    message: Message


class Connect(Struct, frozen=True, gc=False):
    peer: str


class Disconnect(Struct, frozen=True, gc=False):
    peer: str
    why: str


class AwaitWritable(Struct, frozen=True, gc=False):
    """More is ready for this peer than its link takes now."""

    peer: str


class OpenEpoch(Struct, frozen=True, gc=False):
    """At the coordinator, once: it stands where the network stands and may begin a history of its own."""

    epoch: int


class RefuseWrites(Struct, frozen=True, gc=False):
    """At the coordinator: it may not write, for this reason, which names the cure."""

    why: str


class SetDeadline(Struct, frozen=True, gc=False):
    at_ms: float


class Report(Struct, frozen=True, gc=False):
    """Something an operator may want to know: `what` is a stable word, `detail` one line."""

    what: str
    detail: str


Effect = (
    Apply | Empty | Send | Connect | Disconnect | AwaitWritable | OpenEpoch | RefuseWrites | SetDeadline | Report
)

UNSENT_BYTES_MAX: Final = 128 * 1024
"""A link with this much unsent is full; what the kernel is told as TCP_NOTSENT_LOWAT."""


class JournalPort(Protocol):
    """What the core may read of the store; all of it as of the last `Applied`."""

    @property
    def position(self) -> Position: ...

    @property
    def horizon_seq(self) -> int:
        """The lowest seq after which the journal has every frame."""

    def frames_after(self, seq: int, bytes_max: int) -> Sequence[Frame]:
        """Frames from seq + 1 on, at least one unless seq is the head; raises BeyondHorizon."""

    def holds(self, position: Position) -> bool:
        """Whether this position is a frame end of our own history, as far as the journal tells."""

    def end_before(self, seq: int) -> Position | None:
        """The last frame end of our own history at or below this seq; None where the journal can't tell."""


class LinkPort(Protocol):
    """What the core may ask of the links."""

    def unsent_bytes(self, peer: str) -> int:
        """Bytes handed over for this peer and not yet taken by the network; 0 for an unknown peer."""
