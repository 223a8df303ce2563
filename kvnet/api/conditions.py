"""What a read asks for besides a value: nothing if it is known already, or a part of it (RFC 9110, 13 and 14)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from kvnet.api import codes
from kvnet.core.versions import Version

_TAG: Final = re.compile(r'\s*(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")\s*(?:,|$)')
_RANGE: Final = re.compile(r"\s*bytes\s*=\s*([0-9]{0,18})-([0-9]{0,18})\s*", re.IGNORECASE)


class Part(NamedTuple):
    """Bytes of a value, the last one included."""

    first: int
    last: int


def entity_tag(version: Version) -> str:
    return f'"{version}"'


def version_headers(version: Version) -> dict[str, str]:
    return {"KV-Version": str(version), "ETag": entity_tag(version)}


def is_known(headers: Mapping[str, str], version: Version) -> bool:
    """Whether the client has this version: one of the tags in `If-None-Match` is its."""
    told = headers.get("If-None-Match")
    if told is None:
        return False
    if told.strip() == "*":
        return True
    tags = []
    at = 0
    while at < len(told):
        match = _TAG.match(told, at)
        if match is None:
            return False
        tags.append(match[1])
        at = match.end()
    return entity_tag(version) in tags


def wanted_part(headers: Mapping[str, str], version: Version, size: int) -> Part | None:
    """Return what `Range` asks for of a value of so many bytes; None for all of it.

    Several ranges, other units and what can't be read count as none, as they may; so does a range of another
    version, which `If-Range` names.

    Raises:
        RequestError: the range begins behind the value's end.
    """
    match = _RANGE.fullmatch(headers.get("Range", ""))
    if match is None or headers.get("If-Range", entity_tag(version)) != entity_tag(version):
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if not first:
        part = Part(max(0, size - int(last)), size - 1)
        satisfiable = size > 0 and int(last) > 0
    else:
        part = Part(int(first), min(int(last), size - 1) if last else size - 1)
        if last and int(last) < int(first):
            return None
        satisfiable = part.first < size
    if not satisfiable:
        raise codes.RANGE_UNSATISFIABLE.error(size=size, headers={"Content-Range": f"bytes */{size}"})
    return part
