from __future__ import annotations

from typing import get_args

from kvnet.core import events as core_events
from kvnet.core import messages as core_messages
from kvnet.core.events import (
    AbandonBootstrap,
    AcksCame,
    Applied,
    Apply,
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
    Empty,
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
    Send,
    SendChunk,
    SendPage,
    SetDeadline,
    Started,
    StoreChunk,
    StorePage,
)
from kvnet.core.messages import (
    Ack,
    Acks,
    Advert,
    Ask,
    Beacon,
    BeaconId,
    Chunk,
    ChunkMissing,
    ChunksWanted,
    Frames,
    Holds,
    Move,
    Offer,
    Page,
    PagesCredit,
    PagesRefused,
    PagesWanted,
    Reason,
    Refused,
    Subscribe,
    Unsubscribe,
)
from kvnet.core.versions import Position, Version
from kvnet.simulator.trace import Trace, told
from tests.support.frames import FrameMaker
from tests.support.worlds import make_world

MAKER = FrameMaker()
MAKER.open_epoch()
FRAME = MAKER.cut()
HERE = Position(1, 22, bytes.fromhex("0badcafe" * 4))
BEACON = BeaconId(1, 7)
PLACE = b"n" * 16 + b"key"
CHUNK = b"chnk" * 8

MESSAGES = {
    "Frames 1..1": Frames((FRAME.data,)),
    "Frames (1 unreadable)": Frames((b"nonsense",)),
    "Frames (0 unreadable)": Frames(()),
    "Beacon 1:7 head 22 12.5 ms coordinator>fra": Beacon(BEACON, 22, 5.0, 500, 12.5, 0.0, ("coordinator", "fra")),
    "Advert 1-22:0badcafe 1:7 12.5 ms": Advert(HERE, BEACON, 12.5, (), 3, False, 1.0, -1.0, 0.0, False),
    "Advert 1-22:0badcafe 1:7 12.5 ms full answer!": Advert(HERE, BEACON, 12.5, (), 3, True, 1.0, 2.0, 3.0, True),
    "Ask after 1-22 1:7": Ask(1, 22, BEACON, False),
    "Ask after 1-22 1:7 from afar": Ask(1, 22, BEACON, True),
    "Subscribe 1-22:0badcafe": Subscribe(HERE, False),
    "Subscribe 1-22:0badcafe late": Subscribe(HERE, True),
    "Unsubscribe": Unsubscribe(),
    "Refused HORIZON at 1-22:0badcafe": Refused(Reason.HORIZON, HERE, 1),
    "Move": Move(),
    "Offer 6f666665 of 2 chunks": Offer(b"offer-number-one", (CHUNK, CHUNK)),
    "Holds 6f666665": Holds(b"offer-number-one"),
    "Acks fra 1-7 nrt 1-5": Acks((Ack("fra", BEACON, Version(1, 7)), Ack("nrt", BeaconId(1, 3), Version(1, 5)))),
    "PagesWanted 96 behind start": PagesWanted(b"", 96),
    "PagesWanted 96 behind 6e6e6e6e/key": PagesWanted(PLACE, 96),
    "PagesCredit 8": PagesCredit(8),
    "Page start..6e6e6e6e/key as of 1-22:0badcafe": Page(HERE, bytes(16), b"", PLACE, b"body"),
    "Page 6e6e6e6e/key..end as of 1-22:0badcafe": Page(HERE, bytes(16), PLACE, b"", b"body"),
    "PagesRefused at 1-22:0badcafe": PagesRefused(HERE),
    "ChunksWanted 63686e6b 63686e6b": ChunksWanted((CHUNK, CHUNK)),
    "Chunk 63686e6b of 4 bytes": Chunk(CHUNK, b"data"),
    "ChunkMissing 63686e6b": ChunkMissing(CHUNK),
}
EVENTS = {
    "applied 1-22:0badcafe": Applied(HERE),
    f"made durable {FRAME.position}": FramesCut((FRAME,)),
    "linked with fra": PeerUp("fra", 12.5),
    "lost fra": PeerLost("fra"),
    "could not reach fra": DialFailed("fra"),
    "has room for fra again": LinkWritable("fra"),
    "diverged: why": Diverged("why"),
    "started": Started(),
    "<- fra Move": MessageReceived("fra", Move()),
    "<- fra PagesCredit 8": BulkReceived("fra", PagesCredit(8)),
    "lost the bulk link with fra": BulkLost("fra"),
    "gave fra a page up to 6e6e6e6e/key": PageSent("fra", PLACE),
    "gave fra a page up to the end": PageSent("fra", b""),
    "stored a page up to 6e6e6e6e/key": PageStored(PLACE),
    "couldn't use a page: why": PageUnusable("why"),
    "is made anew at 1-22:0badcafe": Bootstrapped(HERE),
    "was made anew in vain: why": BootstrapFailed("why"),
    "stored chunk 63686e6b": ChunkStored(CHUNK, True),
    "threw away chunk 63686e6b": ChunkStored(CHUNK, False),
    "ChunksLacking 63686e6b": ChunksLacking((CHUNK,)),
    "hears that receipts are wanted until 1500 ms": ReceiptsWanted(1500.0),
    "ChunksReady 63686e6b": ChunksReady(b"offer-number-one", (CHUNK,)),
}
ORDERS = {
    "dials fra": Connect("fra"),
    "hangs up on fra: why": Disconnect("fra", "why"),
    "waits for room for fra": AwaitWritable("fra"),
    "throws its replica away": Empty(),
    "forgets what it hasn't applied": DropUnapplied(),
    "opens epoch 3": OpenEpoch(3),
    "refuses to write: why": RefuseWrites("why"),
    "reports late: no parent": Report("late", "no parent"),
    "says to fra in bulk: PagesCredit 8": BulkSend("fra", PagesCredit(8)),
    "begins to be made anew from 1-22:0badcafe": BeginBootstrap(HERE),
    "stores Page start..end as of 1-22:0badcafe": StorePage(Page(HERE, bytes(16), b"", b"", b"")),
    "proves what it was made of, up to 1-22:0badcafe": FinishBootstrap(HERE, bytes(16)),
    "gives up what it was being made of": AbandonBootstrap(),
    "reads a page for fra behind 6e6e6e6e/key": SendPage("fra", PLACE),
    "SendChunk 63686e6b": SendChunk("fra", CHUNK),
    "StoreChunk 63686e6b": StoreChunk(CHUNK, b"data"),
    "hears Acks fra 1-7": AcksCame((Ack("fra", BEACON, Version(1, 7)),)),
    "finds offer 6f666665 settled": OfferSettled(b"offer-number-one"),
}
UNTOLD = {Apply, Send, SetDeadline}
"""What follows from these is told: what was sent and applied."""


