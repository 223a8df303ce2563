"""One history that a store goes through from any state to its end, whatever it was stopped by on the way."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from kvnet.core.messages import Page
from kvnet.core.versions import Position
from kvnet.storage.store import Store
from tests.support.frames import FrameMaker
from tests.support.stores import open_store, pages_of, prove

FIRST = 3
"""Frames that the old replica has when it turns out to be too old."""
LAST = 4
"""Frames that come when all else is over."""


class History:
    """A replica that is too old, a successor from pages of two positions, a compaction, and what comes then."""

    def __init__(self) -> None:
        self.maker = maker = FrameMaker()
        maker.open_epoch()
        self.namespaces = [maker.create_namespace("a")]
        with tempfile.TemporaryDirectory() as folder:
            donor = open_store(Path(folder))
            self._write(donor, 8)
            early = donor.position
            pages = list(pages_of(donor, 700))
            self._write(donor, 4)
            half = pages[: len(pages) // 2]
            self.pages: list[Page] = [*half, *pages_of(donor, 700, half[-1].until)]
            self._write(donor, LAST)
            donor.close()
        assert early == self.pages[0].position < self.pages[-1].position
        self.done = 0

    def _write(self, donor: Store, count: int) -> None:
        maker = self.maker
        for number in range(count):
            turn = len(maker.frames)
            namespace = self.namespaces[-1]
            for each in range(8):
                key = b"%d" % ((turn * 5 + each) % 40) * (1 if each % 3 else 300)
                maker.put(namespace, key, b"%d" % turn * (each * 20), expires_at=each % 2)
            maker.delete(namespace, b"%d" % ((turn * 5) % 40))
            if number % 4 == 1:
                maker.delete_namespace(self.namespaces.pop())
                self.namespaces.append(maker.create_namespace(str(turn)))
            donor.apply([maker.cut()])

    @property
    def start(self) -> Position:
        return self.pages[0].position

    def live(self, store: Store, acknowledge: Callable[[Position], None] = lambda _: None) -> None:
        """Go on from wherever the store is; `acknowledge` hears of each commit that readers see."""
        frames = self.maker.frames
        for frame in frames[:FIRST]:
            if store.bootstrap is None and store.position.seq < frame.first_seq:
                acknowledge(store.apply([frame]))
                store.erase_some(5)
        if store.bootstrap is not None or store.position.seq < self.start.seq:
            self._bootstrap(store)
            acknowledge(store.position)
        before_last = frames[-LAST].position
        for frame in frames:
            if store.position.seq < frame.first_seq:
                acknowledge(store.apply([frame]))
            if frame.position == before_last and store.position.seq <= before_last.seq:
                self.compact(store)

    def _bootstrap(self, store: Store) -> None:
        if store.bootstrap is None:
            store.begin_successor(self.start)
        for page in self.pages:
            progress = store.bootstrap
            assert progress is not None
            if progress.until == page.after and not progress.whole:
                store.store_page(page)
                tail = [f for f in self.maker.frames if f.first_seq > store.journal.position.seq]
                if tail[LAST:]:
                    store.apply(tail[:1])
        store.sync_successor()
        prove(store, self.maker.frames[:-LAST], budget=30)

    def compact(self, store: Store) -> None:
        store.begin_compaction()
        store.copy_compacted()
        following = [frame for frame in self.maker.frames if frame.first_seq > store.position.seq]
        store.apply(following[:1])
        while store.is_compacting:
            store.finish_compaction()
