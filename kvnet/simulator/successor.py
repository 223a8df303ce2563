"""A replica in the making, as storage/successor.py makes it: pages, the tail, the proof."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

from kvnet.core.entries import HASH_BYTES, NAMESPACE_ID_BYTES
from kvnet.core.events import BootstrapProgress
from kvnet.core.frames import Frame
from kvnet.core.messages import Page
from kvnet.core.versions import Position, Version
from kvnet.errors import Divergence, PageDamaged
from kvnet.simulator.journal import SimulatedJournal
from kvnet.simulator.records import Records, number_of, unpack_page


class SimulatedSuccessor:
    """A replica in the making, as storage/successor.py makes it: pages, the tail, the proof."""

    def __init__(self, start: Position) -> None:
        self.journal = SimulatedJournal()
        self.journal.clear(start)
        self.records = Records()
        self.stamp = 0
        self.replayed = start
        self.progress = BootstrapProgress(start, b"", whole=False, highest=start, digest=bytes(HASH_BYTES))

    def store_page(self, page: Page) -> None:
        """Add the records of the page that comes next.

        Raises:
            PageDamaged: it was altered or doesn't come next.
        """
        before = self.progress
        if before.whole or page.after != before.until or page.position.seq < before.start.seq:
            raise PageDamaged("a page that doesn't come next")
        for place, record in unpack_page(page.body):
            self.records.add_record(place[:NAMESPACE_ID_BYTES], place[NAMESPACE_ID_BYTES:], record)
        newer = page.position.seq > before.highest.seq or not before.until
        self.progress = BootstrapProgress(
            before.start,
            page.until or before.until,
            whole=not page.until,
            highest=page.position if newer else before.highest,
            digest=page.digest if newer else before.digest,
        )

    def replay(self, until: Position, digest: bytes, look_for_chunks: Callable[[Frame], None]) -> None:
        """Apply the whole tail to what the pages brought; `look_for_chunks` raises ChunksMissing.

        Raises:
            ChunksMissing: a frame behind the pages needs chunks that aren't here; goes on there the next time.
            Divergence: it isn't what the coordinator's replica was.
        """
        for frame in self.journal.frames_after(self.replayed.seq, 1 << 40):
            lenient = frame.last_seq <= until.seq
            if not lenient:
                look_for_chunks(frame)
            for seq, entry in enumerate(frame.entries(), frame.first_seq):
                self.records.take(entry, Version(frame.epoch, seq), lenient=lenient)
            if frame.last_seq == until.seq and frame.position != until:
                raise Divergence(f"a page was as of {until}, and our history has {frame.position} there")
            if frame.last_seq >= until.seq and self.records.digest != number_of(frame.digest_after):
                raise Divergence(f"the digest at {frame.position} is not the coordinator's")
            self.replayed, self.stamp = frame.position, frame.stamp
        if self.replayed.seq < until.seq:
            raise Divergence(f"the journal ends at {self.replayed}, before {until}")
        if self.replayed == until == self.progress.start and self.records.digest != number_of(digest):
            raise Divergence(f"the digest at {until} is not its donor's")

    def copied(self) -> SimulatedSuccessor:
        other = copy(self)
        other.journal = self.journal.copied()
        other.records = self.records.copied()
        return other
