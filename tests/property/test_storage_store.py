"""A store is the fold of its journal, whatever was written, closed, killed, emptied or erased on the way."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kvnet.core.versions import GENESIS
from kvnet.storage.keys import SLICE_BYTES
from tests.support.frames import FrameMaker
from tests.support.stores import assert_is_fold, open_store

KEYS = st.builds(
    lambda stem, length, tail: stem * length + tail,
    st.sampled_from([b"\0", b"\1", b"a", b"\xff"]),
    st.sampled_from([0, 1, 2, SLICE_BYTES - 1, SLICE_BYTES, SLICE_BYTES + 1, 2 * SLICE_BYTES, 2040]),
    st.binary(max_size=2),
)
PICK = st.integers(0, 1 << 16)


class StoreIsTheFoldOfItsJournal(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = open_store(self.folder)
        self.maker = FrameMaker()
        self.uncut = 0

    @initialize()
    def begin(self) -> None:
        self.maker.open_epoch()
        self.maker.create_namespace("first")
        self.store.apply([self.maker.cut()])

    def pick_namespace(self, pick: int) -> bytes | None:
        namespaces = list(self.maker.records)[1:]
        return namespaces[pick % len(namespaces)] if namespaces else None

    @rule(pick=PICK, key=KEYS, value=st.binary(max_size=5000), metadata=st.binary(max_size=20), at=PICK)
    def put(self, pick: int, key: bytes, value: bytes, metadata: bytes, at: int) -> None:
        namespace = self.pick_namespace(pick)
        if namespace is not None:
            self.maker.put(namespace, key, value, metadata=metadata, expires_at=at)
            self.uncut += 1

    @rule(pick=PICK, which=PICK)
    def delete(self, pick: int, which: int) -> None:
        namespace = self.pick_namespace(pick)
        if namespace is not None and (keys := list(self.maker.records[namespace])):
            self.maker.delete(namespace, keys[which % len(keys)])
            self.uncut += 1

    @rule(pick=PICK, key=KEYS)
    def delete_what_may_not_exist(self, pick: int, key: bytes) -> None:
        namespace = self.pick_namespace(pick)
        if namespace is not None:
            self.maker.delete(namespace, key)
            self.uncut += 1

    @rule(title=st.sampled_from(["a", "b", "c"]))
    def create_namespace(self, title: str) -> None:
        self.maker.create_namespace(title)
        self.uncut += 1

    @rule(pick=PICK)
    def delete_namespace(self, pick: int) -> None:
        namespace = self.pick_namespace(pick)
        if namespace is not None:
            self.maker.delete_namespace(namespace)
            self.uncut += 1

    @rule()
    def cut(self) -> None:
        if self.uncut:
            self.maker.cut()
            self.uncut = 0

    @rule(at_once=st.integers(1, 4))
    def apply(self, at_once: int) -> None:
        self.cut()
        behind = [frame for frame in self.maker.frames if frame.first_seq > self.store.position.seq]
        for start in range(0, len(behind), at_once):
            self.store.apply(behind[start : start + at_once])

    @rule(clean=st.booleans())
    def reopen(self, *, clean: bool) -> None:
        self.store.close(clean=clean)
        self.store = open_store(self.folder)

    @rule()
    def reset(self) -> None:
        self.store.reset()
        assert self.store.position == GENESIS
        assert not self.store.namespaces

    @rule(budget=st.integers(1, 5))
    def erase_some(self, budget: int) -> None:
        self.store.erase_some(budget)

    @invariant()
    def at_the_head_it_is_the_fold(self) -> None:
        if not self.uncut and self.store.position == self.maker.position:
            assert_is_fold(self.store, self.maker)
            assert self.store.frames_after(0, 1 << 30) == self.maker.frames

    def teardown(self) -> None:
        self.apply(1)
        for namespace in list(self.maker.records)[1:]:
            self.maker.delete_namespace(namespace)
            self.uncut += 1
        self.apply(1)
        while self.store.erase_some(100):
            pass
        assert_is_fold(self.store, self.maker)
        with self.store.environment.view() as txn:
            assert txn.stat(self.store.environment.database("records"))["entries"] == 0, (
                "records or layers of nobody"
            )
        self.store.close()
        shutil.rmtree(self.folder)


TestStoreIsTheFoldOfItsJournal = StoreIsTheFoldOfItsJournal.TestCase
TestStoreIsTheFoldOfItsJournal.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
