"""A record's bytes: their layout is fixed, since pages carry it between nodes of different versions."""

from __future__ import annotations

from zlib import crc32

import pytest

from kvnet.core.manifest import Manifest
from kvnet.errors import StorageDamaged
from kvnet.storage.records import (
    LARGE,
    OVERHEAD_BYTES,
    PLAIN,
    is_whole,
    pack_record,
    read_listed,
    read_record,
    read_replaced,
)

HASH = bytes(range(16))


def sealed(key: bytes, body: bytes) -> bytes:
    """The body with the checksum that belongs to it, whatever it is."""
    return body + crc32(key + body).to_bytes(4, "little")


def test_a_record_lies_on_the_disk_as_it_is_written_down() -> None:
    head = bytes.fromhex("00000001 0000000000000002") + HASH
    assert pack_record(b"key", b"value", b"", 0, 1, 2, HASH) == sealed(b"key", b"\x80" + head + b"value")
    expires, metadata = bytes.fromhex("0000000000000007"), bytes.fromhex("00000002") + b"{}"
    assert pack_record(b"key", b"value", b"", 7, 1, 2, HASH) == sealed(b"key", b"\x81" + head + expires + b"value")
    assert pack_record(b"key", b"value", b"{}", 0, 1, 2, HASH) == sealed(
        b"key", b"\x82" + head + metadata + b"value"
    )
    assert pack_record(b"key", b"value", b"{}", 7, 1, 2, HASH, large=True) == sealed(
        b"key", b"\x87" + head + expires + metadata + b"value"
    )


@pytest.mark.parametrize("kind", [*range(PLAIN), *range(PLAIN + 8, 256)])
def test_a_record_of_an_unknown_kind_is_not_read_though_its_checksum_holds(kind: int) -> None:
    stored = sealed(b"key", bytes([kind]) + bytes(12) + HASH + b"value")
    assert not is_whole(b"key", stored)
    for read in (read_record, read_replaced):
        with pytest.raises(StorageDamaged):
            read(b"key", stored)
    with pytest.raises(StorageDamaged):
        read_listed(b"key", memoryview(stored))


@pytest.mark.parametrize("kind", range(PLAIN, PLAIN + 8))
@pytest.mark.parametrize("length", range(OVERHEAD_BYTES))
def test_a_record_shorter_than_its_header_is_damage_to_whoever_takes_it(kind: int, length: int) -> None:
    stored = (bytes([kind]) + bytes(40))[:length]
    assert not is_whole(b"key", sealed(b"key", stored[: max(0, length - 4)]))
    if length < OVERHEAD_BYTES - 4:
        with pytest.raises(StorageDamaged):
            read_replaced(b"key", stored)


@pytest.mark.parametrize("kind", [0x81, 0x82, 0x83])
def test_a_record_without_room_for_what_its_kind_promises_is_damage(kind: int) -> None:
    stored = sealed(b"key", bytes([kind]) + bytes(12) + HASH + b"\xff\xff")
    for read in (read_record, read_replaced):
        with pytest.raises(StorageDamaged):
            read(b"key", stored)
    with pytest.raises(StorageDamaged):
        read_listed(b"key", memoryview(stored))


def test_a_large_record_whose_value_is_no_manifest_is_damage_to_whoever_replaces_it() -> None:
    stored = pack_record(b"key", b"value", b"", 0, 1, 2, HASH, large=True)
    assert stored[0] == PLAIN | LARGE
    with pytest.raises(StorageDamaged):
        read_replaced(b"key", stored)


def test_whoever_replaces_a_large_record_learns_the_values_own_size() -> None:
    manifest = Manifest(1000, (bytes(32),)).pack()
    stored = pack_record(b"key", manifest, b"{}", 0, 1, 2, HASH, large=True)
    was = read_replaced(b"key", stored)
    assert (was.size, was.large, was.seq, was.hash) == (1002, manifest, 2, int.from_bytes(HASH, "big"))
    assert read_record(b"key", stored).large


def test_a_damaged_record_names_its_key_and_the_cure_in_one_line() -> None:
    stored = pack_record(b"key", b"value", b"", 0, 1, 2, HASH)
    with pytest.raises(StorageDamaged, match=r"b'line\\nbreak' isn't what was written.*made anew") as refusal:
        read_record(b"line\nbreak", stored)
    assert "\n" not in str(refusal.value)


def test_an_expiry_before_1970_is_refused() -> None:
    with pytest.raises(ValueError, match="1970"):
        pack_record(b"key", b"value", b"", -1, 1, 2, HASH)
