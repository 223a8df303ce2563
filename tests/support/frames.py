"""A mini coordinator for tests: it keeps what a replica must come to, and cuts the frames that lead there."""

from __future__ import annotations

from hashlib import blake2b

from kvnet.core import catalog
from kvnet.core.catalog import CatalogItem, Namespace
from kvnet.core.entries import SYSTEM_NAMESPACE, Delete, Entry, Epoch, Put, PutLarge, record_hash
from kvnet.core.frames import Frame, cut_frame
from kvnet.core.versions import GENESIS, Position, Version

DIGEST_MODULUS = 1 << 128
STARTED_MS = 1_522_540_800_000


class FrameMaker:
    """Valid frames of one history: write with `put`, `delete` and the others, then `cut`.

    `records` is the model: what a replica holds after the last cut (and, before it, what is to come).
    """

    def __init__(self, epoch: int = 1) -> None:
        self.epoch = epoch - 1
        self.position: Position = GENESIS
        self.records: dict[bytes, dict[bytes, tuple[Put | PutLarge, Version]]] = {SYSTEM_NAMESPACE: {}}
        self.digest = 0
        self.stamp = STARTED_MS << 16
        self.frames: list[Frame] = []
        self._pending: list[Entry] = []

    @property
    def next_seq(self) -> int:
        return self.position.seq + len(self._pending) + 1

    def open_epoch(self) -> None:
        assert not self._pending, "an epoch begins with a frame"
        self.epoch += 1
        self._pending.append(Epoch(self.epoch, blake2b(b"%d" % self.epoch, digest_size=16).digest()))

    def put(
        self, namespace: bytes, key: bytes, value: bytes, *, metadata: bytes = b"", expires_at: int = 0
    ) -> Version:
        version = Version(self.epoch, self.next_seq)
        digest = record_hash(namespace, key, value, metadata, expires_at, *version)
        return self._put(Put(namespace, key, value, metadata, expires_at, digest), version)

    def put_large(
        self, namespace: bytes, key: bytes, manifest: bytes, *, metadata: bytes = b"", expires_at: int = 0
    ) -> Version:
        version = Version(self.epoch, self.next_seq)
        digest = record_hash(namespace, key, manifest, metadata, expires_at, *version, large=True)
        return self._put(PutLarge(namespace, key, manifest, metadata, expires_at, digest), version)

    def _put(self, put: Put | PutLarge, version: Version) -> Version:
        self._pending.append(put)
        self._forget(put.namespace, put.key)
        self.records[put.namespace][put.key] = put, version
        self.digest = (self.digest + int.from_bytes(put.hash, "big")) % DIGEST_MODULUS
        return version

    def delete(self, namespace: bytes, key: bytes) -> Version:
        version = Version(self.epoch, self.next_seq)
        self._pending.append(Delete(namespace, key))
        self._forget(namespace, key)
        return version

    def _forget(self, namespace: bytes, key: bytes) -> None:
        if key in self.records[namespace]:
            put, _ = self.records[namespace].pop(key)
            self.digest = (self.digest - int.from_bytes(put.hash, "big")) % DIGEST_MODULUS

    def put_item(self, item: CatalogItem) -> Version:
        return self.put(SYSTEM_NAMESPACE, catalog.key_of(item), catalog.value_of(item))

    def delete_item(self, item: CatalogItem) -> Version:
        return self.delete(SYSTEM_NAMESPACE, catalog.key_of(item))

    def create_namespace(self, title: str) -> bytes:
        """Return the new namespace's id, a different one each time."""
        name = f"{title}/{self.epoch}-{self.next_seq}".encode()
        namespace = Namespace(blake2b(name, digest_size=16).digest(), title, STARTED_MS)
        self.put_item(namespace)
        self.records[namespace.id] = {}
        return namespace.id

    def delete_namespace(self, namespace: bytes) -> Version:
        for key in list(self.records[namespace]):
            self._forget(namespace, key)
        del self.records[namespace]
        return self.delete_item(Namespace(namespace, "", 0))

    def cut(self) -> Frame:
        """Return the frame of everything written since the last one."""
        self.stamp += 1 << 16
        frame = cut_frame(
            epoch=self.epoch,
            first_seq=self.position.seq + 1,
            stamp=self.stamp,
            chain_before=self.position.chain,
            digest_after=self.digest.to_bytes(16, "big"),
            entries=self._pending,
        )
        self.position = frame.position
        self._pending = []
        self.frames.append(frame)
        return frame
