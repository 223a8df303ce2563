"""One replica and ever more keys: what loading, a read, a page of a listing and a key's bytes come to.

For each size a fresh replica is filled as a node is that takes a snapshot: pages in key order into a successor,
which is proven by its digest and put in place. Then single keys are read at random, and pages listed at the
beginning, in the middle and at the end. Beside it plain LMDB reads the same keys in the same environment, in
the same run.

    python -m bench.scale [--keys N]… [--folder DIR] [--json FILE] [--plot FILE]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from bench._support.arguments import count, new_file
from bench._support.key_space import NAMESPACE, KeySpace, key_of_number
from bench._support.plot import plot_scale, require_matplotlib
from bench._support.surroundings import surroundings
from kvnet.core.entries import DIGEST_MODULUS, HASH_BYTES
from kvnet.core.messages import Page
from kvnet.errors import ConfigError, KvnetError
from kvnet.storage.store import Durability, Store

SIZES: Final = (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
BYTES_PER_KEY: Final = 160
"""What a key takes of the disk, and some more, to tell beforehand whether there is room."""
READS: Final = 50_000
ROUNDS: Final = 5
LISTED: Final = 1000
LISTINGS: Final = 200
REPLAY_BUDGET: Final = 1000
OK, FAILED, USAGE = 0, 1, 2


def make(space: KeySpace, pipe: Connection) -> None:
    """In a process of its own: make the pages, so that the loader's time is the loader's."""
    for page, total in space.pages():
        pipe.send((tuple(page), total))
    pipe.close()


def made(space: KeySpace) -> Iterator[tuple[Page, int]]:
    """Yield what `make` makes."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    maker = context.Process(target=make, args=(space, theirs), daemon=True)
    maker.start()
    theirs.close()
    try:
        while True:
            try:
                fields, total = ours.recv()
            except EOFError:
                return
            yield Page(*fields), total
    finally:
        ours.close()
        maker.join()


def load(store: Store, space: KeySpace, on_page: Callable[[int], None]) -> dict[str, float]:
    """Fill the store; return the seconds from the first page to the proven replica, and those of storing alone."""
    begun = time.perf_counter()
    storing_s = 0.0
    total = 0
    store.begin_successor(space.position)
    for page, added in made(space):
        total += added
        before = time.perf_counter()
        store.store_page(page)
        storing_s += time.perf_counter() - before
        on_page(1)
    before = time.perf_counter()
    digest = (total % DIGEST_MODULUS).to_bytes(HASH_BYTES, "big")
    while store.replay_some(space.position, digest, REPLAY_BUDGET) is None:
        pass
    ended = time.perf_counter()
    return {"load_s": ended - begun, "storing_s": storing_s, "proving_s": ended - before}


def measure_reads(store: Store, keys: list[bytes]) -> dict[str, float]:
    """Return microseconds a read, ours and plain LMDB's, of keys that were read before; and of the first time."""
    environment = store.environment
    begin, records = environment.lmdb.begin, environment.database("records")
    prefix = store.tallies[NAMESPACE.id].prefix
    get, namespace = store.get, NAMESPACE.id

    def ours() -> None:
        for key in keys:
            get(namespace, key)

    def plain() -> None:
        for key in keys:
            with begin(records) as txn:
                txn.get(prefix + key)

    first_us = timed(ours) / len(keys) * 1e6
    pairs = [(timed(ours), timed(plain)) for _ in range(ROUNDS)]
    ours_us, plain_us = (median(column) / len(keys) * 1e6 for column in zip(*pairs, strict=True))
    return {"first_us": first_us, "get_us": ours_us, "lmdb_us": plain_us}


def measure_listings(store: Store, size: int) -> dict[str, float]:
    """Return milliseconds for a page of keys at the beginning, in the middle, at the end and anywhere."""
    draw = random.Random(3)
    places: dict[str, Callable[[], int]] = {
        "list_first_ms": lambda: 0,
        "list_middle_ms": lambda: size // 2,
        "list_last_ms": lambda: max(0, size - LISTED - 1),
        "list_random_ms": lambda: draw.randrange(max(1, size - LISTED)),
    }

    def page_ms(place: int) -> float:
        after = key_of_number(place)
        return timed(lambda: store.list_keys(NAMESPACE.id, b"", after, LISTED, 0)) * 1000

    for at in places.values():  # the pages of the file are read once before
        page_ms(at())
    return {name: median(page_ms(at()) for _ in range(LISTINGS)) for name, at in places.items()}


