from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvnet.core.versions import GENESIS, Position, Version


@given(st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1))
def test_a_version_reads_what_it_writes(epoch: int, seq: int) -> None:
    version = Version(epoch, seq)
    assert Version.parse(str(version)) == version


@pytest.mark.parametrize(
    "text", ["", "1", "1-", "-1", "01-2", "1-02", "1-2-3", " 1-2", "1-2\n", "+1-2", "1-٢", "a-b"]
)
def test_anything_else_is_no_version(text: str) -> None:
    with pytest.raises(ValueError, match="write <epoch>-<seq>"):
        Version.parse(text)


def test_a_position_tells_its_version() -> None:
    assert GENESIS.version == (0, 0)
    assert Position(2, 7, bytes(16)).version == Version(2, 7)
    assert str(Position(2, 7, bytes.fromhex("0123456789") + bytes(11))) == "2-7:01234567"
