"""Events go in, effects come out. Order is the contract.

The driver (asyncio or simulated) feeds one event at a time and carries out the effects in the order given:

- `Send` may be carried out at once, also for frames that are not applied yet: forwarding rests on the chain
  check alone. It may be lost with its link; then `PeerLost` comes.
- `Apply` must end in exactly one `Applied` event, after the transaction is committed (durable where the node's
  durability says so), or in `Diverged`. The driver may commit several in one transaction. Whatever speaks of a
  position (adverts, answers) is only sent after the core has seen that event.
- `Empty` likewise ends in `Applied(GENESIS)`.
- `DropUnapplied` takes back every `Apply` that hasn't ended in `Applied` yet, whatever chunks it waits for; no
  event answers it.
- `Connect` ends in `PeerUp` or `DialFailed`; repeating it while a link is up or being dialled does nothing.
- `AwaitWritable` ends in one `LinkWritable` as soon as the link has room (at once, in a later turn, if it has it
  already), or in `PeerLost`.
- `SetDeadline` replaces the deadline before it; a spurious or late `DeadlineReached` is harmless.
- `BulkSend` dials the peer's second link when there is none; messages to one peer keep their order. `BulkLost`
  tells that it is gone or couldn't be made, with all that was under way on it in both directions.
- From `BeginBootstrap` on there is a *successor*, an empty replica whose journal begins at that position.
  `Apply` then adds to its journal, the records aren't touched, and `Applied` speaks of that journal; readers
  keep what they have. `FinishBootstrap` has it replayed and, if its digest is right, put in the place of the
  old replica: it ends in one `Bootstrapped`, or in `BootstrapFailed`. `AbandonBootstrap` and `Empty` throw it
  away, with what is under way.
- `SendPage` ends in one `PageSent`, `StorePage` in one `PageStored` after its commit; a page that can't be used
  ends in `PageUnusable`.
- `SendChunk` is carried out when the peer's bulk link has room; a chunk that isn't here is answered with
  `ChunkMissing`. `StoreChunk` ends in one `ChunkStored`.
- An `Apply` that needs chunks which aren't here waits for them, after one `ChunksLacking`; what lies before
  them is applied and reported as ever.
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
from kvnet.core.messages import Ack, BulkMessage, Message, Page
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


class BulkReceived(Struct, frozen=True, gc=False):
    peer: str
    message: BulkMessage


class BulkLost(Struct, frozen=True, gc=False):
    """The bulk link is gone, or couldn't be made."""

    peer: str


class PageSent(Struct, frozen=True, gc=False):
    """A page has left for this peer."""

    peer: str
    until: bytes
    """Where it ends; b"" for the end of everything."""


class PageStored(Struct, frozen=True, gc=False):
    """The successor has the records of this page."""

    until: bytes


class PageUnusable(Struct, frozen=True, gc=False):
    """The page was cut, altered, or doesn't continue what the successor has; nothing of it was stored."""

    why: str


class Bootstrapped(Struct, frozen=True, gc=False):
    """The successor has taken the old replica's place, verified, and stands at this position."""

    position: Position


class BootstrapFailed(Struct, frozen=True, gc=False):
    """What the successor came to isn't what the coordinator's replica was."""

    why: str


class ChunkStored(Struct, frozen=True, gc=False):
    hash: bytes
    ok: bool
    """Whether it was what its hash says."""


class ChunksLacking(Struct, frozen=True, gc=False):
    """What is to be applied next needs these chunks."""

    hashes: tuple[bytes, ...]


class ChunksReady(Struct, frozen=True, gc=False):
    """At the coordinator: the chunks of a large value are durable here and shall be offered to all."""

    id: bytes
    chunks: tuple[bytes, ...]


