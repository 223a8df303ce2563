"""Which requests a reader process answers itself: reads of values and keys that ask no more than it has.

Everything else is its node's: writes, namespaces, tokens, what a node says of itself, what peers say to each
other, and reads that would have to wait for a newer view, or be put to another node.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kvnet.api import binding, openapi
from kvnet.api.backend import Backend
from kvnet.api.freshness import AT_LEAST, MAX_STALENESS
from kvnet.api.heads import read_block
from kvnet.api.query import read_integer
from kvnet.api.routes import API_PREFIX, Resource, find_place, split_target
from kvnet.core.versions import Version
from kvnet.errors import RequestError

AGES_MS: Final = 100
"""By so much a view may have aged before its answer is made."""

_OPEN: Final = frozenset({"/healthz", openapi.PATH, API_PREFIX + openapi.PATH})
_ONE_BY_ONE: Final = frozenset({Resource.VALUE, Resource.KEYS, Resource.METADATA})
_GETS: Final = frozenset({"GET", "HEAD"})


def is_read(request: bytes, backend: Backend) -> bool:
    """Whether a request with this head can be answered from `backend`'s replica as it is now.

    One that can't be read, or is refused, may be either: both processes say the same.
    """
    at = request.find(b"\r\n")
    fields = read_block(request[at:])
    if fields is None:
        return False
    method, _, rest = request[:at].decode("ascii", "replace").partition(" ")
    path = split_target(rest.partition(" ")[0]).path
    if binding.HEADER.lower() in fields:
        reads = method in _GETS or (method == "POST" and path == "/bulk/get")
    elif path in _OPEN:
        return method in _GETS
    else:
        try:
            resource = find_place(method, path).resource
        except RequestError:
            return False
        reads = resource in _ONE_BY_ONE if method in _GETS else (resource, method) == (Resource.BULK_GET, "POST")
    return reads and _is_met(fields, backend)


def _is_met(fields: Mapping[str, str], backend: Backend) -> bool:
    """Whether this view is as new as the request asks."""
    at_least, staleness = fields.get(AT_LEAST.lower()), fields.get(MAX_STALENESS.lower())
    if at_least is not None:
        try:
            if backend.store.position.version < Version.parse(at_least):
                return False
        except ValueError:
            return True
    if staleness is None:
        return True
    allowed_ms = read_integer(staleness)
    return allowed_ms is None or backend.staleness_ms() + AGES_MS <= allowed_ms
