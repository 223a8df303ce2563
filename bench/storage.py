"""The price of a store over the LMDB under it, and whether the bars hold.

`apply` beside `putmulti` of the same bytes in as many transactions, and `get` beside a plain get in a fresh
transaction: same flags, same keys, same run, taken in turns. Plain LMDB keeps no journal, digest, versions or
checksums; what it is given are our places and our records, made before the clock starts. It can't hold a key of
2,048 bytes: beside those stands its get of a short one. A replay has nothing beside it, but a rate to reach.

    python -m bench.storage [--rounds N] [--json FILE] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final

from rich.console import Console
from rich.table import Table

from bench._support.arguments import count, new_file
from bench._support.history import NAMESPACE, History
from bench._support.surroundings import surroundings
from kvnet.core.entries import HASH_BYTES
from kvnet.core.messages import Page
from kvnet.storage.disk import HOST
from kvnet.storage.environment import MAP_SIZE_BYTES, Environment, Owner
from kvnet.storage.keys import root_prefix
from kvnet.storage.records import pack_record
from kvnet.storage.store import Durability, Store

KEYS: Final = 50_000
KEY_BYTES: Final = 16
LONG_KEYS: Final = 5_000
LONG_KEY_BYTES: Final = 2_048
VALUE_BYTES: Final = 100
READS: Final = 20_000
"""Per measurement."""
ENTRIES: Final = 20_000
"""Per measurement; a tenth of it where every commit waits for the disk."""
REPLAYED: Final = 50_000
SHAPES: Final = ((1, 5), (4, 10), (4, 20), (20, 20), (1, 100), (10, 100))
"""(frames per commit, entries per frame)"""
JOURNAL_BYTES_MAX: Final = 4 << 20
CLUSTER_ID: Final = bytes(16)

GET_BAR: Final = 0.6
GET_LONG_BAR: Final = 0.2
APPLY_BAR: Final = 0.3
"""Of frames of 100 entries."""
REPLAY_BAR: Final = 100_000
"""Entries a second."""

Sample = tuple[float, float]
"""(the store's, plain LMDB's) seconds per entry or read."""


@dataclass(frozen=True, slots=True)
class Row:
    """Medians, in microseconds per entry or read."""

    case: str
    durability: str
    store_us: float
    lmdb_us: float | None = None
    share_of_lmdb: float | None = None
    per_second: int | None = None
    bar: float | None = None
    holds: bool | None = None
    """By the figures before they are rounded; None where there is no bar."""


class Pair:
    """A store and a plain LMDB database with the same bytes in them, in environments opened alike."""

    def __init__(self, folder: Path, durability: Durability) -> None:
        self._draw = random.Random(2)
        self._keys = [self._draw.randbytes(KEY_BYTES) for _ in range(KEYS)]
        self._long_keys = [self._draw.randbytes(LONG_KEY_BYTES) for _ in range(LONG_KEYS)]
        self._history = History(VALUE_BYTES)
        self._store = open_store(folder / "store", durability)
        # A store of their own: the other one's tree is to be as high as plain LMDB's.
        self._long = open_store(folder / "long", durability)
        self._plain = Environment(
            folder / "plain",
            Owner(CLUSTER_ID.hex(), "bench"),
            synced=durability is Durability.COMMIT,
            map_size_bytes=MAP_SIZE_BYTES,
            disk=HOST,
        )
        self._db = self._plain.database("records")
        self._prefix = root_prefix(1)
        self._store.apply([self._history.begin()])
        for keys in batched(self._keys, 1000):
            self._store.apply([self._history.puts(keys)])
            self._put_plain(self._places(keys))
        long = History(VALUE_BYTES)
        self._long.apply([long.begin()])
        for keys in batched(self._long_keys, 100):
            self._long.apply([long.puts(keys)])

    def measure_writes(self, entries: int, frames_at_once: int, frame_entries: int) -> Sample:
        at_once = frames_at_once * frame_entries
        drawn = [self._draw.choices(self._keys, k=at_once) for _ in range(entries // at_once)]
        commits = [[self._history.puts(keys) for keys in batched(each, frame_entries)] for each in drawn]
        plain = [self._places(self._draw.choices(self._keys, k=at_once)) for _ in commits]

        def apply() -> None:
            for frames in commits:
                self._store.apply(frames)

        def put() -> None:
            for places in plain:
                self._put_plain(places)

        return timed(apply) / (len(commits) * at_once), timed(put) / (len(commits) * at_once)

    def measure_reads(self, *, long: bool) -> Sample:
        """Plain LMDB reads short keys in any case."""
        keys = self._draw.choices(self._long_keys if long else self._keys, k=READS)
        places = [self._prefix + key for key in self._draw.choices(self._keys, k=READS)]
        get, begin, db = (self._long if long else self._store).get, self._plain.lmdb.begin, self._db

        def plain_gets() -> None:
            for place in places:
                with begin(db) as txn:
                    txn.get(place)

        def gets() -> None:
            for key in keys:
                get(NAMESPACE.id, key)

        return timed(gets) / READS, timed(plain_gets) / READS

    def close(self) -> None:
        self._store.close(clean=False)
        self._long.close(clean=False)
        self._plain.retire()

    def _places(self, keys: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        """Return what the store would write for puts of these keys."""
        value = self._draw.randbytes(VALUE_BYTES)
        return [(self._prefix + key, pack_record(key, value, b"", 0, 1, 1, bytes(HASH_BYTES))) for key in keys]

    def _put_plain(self, places: list[tuple[bytes, bytes]]) -> None:
        with self._plain.lmdb.begin(self._db, write=True) as txn, txn.cursor() as cursor:
            cursor.putmulti(places)


class Replay:
    """A replica made of pages again and again, each time with the same journal to be replayed onto them."""

    def __init__(self, folder: Path, durability: Durability) -> None:
        draw = random.Random(3)
        keys = [draw.randbytes(KEY_BYTES) for _ in range(KEYS)]
        history = History(VALUE_BYTES)
        donor = open_store(folder / "donor", durability)
        donor.apply([history.begin(), *(history.puts(some) for some in batched(keys, 1000))])
        self._pages = pages_of(donor)
        donor.close()
        self._frames = [history.puts(draw.choices(keys, k=100)) for _ in range(REPLAYED // 100)]
        self._store = open_store(folder / "replayed", durability)

    def measure(self) -> float:
        """Return seconds per entry, the proof and the swap at the end included."""
        first = self._pages[0]
        self._store.begin_successor(first.position)
        for page in self._pages:
            self._store.store_page(page)
        self._store.apply(self._frames)

        def replay() -> None:
            while self._store.replay_some(first.position, first.digest) is None:
                pass

        seconds = timed(replay)
        assert self._store.position == self._frames[-1].position, "replayed to the end"
        return seconds / REPLAYED

    def close(self) -> None:
        self._store.close(clean=False)


def open_store(folder: Path, durability: Durability) -> Store:
    return Store.open(
        folder, node="bench", cluster_id=CLUSTER_ID, durability=durability, journal_bytes_max=JOURNAL_BYTES_MAX
    )


def pages_of(store: Store) -> list[Page]:
    pages = [store.read_page(b"")]
    while pages[-1].until:
        pages.append(store.read_page(pages[-1].until))
    return pages


def batched(keys: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(keys), size):
        yield keys[start : start + size]


def timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(rounds: int, folder: Path) -> list[Row]:
    """Return a row per case, with medians over `rounds`."""
    rows = []
    for durability in Durability:
        pair = Pair(folder / durability, durability)
        entries = ENTRIES // 10 if durability is Durability.COMMIT else ENTRIES
        for frames_at_once, frame_entries in SHAPES:
            samples = [pair.measure_writes(entries, frames_at_once, frame_entries) for _ in range(rounds)]
            bar = APPLY_BAR if frame_entries == 100 else None
            rows.append(compared(f"apply, {frames_at_once} x {frame_entries}", durability, samples, bar))
        reads = [pair.measure_reads(long=False) for _ in range(rounds)]
        rows.append(compared("get", durability, reads, GET_BAR))
        reads = [pair.measure_reads(long=True) for _ in range(rounds)]
        rows.append(compared(f"get, keys of {LONG_KEY_BYTES:,} bytes", durability, reads, GET_LONG_BAR))
        pair.close()
        replay = Replay(folder / durability, durability)
        seconds = median(replay.measure() for _ in range(rounds))
        replay.close()
        rows.append(
            Row(
                "replay",
                durability,
                round(seconds * 1e6, 2),
                per_second=round(1 / seconds),
                bar=REPLAY_BAR,
                holds=1 / seconds >= REPLAY_BAR,
            )
        )
    return rows


def compared(case: str, durability: Durability, samples: list[Sample], bar: float | None) -> Row:
    ours, plain = (median(column) * 1e6 for column in zip(*samples, strict=True))
    share = plain / ours
    holds = None if bar is None else share >= bar
    return Row(case, durability, round(ours, 2), round(plain, 2), round(share, 3), bar=bar, holds=holds)


def table_of(rows: list[Row]) -> Table:
    table = Table(title=f"{KEYS:,} keys of {KEY_BYTES} bytes, values of {VALUE_BYTES}; microseconds per entry")
    for name in ("case (frames per commit x entries)", "durability", "store", "plain LMDB", "reached", "bar", ""):
        table.add_column(name, justify="left" if name.startswith(("case", "dur")) else "right")
    for row in rows:
        reached = f"{row.per_second:,} a second" if row.per_second else f"{row.share_of_lmdb} of LMDB"
        verdict = {None: "", True: "holds", False: "MISSED"}[row.holds]
        plain = "" if row.lmdb_us is None else str(row.lmdb_us)
        bar = "" if row.bar is None else f"{row.bar:,}"
        table.add_row(row.case, row.durability, str(row.store_us), plain, reached, bar, verdict)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=count, default=7, help="measurements per case; the median counts")
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
