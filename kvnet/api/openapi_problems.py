"""Which problems a request can meet on its way, in groups as the code raises them."""

from __future__ import annotations

from typing import Final

from kvnet.api import codes
from kvnet.api.codes import Problem
from kvnet.api.routes import OF_NODE, Resource
from kvnet.core.catalog import Scope

Problems = tuple[Problem, ...]

ANYWHERE: Final[Problems] = (
    codes.HTTP_MALFORMED,
    codes.LINE_TOO_LONG,
    codes.HEADERS_TOO_LARGE,
    codes.INTERNAL,
)
_WITH_TOKEN: Final[Problems] = (
    codes.AUTH_MISSING,
    codes.AUTH_GARBLED,
    codes.NO_ROUTE,
    codes.QUERY_INVALID,
    codes.TOKEN_UNKNOWN,
    codes.TOKEN_NOT_ALLOWED,
    codes.KEY_PAIR_UNKNOWN,
    codes.NOT_READY,
    codes.DAMAGED,
)
_FRESHNESS: Final[Problems] = (codes.HEADER_INVALID, codes.STILL_BEHIND)
_READ: Final[Problems] = (codes.TOO_STALE,)
_WRITE: Final[Problems] = (
    codes.NODE_REFUSED,
    codes.UNREACHABLE,
    codes.TOO_MANY_WRITES,
    codes.DISK_BEHIND,
    codes.NOT_WRITING,
    codes.UNKNOWN_OUTCOME,
    codes.DISK_FULL,
)
_NAMESPACE: Final[Problems] = (
    codes.NAMESPACE_ID_LENGTH,
    codes.NAMESPACE_ID_FORMAT,
    codes.NAMESPACE_NOT_FOUND,
    codes.METHOD_NOT_SUPPORTED,
)
KEY: Final[Problems] = (
    codes.KEY_UNDECODABLE,
    codes.KEY_NOT_ALLOWED,
    codes.KEY_TOO_LONG,
)
_KEY_IN_PATH: Final[Problems] = (*KEY, codes.KEY_EMPTY)
PAIR: Final[Problems] = (codes.KEY_NOT_FOUND,)
VALUE_READ: Final[Problems] = (codes.RANGE_UNSATISFIABLE, *PAIR)
BODY: Final[Problems] = (
    codes.BODY_BROKEN,
    codes.BODY_TOO_SLOW,
    codes.BODY_TOO_LARGE,
    codes.EXPECTATION_FAILED,
)
JSON_BODY: Final[Problems] = (codes.BODY_INVALID, *BODY)
TITLE: Final[Problems] = (
    codes.TITLE_MISSING,
    codes.TITLE_TOO_LONG,
    codes.TITLE_TAKEN,
    codes.JURISDICTION,
    *JSON_BODY,
)
NEW_NAMESPACE: Final[Problems] = (codes.NAMESPACE_ID_CHOSEN, codes.NAMESPACE_ID_TAKEN, *TITLE)
PAGES: Final[Problems] = (codes.FIELD_INVALID,)
NEW_TOKEN: Final[Problems] = (
    codes.FIELD_INVALID,
    codes.NAMESPACE_ID_LENGTH,
    codes.NAMESPACE_ID_FORMAT,
    codes.NAMESPACE_NOT_FOUND,
    codes.TOKEN_SECRET_LOST,
    codes.SECRET_UNKNOWN,
    *JSON_BODY,
)
TOKEN: Final[Problems] = (codes.TOKEN_NOT_FOUND,)
ROLL: Final[Problems] = (*TOKEN, codes.TOKEN_LAST_ADMIN, codes.TOKEN_SECRET_LOST, codes.SECRET_UNKNOWN)
REVOCATION: Final[Problems] = (*TOKEN, codes.TOKEN_LAST_ADMIN)
RATE: Final[Problems] = (codes.WRITTEN_TOO_SOON,)
EXPIRY: Final[Problems] = (
    codes.TTL_NOT_POSITIVE,
    codes.TTL_TOO_SHORT,
    codes.TTL_TOO_LONG,
    codes.EXPIRATION_PAST,
    codes.EXPIRATION_TOO_SOON,
    codes.EXPIRATION_TOO_LATE,
)
VALUE: Final[Problems] = (
    codes.VALUE_TOO_LARGE,
    codes.METADATA_INVALID,
    codes.METADATA_TOO_LARGE,
    codes.TOO_MANY_LARGE,
    *EXPIRY,
)
MULTIPART: Final[Problems] = (codes.VALUE_MISSING, codes.MULTIPART_INVALID)
LISTING: Final[Problems] = (codes.LIMIT_TOO_LOW, codes.LIMIT_TOO_HIGH, codes.CURSOR_INVALID)
BULK: Final[Problems] = (
    codes.BULK_ELEMENT,
    codes.BULK_TOO_MANY,
    codes.ELEMENT_TOO_LARGE,
    codes.TOO_MANY_LARGE,
    codes.SPOOL_FULL,
    codes.KEY_NOT_ALLOWED,
    codes.KEY_TOO_LONG,
    *RATE,
    *JSON_BODY,
)
BULK_GET: Final[Problems] = (
    codes.BULK_ELEMENT,
    codes.BULK_GET_COUNT,
    codes.BULK_GET_NONE,
    codes.BULK_GET_NOT_TEXT,
    codes.BULK_GET_TYPE,
    codes.BULK_GET_TOO_LARGE,
    codes.TOO_MANY_LARGE,
    codes.KEY_NOT_ALLOWED,
    codes.KEY_TOO_LONG,
    *JSON_BODY,
)

_OF_KEY: Final = frozenset({Resource.VALUE, Resource.METADATA})
_OUTSIDE: Final = frozenset(
    {
        *OF_NODE,
        Resource.TOKEN_VERIFICATION,
        Resource.TOKENS,
        Resource.TOKEN,
        Resource.TOKEN_VALUE,
        Resource.ACCOUNTS,
        Resource.ACCOUNT,
        Resource.MEMBERSHIPS,
        Resource.NAMESPACES,
    }
)
"""Resources that are in no namespace."""


def problems_on_the_way(resource: Resource, scope: Scope, method: str) -> Problems:
    """Return what can happen to a request for this resource, whatever its endpoint then does."""
    found = ANYWHERE + _WITH_TOKEN
    if resource not in OF_NODE:
        found += _FRESHNESS
        found += _READ if scope is Scope.READ else ()
    if resource not in _OUTSIDE:
        found += _NAMESPACE
    if resource in _OF_KEY:
        found += _KEY_IN_PATH
    if scope is not Scope.READ and method != "GET":
        found += _WRITE
    return found
