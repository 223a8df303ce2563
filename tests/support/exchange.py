"""A few nodes that talk to each other, and a test that decides which message arrives next, and how often.

Beside kvnet/simulator, where a seed and a model of the network decide: here no order of arrival is left out that
connections allow. Links keep order, links among each other don't; a message may come again later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from kvnet.core.events import DialFailed, Event
from kvnet.core.messages import Advert, Ask, Beacon, Frames, Message, Subscribe, decode, encode
from tests.support.conversation import ROOT, Conversation
from tests.support.fold import Author, Fold

REPEATABLE = Advert | Ask | Beacon | Frames | Subscribe
"""What may arrive twice; the others are said once, and lost only with their link."""
RTT_MS = 20.0
STEP_MS = 50.0
REST_STEPS_MAX = 1200


class Node(Conversation):
    """A conversation that remembers the epoch it was told to open, however many events ago."""

    to_open: int | None = None

    def hear(self, event: Event) -> None:
        super().hear(event)
        if (epoch := self.opened()) is not None:
            self.to_open = epoch


class Exchange:
    """A coordinator with a real writer, edges, and what is under way between them."""

    def __init__(self, edges: tuple[str, ...]) -> None:
        self.author = Author()
        self.names = (ROOT, *edges)
        self.nodes: dict[str, Node] = {}
        self.under_way: dict[tuple[str, str], deque[Message]] = {}
        """By link and direction; a link that is up has both."""
        self.cuts: set[frozenset[str]] = set()
        self.repeated = 0
        for name in self.names:
            self.start(name)

    def start(self, name: str) -> None:
        """Start a node, again from what its disk has if it ran before."""
        before = self.nodes.get(name)
        for peer in self.names:
            self.unlink(name, peer)
        edges = self.names[1:]
        self.nodes[name] = Node(
            name,
            history=before.journal.frames if before else (),
            members=edges,
            root_links=edges,
            fresh=not before,
        )
        self.nodes[name].now = before.now if before else 1000.0

    # -- links

    def link(self, one: str, other: str) -> None:
        if (one, other) in self.under_way:
            return
        if frozenset((one, other)) in self.cuts:
            self.nodes[one].hear(DialFailed(other))
            return
        self.under_way[one, other] = deque()
        self.under_way[other, one] = deque()
        self.nodes[one].link(other, rtt_ms=RTT_MS)
        self.nodes[other].link(one, rtt_ms=RTT_MS)

    def unlink(self, one: str, other: str) -> None:
        """End the link, with all that is under way on it."""
        if self.under_way.pop((one, other), None) is not None:
            del self.under_way[other, one]
            self.nodes[one].lose(other)
            self.nodes[other].lose(one)

    # -- what happens

    def collect(self) -> None:
        """Put on its way what the nodes said, through the codec, and do what else they ordered."""
        for name, node in self.nodes.items():
            for peer, message in node.said():
                if (name, peer) in self.under_way:
                    self.under_way[name, peer] += decode(encode([message]))
            for peer in node.disconnected():
                self.unlink(name, peer)
        root = self.nodes[ROOT]
        if root.to_open is not None:
            epoch, root.to_open = root.to_open, None
            self.author = Author(root.journal.frames)
            self.author.open_epoch(epoch, mark=len(root.journal.frames))
            self.hand_out(self.author.frames[-1:])

    def hand_out(self, frames: list) -> None:
        if frames:
            self.nodes[ROOT].cut(*frames)

    @property
    def is_open(self) -> bool:
        return self.nodes[ROOT].replica.root.phase.name == "OPEN"

    def deliver(self, link: tuple[str, str], *, again_later: bool = False) -> None:
        """Let the next message of this link arrive; `again_later` it comes once more, behind those under way."""
        sender, receiver = link
        message = self.under_way[link].popleft()
        if again_later and isinstance(message, REPEATABLE):
            self.repeated += 1
            self.under_way[link].append(message)
        self.nodes[receiver].receive(sender, message)
        self.collect()

    def busy(self) -> list[tuple[str, str]]:
        return [link for link, messages in self.under_way.items() if messages]

    def wait(self, ms: float) -> None:
        for node in self.nodes.values():
            node.wait(ms)
            self.collect()
        for name, node in self.nodes.items():
            for peer in node.dialled():
                self.link(name, peer)
        self.collect()

    def come_to_rest(self) -> None:
        """Heal everything and let it run until all nodes stand where the coordinator's history ends."""
        self.cuts.clear()
        for node in self.nodes.values():
            node.commits = True
            node.commit()
        for _ in range(REST_STEPS_MAX):
            while links := self.busy():
                for link in links:
                    if self.under_way.get(link):
                        self.deliver(link)
            if self.is_open and all(node.journal.position == self.author.head for node in self.nodes.values()):
                return
            self.wait(STEP_MS)
        standing = {name: str(node.journal.position) for name, node in self.nodes.items()}
        raise AssertionError(f"never together: {standing}, the coordinator's history ends at {self.author.head}")

    def folds(self) -> Iterator[tuple[str, Fold]]:
        """What each node's own journal adds up to."""
        for name, node in self.nodes.items():
            yield name, Fold(node.journal.frames)
