"""The asyncio driver of one node's protocol: feed, send, commit, act.

What the core orders within one loop turn is carried out at the turn's end: first everything to send, in one
message per link (forwarding rests on the chain check alone), then chunks to store and all frames to apply, in
one transaction each, and only after it whatever speaks of the new position. The core is never entered twice:
events that come while it handles one wait their turn. Pages and the proof of a successor have turns of their
own (successor.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from math import ceil, inf
from typing import Any, Final, Protocol, assert_never

from kvnet.core.events import (
    AbandonBootstrap,
    AcksCame,
    Applied,
    Apply,
    AwaitWritable,
    BeginBootstrap,
    BulkSend,
    ChunksLacking,
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
    PeerLost,
    PeerUp,
    RefuseWrites,
    Report,
    Send,
    SendChunk,
    SendPage,
    SetDeadline,
    Started,
    StoreChunk,
    StorePage,
)
from kvnet.core.frames import Frame
from kvnet.core.messages import Ack, Frames, Message
from kvnet.core.versions import GENESIS, Position, Version
from kvnet.errors import ChunksMissing, Divergence, ProtocolError, StorageDamaged, StorageFull
from kvnet.runtime.bulk import BulkLane
from kvnet.runtime.successor import PagedStore, SuccessorWork
from kvnet.runtime.waiters import Waiters
from kvnet.transport.links import LinkEvents
from kvnet.transport.notices import Notices
from kvnet.transport.shaping import monotonic_ms

PENDING_BYTES_MAX: Final = 16 * 1024 * 1024
"""Frames kept while the disk is full; beyond it a peer that sends more is disconnected."""
FULL_RETRY_FIRST_S: Final = 0.1
FULL_RETRY_MAX_S: Final = 5.0
ERASE_INTERVAL_S: Final = 0.05
"""Pause between two bites of a deleted namespace."""
ALARMS: Final = frozenset({"forked", "diverged", "damaged", "clock", "rival"})
"""Reports that a person must see."""

_log = logging.getLogger(__name__)


class Core(Protocol):
    """`core.replica.Replica`, as far as the driver knows it."""

    @property
    def name(self) -> str: ...
    def handle(self, event: Event, now_ms: float) -> list[Effect]: ...


class DrivenStore(PagedStore, Protocol):
    """`storage.store.Store`, as far as the driver knows it."""

    @property
    def bootstrap(self) -> object | None:
        """Not None while frames go to a successor's journal."""

    def put_chunks(self, stored: Sequence[tuple[bytes, bytes]]) -> None: ...
    def apply(self, frames: Sequence[Frame]) -> Position: ...
    def reset(self) -> None: ...
    def look_again(self) -> None:
        """Have whoever remembers answers ask anew whether this replica may serve."""

    def erase_some(self, budget: int = ...) -> bool: ...


class DrivenLinks(Protocol):
    """`transport.links.PeerLinks`, as far as the driver knows it."""

    def listen(self, events: LinkEvents) -> None: ...
    def connect(self, peer: str) -> None: ...
    def disconnect(self, peer: str, why: str) -> None: ...
    def send(self, peer: str, message: Message) -> None: ...
    def flush(self) -> None: ...
    def await_writable(self, peer: str) -> None: ...


class Commands(Protocol):
    """What the core orders of the coordinator's writer, and what any node hears of its driver."""

    def open_epoch(self, epoch: int) -> None: ...
    def refuse_writes(self, why: str) -> None: ...
    def offer_settled(self, id_: bytes) -> None: ...
    def acks_came(self, acks: Sequence[Ack]) -> None: ...
    def emptied(self) -> None:
        """The replica was thrown away: it must not serve until it stands where the network stands again."""

    def broken(self, error: BaseException) -> None:
        """An assertion failed or the disk is gone: the node must stop, its state can't be trusted."""


