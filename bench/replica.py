"""The price of reading an edge's replica from another process over the LMDB under it, and whether the bar holds.

A process of its own has the replica open as a node has, and tells readers what a node tells. This one reads it by
`kvnet.open_replica`, and beside it, in the same run and taken in turns, a plain LMDB environment opened alike: a
get in a fresh transaction of the same records under the same keys. Plain LMDB knows no namespaces, checksums or
expiry, and gives bytes. The last row is read while the other process commits as fast as it can.

    python -m bench.replica [--rounds N] [--json FILE] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Final

from rich.console import Console
from rich.table import Table

import kvnet
from bench._support.arguments import count, new_file
from bench._support.history import NAMESPACE, History
from bench._support.surroundings import surroundings
from bench.storage import CLUSTER_ID, batched, timed
from kvnet.core.catalog import Cluster
from kvnet.core.entries import HASH_BYTES
from kvnet.storage.disk import HOST
from kvnet.storage.environment import MAP_SIZE_BYTES, Environment, Owner
from kvnet.storage.keys import root_prefix
from kvnet.storage.records import pack_record
from kvnet.storage.store import Durability, Store

KEYS: Final = 50_000
"""Of 16 bytes; a tenth of them expire some day."""
VALUE_BYTES: Final = 100
READS: Final = 5_000
"""Per measurement: short ones, so that what else the machine does falls on both sides alike."""
BULK_KEYS: Final = 100
PAGE_KEYS: Final = 1_000
SEED: Final = 2
LATER_S: Final = 4_000_000_000
GET_BAR: Final = 0.6


@dataclass(frozen=True, slots=True)
class Row:
    """Medians: of microseconds per key, and of the shares of the rounds."""

    case: str
    replica_us: float
    lmdb_us: float
    share_of_lmdb: float
    bar: float | None = None
    holds: bool | None = None
    """By the figures before they are rounded; None where there is no bar."""


def names() -> tuple[list[str], list[str]]:
    """Return the keys, and those that expire."""
    drawn = random.Random(SEED)
    keys = [drawn.randbytes(8).hex() for _ in range(KEYS)]
    return keys, keys[::10]


def serve(folder: Path, told: Connection) -> None:
    """Have the replica open until told to end; write while told to."""
    store = Store.open(folder, node="bench", cluster_id=CLUSTER_ID, durability=Durability.NONE, shared=True)
    history = History(VALUE_BYTES, text=True)
    store.apply([history.begin(Cluster("bench", CLUSTER_ID, 0))])
    keys, expiring = names()
    for some in batched([key.encode() for key in keys], 1000):
        store.apply([history.puts(some)])
    store.apply([history.puts([key.encode() for key in expiring], expires_at=LATER_S)])
    store.mark_verified()
    assert store.serving is not None
    now_ms = time.time() * 1000
    store.serving.tell_time(now_ms - time.monotonic() * 1000, now_ms)
    told.send("ready")
    drawn, writes = random.Random(SEED), False
    while True:
        while told.poll(0 if writes else None):
            said = told.recv()
            if said == "end":
                store.close()
                return
            writes = said == "write"
            told.send(said)
        some = [key.encode() for key in drawn.choices(keys[1::10], k=10)]
        store.apply([history.puts(some)])


class Beside:
    """The replica as another process reads it, and plain LMDB."""

    def __init__(self, folder: Path, replica: kvnet.Replica) -> None:
        self._draw = random.Random(SEED + 1)
        self._keys, self._expiring = names()
        self._namespace = replica.namespace(NAMESPACE.title)
        self._plain = Environment(
            folder / "plain",
            Owner(CLUSTER_ID.hex(), "bench"),
            synced=False,
            map_size_bytes=MAP_SIZE_BYTES,
            disk=HOST,
        )
        self._db = self._plain.database("records")
        self._prefix = root_prefix(1)
        value = self._draw.randbytes(VALUE_BYTES)
        with self._plain.lmdb.begin(self._db, write=True) as txn, txn.cursor() as cursor:
            cursor.putmulti(
                (self._place(key), pack_record(key.encode(), value, b"", 0, 1, 1, bytes(HASH_BYTES)))
                for key in self._keys
            )

    def _place(self, key: str) -> bytes:
        return self._prefix + key.encode()

    def plain(self) -> float:
        """Return seconds per get of plain LMDB."""
        begin, db = self._plain.lmdb.begin, self._db
        places = [self._place(key) for key in self._draw.choices(self._keys, k=READS)]

        def gets() -> None:
            for place in places:
                with begin(db) as txn:
                    txn.get(place)

        return timed(gets) / READS

    def each(self, read: Callable[[str], object], *, expiring: bool = False) -> float:
        keys = self._draw.choices(self._expiring if expiring else self._keys[1::2], k=READS)

        def reads() -> None:
            for key in keys:
                read(key)

        return timed(reads) / READS

    def text(self) -> float:
        return self.each(self._namespace.get)

    def bytes(self) -> float:
        get = self._namespace.get
        return self.each(lambda key: get(key, "bytes"))

    def expiring(self) -> float:
        return self.each(self._namespace.get, expiring=True)

    def with_metadata(self) -> float:
        return self.each(self._namespace.get_with_metadata)

    def bulk(self) -> float:
        keys = [self._draw.choices(self._keys, k=BULK_KEYS) for _ in range(READS // BULK_KEYS)]

        def reads() -> None:
            for some in keys:
                self._namespace.get(some)

        return timed(reads) / READS

    def listed(self) -> float:
        starts = [f"{self._draw.randrange(16):x}" for _ in range(READS // PAGE_KEYS)]

        def reads() -> None:
            for prefix in starts:
                self._namespace.list(prefix=prefix, limit=PAGE_KEYS)

        return timed(reads) / READS

    def close(self) -> None:
        self._plain.retire()


def measure(rounds: int, folder: Path) -> list[Row]:
    """Return a row per case, with medians over `rounds`."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(folder / "store", there), daemon=True)
    process.start()
    assert here.recv() == "ready"
    with kvnet.open_replica(folder / "store") as replica:
        beside = Beside(folder, replica)
        rows = [
            compared("get, text", beside, beside.text, rounds, GET_BAR),
            compared("get, bytes (by a lambda)", beside, beside.bytes, rounds),
            compared("get, of a key that expires", beside, beside.expiring, rounds),
            compared("get_with_metadata", beside, beside.with_metadata, rounds),
            compared(f"get, {BULK_KEYS} at once", beside, beside.bulk, rounds),
            compared(f"list, pages of {PAGE_KEYS:,}", beside, beside.listed, rounds),
        ]
        here.send("write")
        here.recv()
        rows.append(compared("get, text, beside writes", beside, beside.text, rounds))
        here.send("end")
        process.join()
        beside.close()
    return rows


