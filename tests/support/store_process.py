"""A shared store in a process of its own, which does what a test tells it to.

It is to a replica's readers what a node is: it writes the store, and says on the serving page what it does.
"""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from kvnet.core.catalog import Cluster
from kvnet.core.freshness import BeaconSeen
from kvnet.storage.serving import BeaconView
from kvnet.storage.store import Store
from tests.support.frames import FrameMaker
from tests.support.large import large_value, named
from tests.support.stores import CLUSTER_ID, bootstrap, open_store, pages_of

KNOWN: Final = (BeaconSeen, BeaconView, large_value, named, time)
"""For what tests say."""
ROOT: Final = Path(__file__).parents[2]
ACCOUNT: Final = "a" * 32


class StoreProcess:
    """As a context it ends with it, as a node that is stopped does."""

    def __init__(self, folder: Path, *, node: str = "fra", shared: bool = True) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.store_process", str(folder), node, str(shared)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.stop()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def do(self, what: str) -> Any:
        """Return what this expression comes to there, where `store`, `maker`, `page` and this module are known."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(repr(what) + "\n")
        line = self._process.stdout.readline()
        if not line:
            self._process.wait(30)
            raise AssertionError(f"it ended over {what}")
        kind, result = ast.literal_eval(line)
        assert kind == "done", result
        return result

    def put(self, title: str, *pairs: tuple[str, str]) -> None:
        """These pairs are stored, in one frame, the namespace made if it has to be."""
        self.do(f"put({title!r}, {pairs!r})")

    def stop(self) -> None:
        """End as a node that is stopped."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(30) == 0

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(30)


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def lose(store: Store, chunk: bytes) -> None:
    with store.environment.write() as txn:
        assert txn.delete(chunk, db=store.environment.chunk_databases.data)


def flip(store: Store, namespace: bytes, key: bytes) -> None:
    place = store.tallies[namespace].prefix + key
    with store.environment.write() as txn:
        stored = bytearray(txn.get(place))
        stored[-5] ^= 1
        txn.put(place, bytes(stored))


def main() -> None:
    folder, node, shared = sys.argv[1:]
    store = open_store(Path(folder), node=node, shared=shared == "True", refillable=True)
    maker = FrameMaker()
    namespaces: dict[str, bytes] = {}
    if not store.position.seq:
        maker.open_epoch()
        maker.put_item(Cluster(ACCOUNT, CLUSTER_ID, 0))
        store.apply([maker.cut()])
        store.mark_verified()
    donors = iter(range(1000))
    page = store.serving

    def put(title: str, pairs: list[tuple[str, str]], **more: Any) -> None:
        if title not in namespaces:
            namespaces[title] = maker.create_namespace(title)
        for key, value in pairs:
            maker.put(namespaces[title], key.encode(), value.encode(), **more)
        store.apply([maker.cut()])

    def drop(title: str) -> None:
        maker.delete_namespace(namespaces.pop(title))
        store.apply([maker.cut()])

    def swap() -> None:
        """Put another environment, made of pages, in the replica's place."""
        donor = open_store(Path(folder).with_name(f"donor{next(donors)}"))
        donor.apply(maker.frames)
        bootstrap(store, pages_of(donor), [])
        donor.close()

    known = {**globals(), **locals()}
    for line in sys.stdin:
        try:
            answer = "done", eval(ast.literal_eval(line), known)
        except BaseException as error:  # noqa: BLE001 - the test fails with it
            answer = "failed", repr(error)
        sys.stdout.write(repr(answer) + "\n")
        sys.stdout.flush()
    store.close()


if __name__ == "__main__":
    main()
