"""Pages of keys as a Worker asks for them, of an API that gives no fewer than ten at a time.

A page that had to be cut has a cursor of our own: the last key that was given, and how the page was asked for.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

from kvnet.client import wire
from kvnet.values import KeyPage, ListedKey

PAGE_KEYS_MIN: Final = 10
PAGE_KEYS_MAX: Final = 1000
"""The API takes page sizes between these."""
_CUT: Final = "~"


class Asked:
    """One page, as it was asked for."""

    def __init__(self, prefix: str, limit: int | None, cursor: str) -> None:
        """A limit of 0 or less is none.

        Raises:
            ValueError: the cursor is no page's.
        """
        self._limit = limit if limit is not None and limit > 0 else PAGE_KEYS_MAX
        self._after, self._cursor = _read_cut(cursor)
        self.query: str = wire.query(
            prefix=prefix, limit=max(self._limit, PAGE_KEYS_MIN), cursor=self._cursor or None
        )

    def page(self, envelope: dict[str, Any]) -> KeyPage:
        """Return the page that the API's answer gives."""
        keys = [
            ListedKey(name=key["name"], expiration=key.get("expiration"), metadata=key.get("metadata"))
            for key in envelope["result"]
            if key["name"].encode() > self._after
        ]
        cursor = envelope["result_info"]["cursor"]
        if len(keys) > self._limit:
            keys = keys[: self._limit]
            last = base64.urlsafe_b64encode(keys[-1].name.encode()).decode()
            cursor = f"{_CUT}{last}{_CUT}{self._cursor}"
        return KeyPage(keys=keys, list_complete=not cursor, cursor=cursor or None)


def _read_cut(cursor: str) -> tuple[bytes, str]:
    """Return the last key given, b"" for none, and the API's own cursor."""
    if not cursor.startswith(_CUT):
        return b"", cursor
    last, cut, rest = cursor[1:].partition(_CUT)
    try:
        after = base64.b64decode(last.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        after = b""
    if not after or not cut:
        raise ValueError("Invalid cursor: give the one of the page before")
    return after, rest
