"""The clock's file: what was found expired stays so over a restart, a kill and a damaged file."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys

import pytest

from kvnet.storage.clock_file import FILE_BYTES, ClockFile

NOW_S = 1_522_540_800

NOTING = """
import sys
from pathlib import Path
from kvnet.storage.clock_file import ClockFile

file = ClockFile(Path(sys.argv[1]))
second = int(sys.argv[2])
while True:
    file.note(second)
    sys.stdout.write(f"{second}\\n")
    sys.stdout.flush()
    second += 1
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "clock"


def reached_s(path):
    file = ClockFile(path)
    file.close()
    return file.reached_ms / 1000


def test_a_clock_that_never_told_anything_has_reached_nothing(path):
    assert reached_s(path) == 0
    file = ClockFile(path)
    file.note(0.0)
    file.close()
    assert reached_s(path) == 0


def test_it_holds_the_last_whole_second_and_never_an_earlier_one(path):
    file = ClockFile(path)
    for now_s in (NOW_S, NOW_S + 0.9, NOW_S + 7.25, NOW_S + 3, 5):
        file.note(now_s)
    file.close()
    assert reached_s(path) == NOW_S + 7
    again = ClockFile(path)
    again.note(NOW_S + 2)
    again.close()
    assert reached_s(path) == NOW_S + 7


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_it_goes_on_in_the_slot_that_is_the_older_one(path, count):
    """A kill in the middle of writing leaves the other slot, which must be the newer of the two."""
    file = ClockFile(path)
    for number in range(count):
        file.note(NOW_S + number)
    file.close()
    again = ClockFile(path)
    kept = path.read_bytes()
    again.note(NOW_S + 10)
    written = [
        slot
        for slot in range(0, FILE_BYTES, FILE_BYTES // 2)
        if kept[slot : slot + FILE_BYTES // 2] != path.read_bytes()[slot : slot + FILE_BYTES // 2]
    ]
    again.close()
    assert len(written) == 1
    damaged = bytearray(path.read_bytes())
    damaged[written[0]] ^= 1
    path.write_bytes(damaged)
    assert reached_s(path) == NOW_S + count - 1


def test_what_a_killed_process_noted_is_still_there(path):
    process = subprocess.Popen([sys.executable, "-c", NOTING, str(path), str(NOW_S)], stdout=subprocess.PIPE)
    for _ in range(1000):
        told = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    rest = process.stdout.read().split()
    process.wait()
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL
    assert reached_s(path) >= max(told, *(int(line) for line in rest[:-1]), NOW_S + 999)


@pytest.mark.parametrize("damage", [b"", b"short", bytes(FILE_BYTES), b"\xff" * FILE_BYTES, b"x" * 5000])
def test_a_damaged_file_tells_nothing_and_is_used_again(path, damage):
    path.write_bytes(damage)
    file = ClockFile(path)
    assert file.reached_ms == 0
    file.note(NOW_S)
    file.close()
    assert reached_s(path) == NOW_S


def test_bits_that_flipped_never_make_it_another_time(path):
    file = ClockFile(path)
    file.note(NOW_S)
    file.note(NOW_S + 1)
    file.close()
    whole = path.read_bytes()
    rng = random.Random(1)
    for bit in range(8 * FILE_BYTES):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        if rng.random() < 0.5:
            damaged[rng.randrange(FILE_BYTES)] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        assert reached_s(path) in (0, NOW_S, NOW_S + 1)


def test_without_a_place_on_the_disk_it_goes_on_in_memory(tmp_path):
    file = ClockFile(tmp_path / "no such folder" / "clock")
    file.note(NOW_S)
    assert file.reached_ms == NOW_S * 1000
    file.close()


def test_nothing_is_written_within_a_second(path, monkeypatch):
    file = ClockFile(path)
    file.note(NOW_S)
    monkeypatch.setattr("kvnet.storage.clock_file._SLOT", None)
    file.note(NOW_S + 0.999)
    with pytest.raises(AttributeError):
        file.note(NOW_S + 1)
    file.close()