class Driver:
    """Runs one core over one store and one set of links; all of it in the loop's thread."""

    def __init__(
        self,
        core: Core,
        store: DrivenStore,
        links: DrivenLinks,
        bulk: BulkLane,
        commands: Commands,
        *,
        on_applied: Callable[[Sequence[Frame], Position, float], None],
        erases: bool = True,
        now_ms: Callable[[], float] = monotonic_ms,
    ) -> None:
        """`on_applied` hears of every commit: its frames, where it ends, and its wall time in milliseconds.

        `erases` is False where another thread writes the store as well, and erases what is to be erased.
        """
        self._core = core
        self._store = store
        self._links = links
        self._bulk = bulk
        self._commands = commands
        self._on_applied = on_applied
        self._erases = erases
        self._now_ms = now_ms
        self._inbox: deque[Event] = deque()
        self._handling = False
        self._stopped = False
        self._turn: asyncio.Handle | None = None
        self._frames: list[Frame] = []
        self._frames_bytes = 0
        self._reset_due = False
        self._retry: asyncio.TimerHandle | None = None
        self._retry_s = FULL_RETRY_FIRST_S
        self._deadline: asyncio.TimerHandle | None = None
        self._deadline_ms = inf
        self._armed_ms = inf
        self._resetting: asyncio.TimerHandle | None = None
        self._erasing: asyncio.TimerHandle | None = None
        self._chunks: list[StoreChunk] = []
        self._lacking: tuple[bytes, ...] = ()
        """The chunks that the next frame waits for."""
        self._successor = SuccessorWork(
            store,
            bulk,
            feed=self.feed,
            adopted=self._on_adopted,
            damaged=self.damaged,
            report=self._report,
            broken=self._break,
        )
        self._waiters = Waiters()
        self._notices = Notices(_log)
        self.reports: Counter[str] = Counter()
        """How often the core reported what, and the driver's own: storage_full, diverged."""
        self.damage = ""
        """What was last found damaged or diverged; whoever sees the replica whole again empties it."""

    # -- life ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Listen to the links and let the core dial."""
        self._links.listen(self)
        self._bulk.listen(self.feed)
        self.feed(Started())
        self._erase()

    def stop(self) -> None:
        """Commit what is pending if the disk takes it, and do nothing more. Waiting clients time out."""
        if self._stopped:
            return
        if self._frames and not self._reset_due:
            try:
                self._commit()
            except (StorageFull, Divergence, ProtocolError, ChunksMissing) as error:
                _log.warning("the last frames were not applied, they will be fetched again: %s", error)
        self._stopped = True
        self._successor.stop()
        for handle in (self._turn, self._retry, self._deadline, self._resetting, self._erasing):
            if handle is not None:
                handle.cancel()

    @property
    def full(self) -> bool:
        """Whether the disk has refused frames and not yet taken them."""
        return self._retry is not None

    @property
    def is_emptying(self) -> bool:
        """Whether the replica is to be thrown away and isn't yet: nobody may see it any more."""
        return self._reset_due

    def status(self) -> dict[str, Any]:
        """What `/status` tells about this part."""
        return {
            "storage_full": self.full,
            "frames_pending": len(self._frames),
            "chunks_lacking": len(self._lacking),
            "reports": dict(self.reports),
        }

    async def wait_for(self, version: Version, timeout_ms: float) -> bool:
        """Return whether this replica has `version` before the time is over."""
        return await self._waiters.wait(version, self._store.position, timeout_ms)

    # -- events ----------------------------------------------------------------------------------------------

    def feed(self, event: Event) -> None:
        """Have the core handle this after all that came before, and carry out what it orders."""
        self._inbox.append(event)
        if self._handling or self._stopped:
            return
        self._handling = True
        try:
            while self._inbox:
                event = self._inbox.popleft()
                try:
                    effects = self._core.handle(event, self._now_ms())
                except StorageDamaged as damage:  # in the journal, from which the core reads
                    if isinstance(event, Diverged):
                        raise
                    self.damaged(damage)
                    continue
                for effect in effects:
                    self._carry_out(effect)
                if type(event) is FramesCut:
                    self._waiters.release(self._store.position)
        except Exception as error:  # noqa: BLE001 - whatever it is, the node must not go on with half an effect
            self._break(error)
        finally:
            self._handling = False

    def on_up(self, peer: str, rtt_ms: float) -> None:
        self.feed(PeerUp(peer, rtt_ms))

    def on_lost(self, peer: str) -> None:
        self.feed(PeerLost(peer))

    def on_dial_failed(self, peer: str) -> None:
        self.feed(DialFailed(peer))

    def on_writable(self, peer: str) -> None:
        self.feed(LinkWritable(peer))

    def on_messages(self, peer: str, messages: list[Message]) -> None:
        if self._frames_bytes > PENDING_BYTES_MAX and any(type(message) is Frames for message in messages):
            self._links.disconnect(peer, "the disk is full, no more frames can be kept")
            return
        for message in messages:
            self.feed(MessageReceived(peer, message))

    # -- effects ---------------------------------------------------------------------------------------------

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Send(peer, message):
                self._links.send(peer, message)
                self._end_turn_soon()
            case Apply(frames):
                self._frames.extend(frames)
                self._frames_bytes += sum(len(frame.data) for frame in frames)
                self._end_turn_soon()
            case SetDeadline(at_ms):
                self._set_deadline(at_ms)
            case Connect(peer):
                self._links.connect(peer)
            case Disconnect(peer, why):
                self._links.disconnect(peer, why)
            case AwaitWritable(peer):
                self._links.await_writable(peer)
            case Report(what, detail):
                self._report(what, detail)
            case DropUnapplied():
                self._forget_pending()
            case Empty():
                self._forget_pending()
                self._reset_due = True
                self._store.look_again()
                self._end_turn_soon()
            case BulkSend(peer, bulk_message):
                self._bulk.send(peer, bulk_message)
                self._end_turn_soon()
            case SendChunk(peer, name):
                self._bulk.send_chunk(peer, name)
            case StoreChunk():
                self._chunks.append(effect)
                self._end_turn_soon()
            case SendPage(peer, after):
                self._successor.send_page(peer, after)
            case BeginBootstrap(position):
                self._forget_pending()
                self._successor.begin(position)
            case StorePage(page):
                self._successor.store_page(page)
            case FinishBootstrap(until, digest):
                self._successor.finish(until, digest)
            case AbandonBootstrap():
                self._forget_pending()
                self._successor.abandon()
            case OfferSettled(id_):
                self._commands.offer_settled(id_)
            case AcksCame(acks):
                self._commands.acks_came(acks)
            case OpenEpoch(epoch):
                self._commands.open_epoch(epoch)
            case RefuseWrites(why):
                self._commands.refuse_writes(why)
            case _:
                assert_never(effect)

    def _report(self, what: str, detail: str) -> None:
        self.reports[what] += 1
        level = logging.ERROR if what in ALARMS else logging.INFO
        self._notices.say(what, detail.partition(" ")[0], detail, level=level)  # a peer's name comes first

    def _end_turn_soon(self) -> None:
        if self._turn is None:
            self._turn = asyncio.get_running_loop().call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._turn = None
        try:
            self._links.flush()
            self._bulk.flush()
            if self._reset_due:
                self._reset()
            if self._reset_due:
                return
            if self._chunks:
                self._store_chunks()
            if self._frames and self._retry is None and not self._lacking:
                self._apply()
        except Exception as error:  # noqa: BLE001 - as above
            self._break(error)

    # -- the store -------------------------------------------------------------------------------------------

    def _apply(self) -> None:
        try:
            position = self._commit()
        except StorageFull as error:
            self._report("storage_full", f"frames wait in memory: {error}")
            loop = asyncio.get_running_loop()
            self._retry = loop.call_later(self._retry_s, self._try_again)
            self._retry_s = min(FULL_RETRY_MAX_S, self._retry_s * 2)
            return
        except (Divergence, ProtocolError) as error:
            self._forget_pending()
            self.damage = str(error)
            self._report("diverged", f"starting over: {error}")
            self.feed(Diverged(str(error)))
            return
        except ChunksMissing as missing:
            self._lacking = missing.hashes
            self.feed(ChunksLacking(missing.hashes))
            return
        self._retry_s = FULL_RETRY_FIRST_S
        self.feed(Applied(position))
        self._waiters.release(self._store.position)

    def _commit(self) -> Position:
        """Apply the frames that are pending, or those of them that can be.

        Raises:
            ChunksMissing: not even the first one can.
        """
        frames = self._frames
        try:
            position = self._store.apply(frames)
        except ChunksMissing as missing:
            if not missing.applicable:
                raise
            frames = frames[: missing.applicable]
            position = self._store.apply(frames)
            self._end_turn_soon()
        self._frames = self._frames[len(frames) :]
        self._frames_bytes = sum(len(frame.data) for frame in self._frames)
        if self._store.bootstrap is None:  # else readers don't see it yet
            self._on_applied(frames, position, time.time() * 1000)
            if self._erasing is None:
                self._erase()
        return position

    def _store_chunks(self) -> None:
        """Store the chunks that came in this turn, together if all are what their names say."""
        chunks, self._chunks = self._chunks, []
        try:
            self._store.put_chunks([(chunk.hash, chunk.data) for chunk in chunks])
        except ProtocolError:
            if len(chunks) > 1:
                for chunk in chunks:
                    self._chunks = [chunk]
                    self._store_chunks()
                return
            self.feed(ChunkStored(chunks[0].hash, ok=False))
            return
        except StorageFull as error:
            self._report("storage_full", f"chunks are given up, they will be asked for again: {error}")
            for chunk in chunks:
                self.feed(ChunkStored(chunk.hash, ok=False))
            return
        for chunk in chunks:
            self.feed(ChunkStored(chunk.hash, ok=True))
        self._successor.chunks_came()
        stored = {chunk.hash for chunk in chunks}
        self._lacking = tuple(name for name in self._lacking if name not in stored)
        if self._frames and not self._lacking:
            self._end_turn_soon()

    def _on_adopted(self, position: Position) -> None:
        """Readers see another replica, which has come further."""
        self._on_applied([], position, time.time() * 1000)
        self._waiters.release(position)

    def damaged(self, damage: StorageDamaged) -> None:
        """The replica isn't what was written: nothing of it is served or given any more, and it is made anew."""
        self._forget_pending()
        self.damage = str(damage)
        self._report("damaged", f"starting over: {damage}")
        self.feed(Diverged(str(damage)))

    def _try_again(self) -> None:
        self._retry = None
        self._end_turn()

    def _forget_pending(self) -> None:
        self._frames = []
        self._frames_bytes = 0
        self._lacking = ()

    def _reset(self) -> None:
        self._successor.emptied()
        try:
            self._store.reset()
        except StorageFull as error:
            self._report("storage_full", f"a replica that must be thrown away stays: {error}")
            if self._resetting is None:
                self._resetting = asyncio.get_running_loop().call_later(FULL_RETRY_MAX_S, self._try_resetting)
            return
        self._reset_due = False
        self._commands.emptied()
        self.feed(Applied(GENESIS))

    def _try_resetting(self) -> None:
        self._resetting = None
        self._end_turn()

    def _erase(self) -> None:
        """Take a bite of what deleted namespaces left behind, and come back for the rest."""
        self._erasing = None
        if not self._erases:
            return
        try:
            left = self._store.erase_some()
        except StorageFull as error:  # erasing needs room as well: copy on write
            self._report("storage_full", f"deleted namespaces stay on the disk: {error}")
            left = True
        except Exception as error:  # noqa: BLE001 - as above
            self._break(error)
            return
        if left:
            self._erasing = asyncio.get_running_loop().call_later(ERASE_INTERVAL_S, self._erase)

    # -- time ------------------------------------------------------------------------------------------------

    def _set_deadline(self, at_ms: float) -> None:
        """Keep one timer; one that is armed for an earlier time stays and is moved on when it fires."""
        self._deadline_ms = at_ms
        if at_ms < self._armed_ms:
            if self._deadline is not None:
                self._deadline.cancel()
            self._arm()

    def _arm(self) -> None:
        ticks = ceil(max(0.0, self._deadline_ms - self._now_ms()))  # uvloop's timers are whole milliseconds
        self._deadline = asyncio.get_running_loop().call_later(ticks / 1000, self._on_timer)
        self._armed_ms = self._deadline_ms

    def _on_timer(self) -> None:
        self._deadline = None
        self._armed_ms = inf
        if self._deadline_ms <= self._now_ms():
            self._deadline_ms = inf
            self.feed(DeadlineReached())
        elif self._deadline_ms < inf:
            self._arm()

    def _break(self, error: BaseException) -> None:
        self._stopped = True
        _log.critical("the protocol's driver is broken and stops", exc_info=error)
        self._commands.broken(error)