def measure(size: int, folder: Path, progress: Progress) -> dict[str, Any]:
    """Return the row of this size; the replica is gone afterwards."""
    space = KeySpace(size)
    at = folder / f"{size}"
    if shutil.disk_usage(folder).free < size * BYTES_PER_KEY:
        raise ConfigError(
            f"{size:,} keys need {size * BYTES_PER_KEY >> 20:,} MiB in {folder}: name another --folder"
        )
    store = Store.open(at, node="bench", cluster_id=bytes(16), durability=Durability.NONE, refillable=True)
    try:
        task = progress.add_task(f"loading {size:,} keys", total=space.page_count)
        loaded = load(store, space, lambda pages: progress.advance(task, pages))
        progress.update(task, description=f"reading {size:,} keys")
        draw = random.Random(2)
        reads = measure_reads(store, [key_of_number(draw.randrange(size)) for _ in range(READS)])
        row = {
            "keys": size,
            **loaded,
            "keys_per_s": size / loaded["load_s"],
            "bytes_per_key": store.stats()["map_bytes"] / size,
            **reads,
            **measure_listings(store, size),
        }
        progress.remove_task(task)
    finally:
        store.close(clean=False)
        shutil.rmtree(at, ignore_errors=True)
    return {name: value if isinstance(value, int) else float(f"{value:.5g}") for name, value in row.items()}


def timed(work: Callable[[], object]) -> float:
    before = time.perf_counter()
    work()
    return time.perf_counter() - before


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Print two tables: what loading came to, and what reading."""
    loading = {
        "keys": ("keys", "{:,}"),
        "load_s": ("load, s", "{:,.1f}"),
        "keys_per_s": ("keys/s", "{:,.0f}"),
        "proving_s": ("proof, s", "{:,.2f}"),
        "bytes_per_key": ("bytes a key", "{:.0f}"),
    }
    reading = {
        "keys": ("keys", "{:,}"),
        "get_us": ("get, µs", "{:.2f}"),
        "lmdb_us": ("plain, µs", "{:.2f}"),
        "first_us": ("first time, µs", "{:.2f}"),
        "list_first_ms": ("first page, ms", "{:.2f}"),
        "list_middle_ms": ("middle", "{:.2f}"),
        "list_last_ms": ("last", "{:.2f}"),
    }
    for title, columns in (
        ("Loaded in key order, as a snapshot is: 16-byte keys, 32-byte values", loading),
        ("Read: single keys at random, pages of 1,000 keys", reading),
    ):
        table = Table(title=title)
        for heading, _ in columns.values():
            table.add_column(heading, justify="right")
        for row in rows:
            table.add_row(*(form.format(row[name]) for name, (_, form) in columns.items()))
        Console().print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=count, action="append", metavar="N", help="this size; may be repeated")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="a folder on the disk to measure")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write the result here")
    parser.add_argument("--plot", type=new_file, metavar="FILE", help="draw it here")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    try:
        if arguments.plot:
            require_matplotlib()
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with (
            tempfile.TemporaryDirectory(prefix="kvnet-bench-", dir=arguments.folder) as folder,
            Progress(*columns, console=Console(stderr=True)) as progress,
        ):
            for size in arguments.keys or SIZES:
                rows.append(measure(size, Path(folder), progress))  # noqa: PERF401 - each takes minutes
    except ConfigError as error:
        print(f"bench.scale: {error}", file=sys.stderr)
        return USAGE
    except KvnetError as error:
        print(f"bench.scale: {error}", file=sys.stderr)
        return FAILED
    print_rows(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(surroundings() | {"results": rows}, indent=2) + "\n")
    if arguments.plot:
        plot_scale(rows, arguments.plot)
    return OK


if __name__ == "__main__":
    sys.exit(main())