def lines_of(**options: object) -> tuple[list[str], Trace]:
    lines: list[str] = []
    return lines, Trace(lines.append, **options)


def test_every_message_is_told_in_a_few_words() -> None:
    assert {type(message) for message in MESSAGES.values()} == set(get_args(core_messages.Message))
    assert {text: told(message) for text, message in MESSAGES.items()} == {text: text for text in MESSAGES}


def test_every_event_is_one_line_but_the_ticking_of_clocks() -> None:
    assert {type(event) for event in EVENTS.values()} == {*get_args(core_events.Event)} - {DeadlineReached}
    lines, trace = lines_of()
    node = make_world(2, 1).root
    for event in EVENTS.values():
        trace.on_event(node, event)
    assert [line.split("coordinator  ", 1)[1] for line in lines] == list(EVENTS)
    trace.on_event(node, DeadlineReached())
    assert len(lines) == len(EVENTS)


def test_every_order_is_one_line() -> None:
    assert {type(effect) for effect in ORDERS.values()} == {*get_args(core_events.Effect)} - UNTOLD
    lines, trace = lines_of()
    node = make_world(2, 1).root
    for effect in ORDERS.values():
        trace.on_effect(node, effect)
    assert [line.split("coordinator  ", 1)[1] for line in lines] == list(ORDERS)


def test_a_line_tells_when_and_where_in_columns() -> None:
    lines, trace = lines_of()
    world = make_world(2, 1)
    world.run_until(1234.5678)
    trace.on_send(world.root, "fra", Move())
    trace.on_fault(5.0, "crash nodes=fra")
    assert lines == ["    1234.568  coordinator  -> fra Move", "       5.000               ** crash nodes=fra"]
    assert lines[0].index("->") == lines[1].index("**")


def test_only_the_nodes_that_were_asked_for_are_told_of_and_every_fault() -> None:
    world = make_world(2, 1)
    edge = next(name for name in world.nodes if name != "coordinator")
    lines, trace = lines_of(only=(edge,))
    trace.on_event(world.root, Started())
    trace.on_event(world.nodes[edge], Started())
    trace.on_fault(0.0, "crash")
    assert [line.split()[-1] for line in lines] == ["started", "crash"]


def test_a_world_writes_one_line_for_each_thing() -> None:
    lines: list[str] = []
    world = make_world(4, 1, trace=lines.append)
    world.start_all()
    world.run_until(3000)
    assert len(lines) > 50
    assert all("\n" not in line and len(line.split()) >= 3 for line in lines)
    assert [float(line[:12]) for line in lines] == sorted(float(line[:12]) for line in lines)
