"""What happens in a world, as lines that read like a conversation.

       ms       node         what
    1234.567    nrt          -> hkg Frames 1-20..1-22
    1234.567    nrt          applied 1-22

Same seed, same lines.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from kvnet.core.entries import NAMESPACE_ID_BYTES
from kvnet.core.events import (
    AbandonBootstrap,
    AcksCame,
    Applied,
    AwaitWritable,
    BeginBootstrap,
    BootstrapFailed,
    Bootstrapped,
    BulkLost,
    BulkReceived,
    BulkSend,
    ChunksLacking,
    ChunksReady,
    ChunkStored,
    Connect,
    DeadlineReached,
    DialFailed,
    Disconnect,
    Diverged,
    DropUnapplied,
    Effect,
    Empty,
    Event,
    FinishBootstrap,
    FramesCut,
    LinkWritable,
    MessageReceived,
    OfferSettled,
    OpenEpoch,
    PageSent,
    PageStored,
    PageUnusable,
    PeerLost,
    PeerUp,
    ReceiptsWanted,
    RefuseWrites,
    Report,
    SendChunk,
    SendPage,
    Started,
    StoreChunk,
    StorePage,
)
from kvnet.core.frames import read_span
from kvnet.core.messages import (
    NO_WAY_MS,
    Acks,
    Advert,
    Ask,
    Beacon,
    Chunk,
    ChunkMissing,
    ChunksWanted,
    Frames,
    Holds,
    Message,
    Move,
    Offer,
    Page,
    PagesCredit,
    PagesRefused,
    PagesWanted,
    Refused,
    Subscribe,
    Unsubscribe,
)
from kvnet.errors import ProtocolError
from kvnet.simulator.node import SimulatedNode


class Trace:
    """Writes one line for everything that a node is told, orders or says."""

    def __init__(self, write: Callable[[str], None], *, only: Collection[str] = ()) -> None:
        """`write` is given each line, without its end; `only` names the nodes to write of, all by default."""
        self._write = write
        self._only = frozenset(only)

    def on_event(self, node: SimulatedNode, event: Event) -> None:
        if isinstance(event, MessageReceived | BulkReceived):
            self._say(node, f"<- {event.peer} {told(event.message)}")
        elif type(event) is not DeadlineReached:
            self._say(node, _happened(event))

    def on_effect(self, node: SimulatedNode, effect: Effect) -> None:
        self._say(node, _ordered(effect))

    def on_send(self, node: SimulatedNode, peer: str, message: Message) -> None:
        self._say(node, f"-> {peer} {told(message)}")

    def on_fault(self, now_ms: float, text: str) -> None:
        """Write what is done to the world itself."""
        self._write(f"{now_ms:12.3f}  {'':12} ** {text}")

    def _say(self, node: SimulatedNode, text: str) -> None:
        if not self._only or node.id in self._only:
            self._write(f"{node.world.now:12.3f}  {node.id:12} {text}")


def _happened(event: Event) -> str:
    match event:
        case Applied(position):
            return f"applied {position}"
        case FramesCut(frames):
            return f"made durable {frames[-1].position}"
        case ReceiptsWanted(until_ms):
            return f"hears that receipts are wanted until {until_ms:.0f} ms"
        case PeerUp(peer):
            return f"linked with {peer}"
        case PeerLost(peer):
            return f"lost {peer}"
        case DialFailed(peer):
            return f"could not reach {peer}"
        case LinkWritable(peer):
            return f"has room for {peer} again"
        case Diverged(why):
            return f"diverged: {why}"
        case BulkLost(peer):
            return f"lost the bulk link with {peer}"
        case PageSent(peer, until):
            return f"gave {peer} a page up to {_place(until) if until else 'the end'}"
        case PageStored(until):
            return f"stored a page up to {_place(until) if until else 'the end'}"
        case PageUnusable(why):
            return f"couldn't use a page: {why}"
        case Bootstrapped(position):
            return f"is made anew at {position}"
        case BootstrapFailed(why):
            return f"was made anew in vain: {why}"
        case ChunkStored(name, ok):
            return f"{'stored' if ok else 'threw away'} chunk {name[:4].hex()}"
        case ChunksLacking(hashes) | ChunksReady(_, hashes):
            return f"{type(event).__name__} {' '.join(name[:4].hex() for name in hashes)}"
        case Started():
            return "started"
        case _:
            return str(event)


def _ordered(effect: Effect) -> str:
    match effect:
        case Connect(peer):
            return f"dials {peer}"
        case Disconnect(peer, why):
            return f"hangs up on {peer}: {why}"
        case AwaitWritable(peer):
            return f"waits for room for {peer}"
        case Empty():
            return "throws its replica away"
        case DropUnapplied():
            return "forgets what it hasn't applied"
        case OpenEpoch(epoch):
            return f"opens epoch {epoch}"
        case RefuseWrites(why):
            return f"refuses to write: {why}"
        case Report(what, detail):
            return f"reports {what}: {detail}"
        case BulkSend(peer, message):
            return f"says to {peer} in bulk: {told(message)}"
        case StorePage(page):
            return f"stores {told(page)}"
        case StoreChunk(name) | SendChunk(_, name):
            return f"{type(effect).__name__} {name[:4].hex()}"
        case BeginBootstrap(position):
            return f"begins to be made anew from {position}"
        case AbandonBootstrap():
            return "gives up what it was being made of"
        case SendPage(peer, after):
            return f"reads a page for {peer} behind {_place(after)}"
        case OfferSettled(id_):
            return f"finds offer {id_[:4].hex()} settled"
        case AcksCame(acks):
            return f"hears {told(Acks(acks))}"
        case FinishBootstrap(until):
            return f"proves what it was made of, up to {until}"
        case _:
            return str(effect)


def told(message: Message) -> str:
    """Return a message in a few words."""
    match message:
        case Frames(frames):
            return f"Frames {_span(frames)}"
        case Beacon(beacon, head_seq):
            extra = ">".join(message.path) + " acks!" * message.wants_receipts
            return f"Beacon {beacon.epoch}:{beacon.number} head {head_seq} {message.latency_ms:.1f} ms {extra}"
        case Advert(position, beacon, latency_ms):
            extra = " full" * message.full + " answer!" * message.wants_echo
            way = f"{latency_ms:.1f} ms" if latency_ms < NO_WAY_MS else "no way"
            return f"Advert {position} {beacon.epoch}:{beacon.number} {way}{extra}"
        case Ask(epoch, seq, beacon, ladder):
            return f"Ask after {epoch}-{seq} {beacon.epoch}:{beacon.number}{' from afar' * ladder}"
        case Subscribe(position, late):
            return f"Subscribe {position}{' late' * late}"
        case Unsubscribe():
            return "Unsubscribe"
        case Refused(reason, position):
            return f"Refused {reason.name} at {position}"
        case Move():
            return "Move"
        case Offer(id_, chunks):
            return f"Offer {id_[:4].hex()} of {len(chunks)} chunks"
        case Holds(id_):
            return f"Holds {id_[:4].hex()}"
        case Acks(acks):
            return f"Acks {' '.join(f'{ack.member} {ack.version}' for ack in acks)}"
        case PagesWanted(after, credit):
            return f"PagesWanted {credit} behind {_place(after)}"
        case PagesCredit(credit):
            return f"PagesCredit {credit}"
        case Page(position, _, after, until):
            return f"Page {_place(after)}..{_place(until) if until else 'end'} as of {position}"
        case PagesRefused(position):
            return f"PagesRefused at {position}"
        case ChunksWanted(hashes):
            return f"ChunksWanted {' '.join(name[:4].hex() for name in hashes)}"
        case Chunk(name, data):
            return f"Chunk {name[:4].hex()} of {len(data)} bytes"
        case ChunkMissing(name):
            return f"ChunkMissing {name[:4].hex()}"


def _place(place: bytes) -> str:
    return (
        f"{place[:4].hex()}/{place[NAMESPACE_ID_BYTES:].decode(errors='backslashreplace')}" if place else "start"
    )


def _span(frames: tuple[bytes, ...]) -> str:
    try:
        return f"{read_span(frames[0])[0]}..{read_span(frames[-1])[1]}"
    except (ProtocolError, IndexError):
        return f"({len(frames)} unreadable)"
