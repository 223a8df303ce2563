"""Arrays read element by element are what they are when read whole, wherever their bytes are cut."""

from __future__ import annotations

import io
import json
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvnet.api import arrays
from kvnet.api.arrays import array_elements
from kvnet.errors import RequestError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


class Dribble(io.BytesIO):
    """Gives no more than `size` bytes at a time, whatever is asked for."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self._size = size

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self._size)


def elements_of(file: BinaryIO, bytes_max: int = 1 << 20) -> list[bytes]:
    return [each for each in array_elements(file, bytes_max) if each is not None]


@given(
    st.lists(VALUES, max_size=8),
    st.integers(1, 40),
    st.booleans(),
    st.sampled_from([None, 1, "\t"]),
    st.sampled_from(["", " ", "\r\n\t "]),
)
def test_elements_are_those_of_the_whole(values, size, ascii_only, indent, around):
    text = around + json.dumps(values, ensure_ascii=ascii_only, indent=indent) + around
    elements = elements_of(Dribble(text.encode("utf-8", "surrogatepass"), size))
    assert [json.loads(element) for element in elements] == values


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"{}",
        b"1",
        b'"[]"',
        b"[",
        b"[1",
        b"[1,",
        b"[[1]",
        b"[{]",
        b'["a',
        b'["a\\"]',
        b"[]]",
        b"[1]2",
        b"[1][2]",
        b"[1}",
        b"\xef\xbb\xbf[]",
        b"\x00",
    ],
)
def test_what_is_no_array_is_refused(text, size):
    with pytest.raises(RequestError) as raised:
        elements_of(Dribble(text, size))
    assert (raised.value.status, raised.value.code) == (400, 10012)


def test_no_more_than_the_longest_element_is_held():
    """A body of a hundred elements is read as it is asked for."""

    class Counting(io.BytesIO):
        taken = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.taken += len(data)
            return data

    element = b'"' + b"x" * arrays.READ_BYTES + b'"'
    file = Counting(b"[" + b",".join([element] * 100) + b"]")
    elements = (each for each in array_elements(file, 2 * arrays.READ_BYTES) if each is not None)
    for number, taken in enumerate(elements, 1):
        assert taken == element
        assert file.taken <= number * len(element) + 3 * arrays.READ_BYTES
    assert number == 100


@pytest.mark.parametrize("element", [b'"' + b"x" * 3_000_000, b"[" * 3_000_000, b"[[]," * 1_000_000])
def test_an_element_that_is_too_long_is_refused_before_it_is_in_memory(element):
    file = io.BytesIO(b"[" + element * 10)
    with pytest.raises(RequestError) as raised:
        elements_of(file, 1_000_000)
    assert raised.value.status == 413
    assert file.tell() <= 3 * arrays.READ_BYTES + 2_000_000


def test_others_have_their_turn_within_an_element():
    file = io.BytesIO(b"[" + b"[" + b"[]," * 50_000 + b"[]]" + b"]")
    pauses = sum(each is None for each in array_elements(file, 1 << 20))
    assert pauses >= 150_000 // arrays.TOKENS_AT_ONCE
