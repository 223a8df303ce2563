"""JSON arrays that may be longer than a node wants in memory: spooled to a file, and read element by element."""

from __future__ import annotations

import errno
import re
import tempfile
from collections.abc import Iterator
from typing import BinaryIO, Final, cast

from aiohttp import web

from kvnet.api import codes
from kvnet.api.bodies import receive_body

IN_MEMORY_BYTES_MAX: Final = 1024 * 1024
"""A longer body goes to a temporary file."""
READ_BYTES: Final = 256 * 1024
TOKENS_AT_ONCE: Final = 2048
"""Brackets, commas and strings that are passed before others have their turn."""

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SPACE = b" \t\r\n"
# A string that doesn't end in the buffer matches up to its end, without the closing quote.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+("?)|[\[\]{},]', re.DOTALL)


async def spool_body(request: web.BaseRequest, bytes_max: int) -> BinaryIO:
    """Return the whole body as a file at its beginning, to be closed by the caller.

    Raises:
        RequestError: it is longer than `bytes_max`, the disk is full, and what else can go wrong with a body.
    """
    spool = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES_MAX)  # noqa: SIM115 - the caller closes it
    try:
        await receive_body(request, bytes_max, codes.BODY_TOO_LARGE, spool.write)
        spool.seek(0)
    except OSError as error:
        spool.close()
        if error.errno in _NO_ROOM:
            raise codes.SPOOL_FULL.error() from error
        raise
    except BaseException:
        spool.close()
        raise
    return cast(BinaryIO, spool)


def array_elements(file: BinaryIO, element_bytes_max: int) -> Iterator[bytes | None]:
    """Yield the text of each element of the JSON array in `file`; no more than one is held at a time.

    Only the array is looked at: whether an element is JSON is for its reader to find. None stands between two
    stretches of an element that takes long.

    Raises:
        RequestError: it isn't an array, or doesn't end as one, or an element is longer than `element_bytes_max`.
    """
    buffer = _skip_space(file, b"")
    if buffer[:1] != b"[":
        raise codes.BODY_INVALID.error()
    buffer = _skip_space(file, buffer[1:])
    if buffer[:1] == b"]":
        return _expect_end(file, buffer[1:])
    start = at = depth = passed = 0
    while True:
        passed += 1
        if passed % TOKENS_AT_ONCE == 0:
            yield None
        match = _TOKEN.search(buffer, at)
        token = match[0] if match else b""
        if match is None or token[:1] == b'"':
            if match is not None and match[1]:
                at = match.end()
                continue
            # Nothing more to see in this buffer, or a string that goes on behind it.
            at = (match.start() if match else len(buffer)) - start
            if len(buffer) - start > element_bytes_max:
                raise codes.ELEMENT_TOO_LARGE.error(limit=element_bytes_max)
            more = file.read(max(READ_BYTES, len(buffer) - start))
            if not more:
                raise codes.BODY_INVALID.error()
            yield None
            buffer = buffer[start:] + more
            start = 0
            continue
        at = match.end()
        if token in b"[{":
            depth += 1
        elif depth and token in b"]}":
            depth -= 1
        elif not depth and token in b",]":
            yield buffer[start : match.start()]
            if token == b"]":
                return _expect_end(file, buffer[at:])
            start = at
        elif not depth:
            raise codes.BODY_INVALID.error()


def _skip_space(file: BinaryIO, buffer: bytes) -> bytes:
    """Return what is read and not blank, b"" at the end."""
    while True:
        buffer = buffer.lstrip(_SPACE)
        if buffer:
            return buffer
        buffer = file.read(READ_BYTES)
        if not buffer:
            return b""


def _expect_end(file: BinaryIO, buffer: bytes) -> None:
    if _skip_space(file, buffer):
        raise codes.BODY_INVALID.error()
