"""A process killed in the middle of its commits leaves a prefix of its history, whole."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kvnet.storage.store import Durability
from tests.support.frames import FrameMaker
from tests.support.stores import assert_is_fold, open_store

JOURNAL_BYTES_MAX = 64 << 10


def history():
    """Always the same frames, without end: small and large values, long keys, deletions, new namespaces."""
    maker = FrameMaker()
    maker.open_epoch()
    namespace = maker.create_namespace("0")
    for number in itertools.count(1):
        yield maker, maker.cut()
        for each in range(number % 7 + 1):
            key = b"%d" % ((number * 7 + each) % 50)
            maker.put(namespace, key * (1 if each % 2 else 300), key * (number % 900))
        if number % 5 == 0:
            maker.delete(namespace, b"%d" % (number % 50) * 300)
        if number % 40 == 0:
            maker.delete_namespace(namespace)
            namespace = maker.create_namespace(str(number))


def apply_until_killed(folder: str, durability: str) -> None:
    """Run in a process of its own: goes on where the folder's store is; writes each seq once it is committed."""
    store = open_store(Path(folder), durability=Durability(durability), journal_bytes_max=JOURNAL_BYTES_MAX)
    for _, frame in history():
        if frame.first_seq > store.position.seq:
            store.apply([frame])
            store.erase_some(3)
            sys.stdout.write(f"{frame.last_seq}\n")
            sys.stdout.flush()


@pytest.mark.parametrize("durability", Durability)
def test_a_killed_process_leaves_a_whole_prefix(folder, durability):
    program = (
        "import sys; from tests.unit.storage.test_kill import apply_until_killed; "
        "apply_until_killed(*sys.argv[1:])"
    )
    for commits_seen in (1, 17, 60):
        with subprocess.Popen(
            [sys.executable, "-c", program, folder, durability],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[3],
        ) as writer:
            for _ in range(commits_seen):
                seen = writer.stdout.readline()
            writer.send_signal(signal.SIGKILL)
            committed = [int(line) for line in (seen, *writer.stdout) if line.endswith(b"\n")]
            assert writer.wait() == -signal.SIGKILL
        store = open_store(folder, durability=durability, journal_bytes_max=JOURNAL_BYTES_MAX)
        assert not store.discarded
        assert store.position.seq >= committed[-1]
        maker = next(maker for maker, frame in history() if frame.position == store.position)
        assert_is_fold(store, maker)
        tail = [frame for frame in maker.frames if frame.first_seq > store.horizon_seq]
        assert store.frames_after(store.horizon_seq, 1 << 30) == tail
        store.close(clean=False)