def compared(case: str, beside: Beside, ours: Callable[[], float], rounds: int, bar: float | None = None) -> Row:
    samples = [(ours(), beside.plain()) for _ in range(rounds)]
    replica, plain = (median(column) * 1e6 for column in zip(*samples, strict=True))
    share = median(plain / replica for replica, plain in samples)
    return Row(
        case, round(replica, 2), round(plain, 2), round(share, 3), bar, None if bar is None else share >= bar
    )


def table_of(rows: list[Row]) -> Table:
    table = Table(title=f"{KEYS:,} keys of 16 bytes, values of {VALUE_BYTES}; microseconds per key")
    for name in ("case", "open_replica", "plain LMDB", "share of LMDB", "bar", ""):
        table.add_column(name, justify="left" if name == "case" else "right")
    for row in rows:
        verdict = {None: "", True: "holds", False: "MISSED"}[row.holds]
        bar = "" if row.bar is None else str(row.bar)
        table.add_row(row.case, str(row.replica_us), str(row.lmdb_us), str(row.share_of_lmdb), bar, verdict)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=count, default=41, help="measurements per case; the median counts")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write the results here")
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure (default: the temporary one)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kvnet-bench-", dir=arguments.folder) as folder:
        rows = measure(arguments.rounds, Path(folder))
    Console(width=115).print(table_of(rows))
    if arguments.json:
        results = [asdict(row) for row in rows]
        arguments.json.write_text(json.dumps(surroundings() | {"results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