class ReceiptsWanted(Struct, frozen=True, gc=False):
    """At the coordinator: somebody waits until members have a write, until this time at most."""

    until_ms: float


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
    | BulkReceived
    | BulkLost
    | PageSent
    | PageStored
    | PageUnusable
    | Bootstrapped
    | BootstrapFailed
    | ChunkStored
    | ChunksLacking
    | ChunksReady
    | ReceiptsWanted
)


class Apply(Struct, frozen=True, gc=False):
    """Commit these frames, oldest first."""

    frames: tuple[Frame, ...]


class Empty(Struct, frozen=True, gc=False):
    """Throw the replica and its journal away: its history is not the network's."""


class DropUnapplied(Struct, frozen=True, gc=False):
    """Forget the frames that were to be applied and aren't: another history goes on from what is."""


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


class BulkSend(Struct, frozen=True, gc=False):
    peer: str
    message: BulkMessage


class BeginBootstrap(Struct, frozen=True, gc=False):
    """Begin a successor with nothing in it, in place of one that was begun before."""

    position: Position
    """Where its journal begins."""


class StorePage(Struct, frozen=True, gc=False):
    """Put a page into the successor, instead of whatever it has in that range."""

    page: Page


class FinishBootstrap(Struct, frozen=True, gc=False):
    """Replay the successor's journal, compare its digest, and have it serve."""

    until: Position
    """The highest position on any of its pages: from there on every frame's digest must be right."""
    digest: bytes
    """The donor's there."""


class AbandonBootstrap(Struct, frozen=True, gc=False):
    """Throw the successor away."""


class SendPage(Struct, frozen=True, gc=False):
    """Read the page behind this place and send it."""

    peer: str
    after: bytes


class SendChunk(Struct, frozen=True, gc=False):
    peer: str
    hash: bytes


class StoreChunk(Struct, frozen=True, gc=False):
    hash: bytes
    data: bytes


class OfferSettled(Struct, frozen=True, gc=False):
    """At the coordinator: all members that answer hold these chunks, or their time is over."""

    id: bytes


class AcksCame(Struct, frozen=True, gc=False):
    """At the coordinator: these members have come so far. It may come unwanted."""

    acks: tuple[Ack, ...]


class Report(Struct, frozen=True, gc=False):
    """Something an operator may want to know: `what` is a stable word, `detail` one line."""

    what: str
    detail: str


Effect = (
    Apply
    | Empty
    | DropUnapplied
    | Send
    | Connect
    | Disconnect
    | AwaitWritable
    | OpenEpoch
    | RefuseWrites
    | SetDeadline
    | Report
    | BulkSend
    | BeginBootstrap
    | StorePage
    | FinishBootstrap
    | AbandonBootstrap
    | SendPage
    | SendChunk
    | StoreChunk
    | OfferSettled
    | AcksCame
)

UNSENT_BYTES_MAX: Final = 128 * 1024
"""A link with this much unsent is full; what the kernel is told as TCP_NOTSENT_LOWAT."""


class BootstrapProgress(Struct, frozen=True, gc=False):
    """How far a successor has come, as its disk tells it after a restart."""

    start: Position
    """Where its journal began: the lowest position of any page."""
    until: bytes
    """The last place it has; b"" before the first page."""
    whole: bool
    """The last page is there."""
    highest: Position
    """The highest position on any page."""
    digest: bytes
    """The donor's there."""


class JournalPort(Protocol):
    """What the core may read of the store; all of it as of the last `Applied`.

    While there is a successor, the journal's part (from `position` on) is the successor's.
    """

    @property
    def served(self) -> Position:
        """Where the replica stands that readers see; without a successor the same as `position`."""

    @property
    def verified(self) -> bool:
        """Whether the replica that readers see was ever proven equal to the network's: it may give pages."""

    @property
    def bootstrap(self) -> BootstrapProgress | None:
        """The successor's progress; None when there is none."""

    def lacking_chunks(self, hashes: Sequence[bytes]) -> list[bytes]:
        """Those of these chunks that aren't stored here, each once, in the same order."""

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
