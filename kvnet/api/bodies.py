"""Request bodies: read with a bound and a deadline, then as bytes, JSON or a form."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from email.message import Message
from email.parser import BytesHeaderParser
from typing import Any, Final

import msgspec
from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError

from kvnet.api import codes
from kvnet.api.codes import Problem
from kvnet.core.entries import INLINE_VALUE_BYTES_MAX
from kvnet.core.pieces import LargeValue, Pieces

SILENCE_S_MAX: Final = 30
"""How long nothing of a body may come."""
BYTES_PER_S_MIN: Final = 8192
"""How slowly a body may come, after the first SILENCE_S_MAX seconds: it holds room that others wait for."""
JSON_BYTES_MAX: Final = 65_536
FORM_OVERHEAD_BYTES: Final = 65_536
"""What boundaries, part headers, metadata and unknown fields may add to a form's value."""
PARTS_MAX: Final = 256
PART_HEADER_BYTES_MAX: Final = 8192

_BINARY_ENCODINGS: Final = frozenset({"", "7bit", "8bit", "binary"})
_parse_headers = BytesHeaderParser().parsebytes


async def read_body(request: web.BaseRequest, bytes_max: int, problem: Problem) -> bytes:
    """Return the whole body; never holds more than `bytes_max` and one chunk of it.

    Raises:
        RequestError: `problem` if it is longer, and what else can go wrong with a body.
        ConnectionError: the client is gone.
    """
    chunks: list[bytes] = []
    await receive_body(request, bytes_max, problem, chunks.append)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def read_value(
    request: web.BaseRequest, bytes_max: int, problem: Problem, take_room: Callable[[], object]
) -> bytes | LargeValue:
    """As `read_body`, of a body that is a value: a large one is cut into chunks while it comes.

    `take_room` is called, once, as soon as it is known to be large.
    """
    pieces = Pieces()
    has_room = (request.content_length or 0) > INLINE_VALUE_BYTES_MAX
    if has_room:
        take_room()

    def add(chunk: bytes) -> None:
        nonlocal has_room
        if not has_room and pieces.size + len(chunk) > INLINE_VALUE_BYTES_MAX:
            has_room = True
            take_room()
        pieces.add(chunk)

    await receive_body(request, bytes_max, problem, add)
    return pieces.end()


async def read_large_body(
    request: web.BaseRequest, bytes_max: int, problem: Problem, take_room: Callable[[], object]
) -> bytearray:
    """As `read_body`, of a body that may be long: in one piece, and never in memory twice."""
    body = bytearray()
    long = INLINE_VALUE_BYTES_MAX + FORM_OVERHEAD_BYTES
    has_room = (request.content_length or 0) > long
    if has_room:
        take_room()

    def add(chunk: bytes) -> None:
        nonlocal has_room
        if not has_room and len(body) + len(chunk) > long:
            has_room = True
            take_room()
        body.extend(chunk)

    await receive_body(request, bytes_max, problem, add)
    return body


async def receive_body(
    request: web.BaseRequest, bytes_max: int, problem: Problem, add: Callable[[bytes], object]
) -> None:
    """Give each part of the body to `add` as it comes.

    Raises:
        RequestError, ConnectionError: as of `read_body`.
    """
    announced = request.content_length
    if announced is not None and announced > bytes_max:
        raise problem.error(length=announced, limit=bytes_max)
    await _meet_expectation(request)
    content = request.content
    size = 0
    now = asyncio.get_running_loop().time
    began = now()
    try:
        while True:
            # What has come already needs no timer: the usual case of a small value.
            if content.is_eof():
                chunk = content.read_nowait(-1)
            else:
                async with asyncio.timeout(SILENCE_S_MAX):
                    chunk = await content.readany()
            if not chunk:
                return
            size += len(chunk)
            if now() - began > SILENCE_S_MAX + size / BYTES_PER_S_MIN:
                raise codes.BODY_TOO_SLOW.error(seconds=SILENCE_S_MAX)
            if size > bytes_max:
                raise problem.error(length=f"more than {bytes_max}", limit=bytes_max)
            add(chunk)
    except TimeoutError:
        raise codes.BODY_TOO_SLOW.error(seconds=SILENCE_S_MAX) from None
    except (web.RequestPayloadError, HttpProcessingError):
        raise codes.BODY_BROKEN.error() from None
    except RuntimeError as error:  # aiohttp's, of a connection that had ended before this began
        if request.transport is not None:
            raise
        raise ConnectionResetError("the client is gone") from error


