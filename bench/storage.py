"""The price of a store over the LMDB under it.

`apply` beside plain puts of as many bytes in as many transactions, and `get` beside a plain get in a fresh
transaction: same flags, same keys, same run, taken in turns. Plain LMDB keeps no journal, digest or versions.

    python -m bench.storage [--rounds N] [--json FILE] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

import lmdb
from rich.console import Console
from rich.table import Table

from kvnet.core.catalog import Namespace, key_of, value_of
from kvnet.core.entries import SYSTEM_NAMESPACE, Entry, Epoch, Put, record_hash
from kvnet.core.frames import Frame, cut_frame
from kvnet.core.versions import GENESIS
from kvnet.storage.environment import MAP_SIZE_BYTES, Environment
from kvnet.storage.records import HEADER_BYTES
from kvnet.storage.store import Durability, Store

KEYS: Final = 50_000
KEY_BYTES: Final = 16
VALUE_BYTES: Final = 100
ENTRIES: Final = 20_000
"""Per measurement; a tenth of it where every commit waits for the disk."""
SHAPES: Final = ((1, 5), (4, 10), (4, 20), (20, 20))
"""(frames per commit, entries per frame)"""
JOURNAL_BYTES_MAX: Final = 4 << 20
CLUSTER_ID: Final = bytes(16)
NAMESPACE: Final = Namespace(b"n" * 16, "bench", 0)


class History:
    """Frames of small puts to random keys, cut as a coordinator cuts them."""

    def __init__(self, keys: list[bytes]) -> None:
        self._keys = keys
        self._random = random.Random(1)
        self._position = GENESIS
        self._digest = 0
        self._hashes: dict[bytes, int] = {}

    def frame(self, entries: list[Entry]) -> Frame:
        frame = cut_frame(
            epoch=1,
            first_seq=self._position.seq + 1,
            stamp=1,
            chain_before=self._position.chain,
            digest_after=self._digest.to_bytes(16, "big"),
            entries=entries,
        )
        self._position = frame.position
        return frame

    def begin(self) -> Frame:
        return self.frame(
            [Epoch(1, bytes(16)), self._put(SYSTEM_NAMESPACE, key_of(NAMESPACE), value_of(NAMESPACE), 2)]
        )

    def puts(self, keys: list[bytes]) -> Frame:
        seq = self._position.seq + 1
        value = self._random.randbytes(VALUE_BYTES)
        return self.frame([self._put(NAMESPACE.id, key, value, seq + at) for at, key in enumerate(keys)])

    def random_puts(self, count: int) -> Frame:
        return self.puts(self._random.choices(self._keys, k=count))

    def _put(self, namespace: bytes, key: bytes, value: bytes, seq: int) -> Put:
        added = record_hash(namespace, key, value, b"", 0, 1, seq)
        number = int.from_bytes(added, "big")
        self._digest = (self._digest + number - self._hashes.get(key, 0)) % (1 << 128)
        self._hashes[key] = number
        return Put(namespace, key, value, b"", 0, added)


class Pair:
    """A store and a plain LMDB database with the same keys in them, in environments opened alike."""

    def __init__(self, folder: Path, durability: Durability) -> None:
        self.draw = random.Random(2)
        self.keys = [self.draw.randbytes(KEY_BYTES) for _ in range(KEYS)]
        self.history = History(self.keys)
        self.store = Store.open(
            folder / "store",
            node="bench",
            cluster_id=CLUSTER_ID,
            durability=durability,
            journal_bytes_max=JOURNAL_BYTES_MAX,
        )
        self.plain = Environment(
            folder / "plain",
            node="bench",
            cluster_id=CLUSTER_ID,
            durability=durability,
            map_size_bytes=MAP_SIZE_BYTES,
        )
        self.db = self.plain.database("records")
        self.value = bytes(HEADER_BYTES + VALUE_BYTES)
        self.store.apply([self.history.begin()])
        for start in range(0, KEYS, 1000):
            self.store.apply([self.history.puts(self.keys[start : start + 1000])])
            self.put_plain(self.keys[start : start + 1000])

    def put_plain(self, keys: list[bytes]) -> None:
        with self.plain.lmdb.begin(self.db, write=True) as txn:
            for key in keys:
                txn.put(key, self.value)

    def measure_writes(self, entries: int, frames_at_once: int, frame_entries: int) -> tuple[float, float]:
        """Return (store's, plain's) seconds per entry."""
        batch = frames_at_once * frame_entries
        batches = [
            [self.history.random_puts(frame_entries) for _ in range(frames_at_once)]
            for _ in range(entries // batch)
        ]
        plain = [self.draw.choices(self.keys, k=batch) for _ in batches]
        count = len(batches) * batch

        def apply() -> None:
            for frames in batches:
                self.store.apply(frames)

        def put() -> None:
            for keys in plain:
                self.put_plain(keys)

        return timed(apply) / count, timed(put) / count

    def measure_reads(self) -> tuple[float, float]:
        keys = self.draw.choices(self.keys, k=ENTRIES)
        get, begin, db = self.store.get, self.plain.lmdb.begin, self.db

        def plain_gets() -> None:
            for key in keys:
                with begin(db) as txn:
                    txn.get(key)

        def gets() -> None:
            for key in keys:
                get(NAMESPACE.id, key)

        return timed(gets) / ENTRIES, timed(plain_gets) / ENTRIES

    def close(self) -> None:
        self.store.close(clean=False)
        self.plain.close(clean=False)


def timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(rounds: int, folder: Path) -> list[dict[str, Any]]:
    """Return a row per case: medians over `rounds`, microseconds per entry or read."""
    rows = []
    for durability in Durability:
        pair = Pair(folder / durability, durability)
        entries = ENTRIES // 10 if durability == Durability.COMMIT else ENTRIES
        for frames_at_once, frame_entries in SHAPES:
            samples = [pair.measure_writes(entries, frames_at_once, frame_entries) for _ in range(rounds)]
            rows.append(row(f"apply, {frames_at_once} x {frame_entries}", durability, samples))
        rows.append(row("get", durability, [pair.measure_reads() for _ in range(rounds)]))
        pair.close()
    return rows


def row(case: str, durability: Durability, samples: list[tuple[float, float]]) -> dict[str, Any]:
    ours, plain = (median(column) * 1e6 for column in zip(*samples, strict=True))
    return {
        "case": case,
        "durability": str(durability),
        "store_us": round(ours, 2),
        "lmdb_us": round(plain, 2),
        "share_of_lmdb": round(plain / ours, 2),
    }


def surroundings() -> dict[str, str]:
    """What a result depends on besides the code: commit, host, versions."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607  (git is found as in any shell)
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return {
        "commit": commit.stdout.strip() or "unknown",
        "host": f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}",
        "python": platform.python_version(),
        "py_lmdb": lmdb.__version__,
        "lmdb": ".".join(map(str, lmdb.version())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="measurements per case; the median counts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure (default: the temporary one)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kvnet-bench-", dir=arguments.folder) as folder:
        rows = measure(arguments.rounds, Path(folder))
    table = Table(title=f"{KEYS:,} keys of {KEY_BYTES} bytes, values of {VALUE_BYTES}; microseconds per entry")
    for name in ("case (frames per commit x entries)", "durability", "store", "plain LMDB", "share of LMDB"):
        table.add_column(name)
    for each in rows:
        table.add_row(*(str(field) for field in each.values()))
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(surroundings() | {"results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
