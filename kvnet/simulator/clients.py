"""Those who write in a simulated world, and remember what they were told.

Each write has a request id. One that isn't answered, because the coordinator died over it, is tried again with the
same id, as an edge does for its clients. What was acknowledged must be there at the end, and win over what came
before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from kvnet.core.entries import INLINE_VALUE_BYTES_MAX, Delete
from kvnet.core.events import ReceiptsWanted
from kvnet.core.manifest import CHUNK_BYTES, Manifest, hash_chunk, split
from kvnet.core.operations import DeleteValue, Operation, PutLargeValue, PutValue
from kvnet.core.versions import Version
from kvnet.errors import RequestError, StorageFull
from kvnet.simulator.checking import Checker
from kvnet.simulator.desk import NAMESPACE, Desk
from kvnet.simulator.disturbances import Disturbances
from kvnet.simulator.expiry import BRIEF
from kvnet.simulator.node import SimulatedNode
from kvnet.simulator.world import World

RETRY_MS: Final = 500.0
TRIES_MAX: Final = 60
BRIEF_KEYS: Final = 12
TTL_S_MAX: Final = 10
WAIT_MS: Final = 25_000.0
"""How long one waits until all members have its write: longer than liveness.AckedInTime gives them."""
BEHIND: Final = 503
DISK_FULL: Final = 507


@dataclass(slots=True)
class Write:
    """One request, and what became of it."""

    request_id: bytes
    operations: Sequence[Operation]
    promised: Version | None = None
    """What it was given, durable or not."""
    version: Version | None = None
    """What the client was told, once the write was durable."""
    refused: bool = False
    tries: int = 0


class Clients:
    """Writes at a steady pace, a few keys again and again."""

    def __init__(
        self,
        world: World,
        rng: Random,
        *,
        rate: float,
        keys: int,
        value_bytes_max: int,
        until_ms: float,
        large_share: float = 0.0,
        brief_share: float = 0.0,
        waited_share: float = 0.0,
    ) -> None:
        """`rate` is in writes a second, from now on until `until_ms`.

        `large_share` of them are of large values; `brief_share` live for some seconds only; with
        `waited_share` it is waited until all members have them.
        """
        self.waited_share = waited_share
        self.large_share = large_share
        self.brief_share = brief_share
        self.world = world
        self.rng = rng
        self.every_ms = 1000 / rate
        self.keys = keys
        self.value_bytes_max = value_bytes_max
        self.until_ms = until_ms
        self.writes: list[Write] = []
        self.told: Counter[str] = Counter()
        world.at(world.now, self._write, None)

    def _write(self, _: object) -> None:
        world, rng = self.world, self.rng
        if world.now >= self.until_ms:
            return
        burst = 20 if rng.random() < 0.01 else 1
        for _ in range(burst):
            count = rng.randrange(2, 6) if rng.random() < 0.05 else 1
            operations = [self._operation() for _ in range(count)]
            if self.large_share and rng.random() < self.large_share:
                operations = [self._large()]
            elif self.brief_share and rng.random() < self.brief_share:
                operations = [self._brief()]
            write = Write(rng.getrandbits(128).to_bytes(16, "big"), operations)
            self.writes.append(write)
            if self.waited_share and rng.random() < self.waited_share:
                root = world.root
                root.feed(ReceiptsWanted(root.clock_ms() + WAIT_MS))
            self._try(write)
        world.at(world.now + rng.expovariate(1 / self.every_ms), self._write, None)

    def _operation(self) -> Operation:
        rng = self.rng
        key = b"key-%d" % rng.randrange(self.keys)
        if rng.random() < 0.15:
            return DeleteValue(NAMESPACE, key)
        if rng.random() < 0.1:
            return PutValue(NAMESPACE, key, b"always the same", b"", 0, 0)
        size = rng.randrange(self.value_bytes_max) if rng.random() < 0.05 else rng.randrange(100)
        return PutValue(NAMESPACE, key, rng.getrandbits(64).to_bytes(8, "big") + bytes(size), b"", 0, 0)

    def _brief(self) -> PutValue:
        """A pair that is to live for a while, or that was and is to stay."""
        rng = self.rng
        key, value = b"%s%d" % (BRIEF, rng.randrange(BRIEF_KEYS)), rng.getrandbits(64).to_bytes(8, "big")
        ttl_s = rng.randrange(1, TTL_S_MAX) if rng.random() < 0.8 else 0
        return PutValue(NAMESPACE, key, value, b"", 0, ttl_s)

    def _large(self) -> PutLargeValue:
        """A value of one chunk, or of one and a little more."""
        rng = self.rng
        size = rng.choice([INLINE_VALUE_BYTES_MAX + 1, CHUNK_BYTES + 1])
        value = rng.getrandbits(64).to_bytes(8, "big").ljust(size, b"\0")
        chunks = [bytes(chunk) for chunk in split(value)]
        manifest = Manifest(size, tuple(map(hash_chunk, chunks))).pack()
        return PutLargeValue(NAMESPACE, b"large-%d" % rng.randrange(4), manifest, b"", 0, 0, chunks)

    def _try(self, write: Write) -> None:
        """Hand it to the coordinator, and again until somebody answers."""
        if write.version is not None or write.refused or write.tries == TRIES_MAX:
            return
        world = self.world
        desks = [desk for desk in world.desks.values() if desk.is_open and world.now >= desk.node.stalled_until]
        write.tries += 1
        if desks:
            desk = (
                desks[0] if len(desks) == 1 else self.rng.choice(desks)
            )  # of two coordinators either may be asked
            try:
                self._submit(desk, write)
            except StorageFull:
                self.told[str(DISK_FULL)] += 1
            except RequestError as error:
                self.told[str(error.status)] += 1
                write.refused = error.status != BEHIND
        world.at(world.now + RETRY_MS, self._try, write)

    def _submit(self, desk: Desk, write: Write) -> None:
        def promised(version: Version) -> None:
            write.promised = version

        def answered(ok: bool) -> None:
            self._answered(write, ok)

        match write.operations:
            case [PutLargeValue() as large]:
                desk.submit_large(large, write.request_id, promised, answered)
            case operations:
                write.promised = desk.submit(operations, write.request_id, answered).version
                desk.commit_soon()

    def _answered(self, write: Write, ok: bool) -> None:
        if not ok:
            self.told[str(DISK_FULL)] += 1
        elif write.version is None:
            write.version = write.promised
            self.told["acknowledged"] += 1


def _stored(operation: Operation) -> bytes | None:
    """What its key has as value after it; None when it is gone."""
    match operation:
        case PutValue():
            return operation.value
        case PutLargeValue():
            return operation.manifest
        case _:
            return None


class NothingAcknowledgedIsLost(Checker):
    """What a client was told is durable is in the history at the end, and its key shows it or something newer."""

    name = "nothing acknowledged is lost"

    def __init__(self, world: World, disturbances: Disturbances, clients: Clients) -> None:
        super().__init__(world)
        self._disturbances = disturbances
        self._clients = clients

    def finish(self, nodes: Iterable[SimulatedNode]) -> None:
        """Look once these nodes stand where the coordinator stands."""
        if self._disturbances.excuses:
            return
        root = self.world.root.disk
        chain = root.position.chain
        versions = {
            seq: frame.epoch
            for frame in self.world.history.path(chain)
            for seq in range(frame.first_seq, frame.last_seq + 1)
        }
        newest: dict[bytes, tuple[Version, Operation]] = {}
        for write in self._clients.writes:
            version = write.version
            if version is None:
                continue
            if versions.get(version.seq) != version.epoch:
                self.fail(f"write {version} was acknowledged and is gone", seq=version.seq)
            for operation in write.operations:
                assert isinstance(operation, (PutValue, PutLargeValue, DeleteValue))
                known = newest.get(operation.key)
                if known is None or known[0] <= version:
                    newest[operation.key] = version, operation
        for node in nodes:
            if node.disk.folds:
                self._compare(node, newest)

    def _compare(self, node: SimulatedNode, newest: dict[bytes, tuple[Version, Operation]]) -> None:
        """Every replica shows of every key what was acknowledged last, or what came after it."""
        for key, (version, operation) in newest.items():
            record = node.disk.get(NAMESPACE, key)
            if record is not None and record.version > version:
                continue  # a later write, whose answer was lost
            wanted = _stored(operation)
            if (record.value if record is not None else None) == wanted:
                continue
            if record is None and self._is_deleted_after(key, version):
                continue
            self.fail(f"{node.id} doesn't show what {version} made of {key!r}", node=node.id, seq=version.seq)

    def _is_deleted_after(self, key: bytes, version: Version) -> bool:
        """Whether a later write took the key away, one whose answer was lost."""
        for frame in reversed(self.world.history.path(self.world.root.disk.position.chain)):
            for seq, entry in enumerate(frame.entries(), frame.first_seq):
                if isinstance(entry, Delete) and entry.key == key and seq > version.seq:
                    return True
            if frame.first_seq <= version.seq:
                return False
        return False