async def _meet_expectation(request: web.BaseRequest) -> None:
    """Tell a client that waits for it to go on; curl does with bodies from 1 MiB on."""
    expectation = request.headers.get("Expect")
    if expectation is None or request.version < HttpVersion11:
        return
    if expectation.lower() != "100-continue":
        raise codes.EXPECTATION_FAILED.error()
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # the answer itself hasn't begun


async def read_json(request: web.BaseRequest, bytes_max: int = JSON_BYTES_MAX) -> Any:
    """Return the body, read as JSON.

    Raises:
        RequestError: it is longer, or isn't JSON, and what else can go wrong with a body.
    """
    body = await read_body(request, bytes_max, codes.BODY_TOO_LARGE)
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise codes.BODY_INVALID.error() from None


def form_boundary(content_type: str) -> bytes | None:
    """Return the boundary of a multipart form, None for any other content type.

    Raises:
        RequestError: a form without a usable boundary.
    """
    if not content_type.lower().lstrip().startswith("multipart/form-data"):
        return None
    message = Message()
    message["Content-Type"] = content_type
    boundary = (message.get_boundary() or "").encode("utf-8", "surrogateescape")
    if not 1 <= len(boundary) <= 200:  # RFC 2046 says 70; some generators use more
        raise codes.MULTIPART_INVALID.error(what="no boundary of 1 to 200 characters in Content-Type")
    return boundary


def find_parts(body: bytes | bytearray, boundary: bytes) -> dict[str, tuple[int, int]]:
    """Return by name where a form's parts begin and end; the first of several of one name counts.

    The body is whole and bounded already, so its parts are found by searching for the delimiter: a streaming
    reader would copy a large value once more and bring its own, laxer, grammar.

    Raises:
        RequestError: not a form, or one of absurd proportions.
    """
    parts: dict[str, tuple[int, int]] = {}
    delimiter = b"\r\n--" + boundary
    if body.startswith(delimiter[2:]):
        at = len(delimiter) - 2
    else:
        at = _find(body, delimiter, 0, "its first boundary is missing") + len(delimiter)
    for _ in range(PARTS_MAX):
        if body.startswith(b"--", at):
            return parts
        line_end = _find(body, b"\r\n", at, "a boundary's line doesn't end")
        if body[at:line_end].strip(b" \t"):
            raise codes.MULTIPART_INVALID.error(what="something follows a boundary on its line")
        header_end = body.find(b"\r\n\r\n", line_end, line_end + PART_HEADER_BYTES_MAX)
        if header_end < 0:
            raise codes.MULTIPART_INVALID.error(what="a part's headers are endless")
        begin = header_end + 4
        end = _find(body, delimiter, begin, "its last boundary is missing")
        name = _part_name(bytes(body[line_end + 2 : header_end]))
        if name not in parts:
            parts[name] = begin, end
        at = end + len(delimiter)
    raise codes.MULTIPART_INVALID.error(what=f"more than {PARTS_MAX} parts")


def _find(body: bytes | bytearray, wanted: bytes, start: int, otherwise: str) -> int:
    at = body.find(wanted, start)
    if at < 0:
        raise codes.MULTIPART_INVALID.error(what=otherwise)
    return at


def _part_name(header: bytes) -> str:
    """Return a part's field name, "" for none."""
    message = _parse_headers(header)
    if str(message.get("Content-Transfer-Encoding", "")).strip().lower() not in _BINARY_ENCODINGS:
        raise codes.MULTIPART_INVALID.error(what="send parts as they are, without Content-Transfer-Encoding")
    name = message.get_param("name", "", header="content-disposition")
    return name if isinstance(name, str) else ""
