"""Request heads that leave no room for two readings; the fast lane takes no others.

A head is a request line and a block: everything behind it, down to the empty line. Clients with one connection
repeat the block byte by byte, so what it says is found out once. Bare line feeds, folded lines, spaces before a
colon, a name that comes twice: whatever two servers could read in two ways is left to the full parser, which
refuses it or knows what it means.
"""

from __future__ import annotations

import re
from typing import Final

END: Final = b"\r\n\r\n"

_FIELD: Final = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?[ \t]*"
)
_FIELDS_MAX: Final = 64


def read_block(block: bytes) -> dict[str, str] | None:
    """Return the fields by lower-case name; None for a block that isn't plainly one.

    `block` begins with the line end of the request line and ends with the empty line, and must be all of it.
    """
    if not block.startswith(b"\r\n") or not block.endswith(END):
        return None
    lines = block[2:-4].split(b"\r\n") if len(block) > len(END) else []
    if len(lines) > _FIELDS_MAX:
        return None
    fields: dict[str, str] = {}
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            return None
        name = match[1].decode("ascii").lower()
        if name in fields:
            return None
        fields[name] = (match[2] or b"").decode("ascii")
    return fields
