"""Every error this API answers with: status, code and text in one table.

Codes below 20000 are Workers KV's own; where no transcript shows one (sizes, limits, cursors), 10001 is used, as
the official local implementation does. Codes from 20000 on are ours, for what Workers KV has no word for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from kvnet.errors import RequestError

SHOWN_CHARACTERS: Final = 200


def shown(value: object) -> str:
    """Return a client's own words as an error may repeat them: short, and always encodable."""
    text = str(value)
    if len(text) > SHOWN_CHARACTERS:
        text = text[:SHOWN_CHARACTERS] + "…"
    return text.encode("utf-8", "replace").decode("utf-8")


class Problem(NamedTuple):
    """One row: `text` is a template, filled by the keyword arguments of `error`."""

    status: int
    code: int
    text: str

    def error(self, *, headers: dict[str, str] | None = None, **fields: object) -> RequestError:
        filled = self.text.format(**{name: shown(value) for name, value in fields.items()})
        return RequestError(self.status, self.code, filled, headers=headers)


def refusal(status: int, text: str) -> RequestError:
    """Return an error in our form for one that a library has worded."""
    return RequestError(status, 10001, shown(text))


# Who asks.
AUTH_MISSING: Final = Problem(400, 9106, "Missing X-Auth-Key, X-Auth-Email or Authorization headers")
AUTH_GARBLED: Final = Problem(400, 6003, "Invalid request headers")
TOKEN_UNKNOWN: Final = Problem(401, 10000, "Authentication error")
TOKEN_NOT_ALLOWED: Final = Problem(403, 10000, "Authentication error")
KEY_PAIR_UNKNOWN: Final = Problem(403, 9103, "Unknown X-Auth-Key or X-Auth-Email")

# What for.
NO_ROUTE: Final = Problem(400, 7003, "Could not route to {path}, perhaps your object identifier is invalid?")
METHOD_NOT_ALLOWED: Final = Problem(405, 10405, "Method not allowed")
METHOD_NOT_SUPPORTED: Final = Problem(405, 7001, "{method} not supported for requested URI")
KEY_EMPTY: Final = Problem(405, 10000, "{method} method not allowed for the api_token authentication scheme")
HTTP_MALFORMED: Final = Problem(400, 10001, "The request isn't well-formed HTTP: {what}")
LINE_TOO_LONG: Final = Problem(414, 10001, "The request line exceeds limit of {limit} bytes")
HEADERS_TOO_LARGE: Final = Problem(431, 10001, "A header field exceeds limit of {limit} bytes")
EXPECTATION_FAILED: Final = Problem(417, 10001, "Expect: only 100-continue can be met")
HEADER_INVALID: Final = Problem(400, 10001, "{name}: {what}")
FIELD_INVALID: Final = Problem(400, 10001, "{name}: {what}")
QUERY_INVALID: Final = Problem(400, 10001, "query: not a form-encoded string of UTF-8, or more than {most} fields")

# Tokens.
TOKEN_NOT_FOUND: Final = Problem(404, 20030, "there is no token {id}: `kvnet token list` shows them")
TOKEN_LAST_ADMIN: Final = Problem(400, 20031, "the last admin token stays as it is: create another one first")
SECRET_UNKNOWN: Final = Problem(
    504,
    20011,
    "the write may have been made before; ask again with this KV-Request-Id, or look with `kvnet token list`",
)
TOKEN_SECRET_LOST: Final = Problem(
    400,
    20032,
    "the first try of this request was made and its secret is lost: `kvnet token roll {id}` makes another",
)

# Namespaces.
NAMESPACE_ID_LENGTH: Final = Problem(
    400,
    10011,
    "could not parse UUID from request's namespace_id: 'uuid: incorrect UUID length: {id} (write 32 hex digits)'",
)
NAMESPACE_ID_FORMAT: Final = Problem(
    400,
    10011,
    "could not parse UUID from request's namespace_id: 'uuid: incorrect UUID format: {id} (write 32 hex digits)'",
)
NAMESPACE_ID_CHOSEN: Final = Problem(400, 10001, "id: write 32 hex digits, or leave it out for a new one")
NAMESPACE_NOT_FOUND: Final = Problem(404, 10013, "{op}: 'namespace not found'")
TITLE_MISSING: Final = Problem(400, 10019, "{op}: 'request is missing a title definition'")
TITLE_TOO_LONG: Final = Problem(400, 10001, "title: length of {length} exceeds limit of {limit} characters")
JURISDICTION: Final = Problem(
    400, 10001, "jurisdiction: not supported, every namespace is in every PoP; leave it out"
)

# Pairs.
KEY_NOT_FOUND: Final = Problem(404, 10009, "get: 'key not found'")
KEY_UNDECODABLE: Final = Problem(400, 10001, "Could not URL-decode key name")
KEY_NOT_ALLOWED: Final = Problem(400, 10001, "key name not allowed")
KEY_TOO_LONG: Final = Problem(414, 10001, "UTF-8 encoded length of {length} exceeds key length limit of {limit}.")
VALUE_TOO_LARGE: Final = Problem(413, 10001, "Value length of {length} exceeds limit of {limit}.")
VALUE_MISSING: Final = Problem(400, 10001, "Missing value field")
RANGE_UNSATISFIABLE: Final = Problem(416, 10001, "Range: it begins behind the value's {size} bytes")
METADATA_INVALID: Final = Problem(400, 10001, "metadata must be valid json")
METADATA_TOO_LARGE: Final = Problem(413, 10001, "Metadata length of {length} exceeds limit of {limit}.")
MULTIPART_INVALID: Final = Problem(400, 10001, "The multipart body can't be read: {what}")
TTL_NOT_POSITIVE: Final = Problem(
    400, 10034, "Invalid expiration_ttl of {given}. Please specify integer greater than 0."
)
TTL_TOO_SHORT: Final = Problem(
    400, 10034, "Invalid expiration_ttl of {given}. Expiration TTL must be at least {least}."
)
TTL_TOO_LONG: Final = Problem(
    400, 10034, "Invalid expiration_ttl of {given}. Please specify seconds, not milliseconds or a time."
)
EXPIRATION_PAST: Final = Problem(
    400,
    10034,
    "Invalid expiration of {given}. "
    "Please specify integer greater than the current number of seconds since the UNIX epoch.",
)
EXPIRATION_TOO_SOON: Final = Problem(
    400,
    10034,
    "Invalid expiration of {given}. Expiration times must be at least {least} seconds in the future.",
)
EXPIRATION_TOO_LATE: Final = Problem(
    400, 10034, "Invalid expiration of {given}. Please specify seconds since the UNIX epoch, not milliseconds."
)

# Many at once.
BULK_TOO_MANY: Final = Problem(400, 10001, "{op}: 'You can request a maximum of {most} keys'")
BULK_ELEMENT: Final = Problem(400, 10001, "{what}")
ELEMENT_TOO_LARGE: Final = Problem(
    413, 10001, "An element exceeds limit of {limit} bytes; a value with many escapes is shorter as base64"
)
BULK_CUT_SHORT: Final = "{message}; {written} of {count} were written before, the rest not: send all of it again"
BULK_GET_COUNT: Final = Problem(400, 10029, "bulk get keys: 'You can request a maximum of {most} keys'")
BULK_GET_NONE: Final = Problem(400, 10029, "bulk get keys: 'You must request at least one key'")
BULK_GET_NOT_TEXT: Final = Problem(
    400, 10029, "bulk get keys: 'At least one of the requested keys corresponds to a non-{type} value'"
)
BULK_GET_TYPE: Final = Problem(400, 10029, '"{given}" is not a valid type. Use "json" or "text"')
BULK_GET_TOO_LARGE: Final = Problem(
    413, 10029, "bulk get keys: 'Total size of request exceeds the limit of {limit} bytes'"
)

# Lists and bodies.
LIMIT_TOO_LOW: Final = Problem(
    400, 10001, "Invalid key_count_limit of {given}. Please specify an integer of at least {least}."
)
LIMIT_TOO_HIGH: Final = Problem(
    400, 10001, "Invalid key_count_limit of {given}. Please specify an integer of at most {most}."
)
COUNT_TOO_LOW: Final = Problem(
    400, 10001, "Invalid key_count_limit of {given}. Please specify an integer greater than 0."
)
COUNT_TOO_HIGH: Final = Problem(
    400, 10001, "Invalid key_count_limit of {given}. Please specify an integer less than {most}."
)
"""The binding's two, as the runtime's own store words them; {most} itself is allowed all the same."""
CACHE_TTL_TOO_SHORT: Final = Problem(
    400, 10001, "Invalid cache_ttl of {given}. Cache TTL must be at least {least}."
)
CURSOR_INVALID: Final = Problem(400, 10001, "Invalid cursor")
BODY_INVALID: Final = Problem(400, 10012, "invalid request body")
BODY_TOO_LARGE: Final = Problem(413, 10001, "Request body of {length} bytes exceeds limit of {limit}.")
BODY_BROKEN: Final = Problem(400, 10001, "The request's body ended early or isn't well-formed HTTP")
BODY_TOO_SLOW: Final = Problem(
    408, 10001, "Nothing, or next to nothing, of the request's body came for {seconds} s"
)

# Ours.
INTERNAL: Final = Problem(500, 20000, "Internal error: the log of node {name} says more")
NOT_READY: Final = Problem(503, 20001, "{name} isn't ready: its replica is still being filled; ask another PoP")
TOO_STALE: Final = Problem(
    503,
    20002,
    "{name} may be {staleness_ms} ms behind, more than the {allowed_ms} ms asked for; "
    "asked in its place: {asked}; ask another PoP",
)
STILL_BEHIND: Final = Problem(
    504,
    20003,
    "{name} stands at {position} and did not reach {wanted} within {timeout_ms} ms; "
    "asked in its place: {asked}; ask another PoP, or wait longer with KV-Wait-Timeout-Ms",
)

SPOOL_FULL: Final = Problem(
    507,
    20005,
    "The disk for this node's temporary files is full; nothing was written: send less at once, or later",
)
DAMAGED: Final = Problem(
    503, 20004, "{name} has found its replica damaged and doesn't serve until it is made anew; ask another PoP"
)

# Of the coordinator and of the way to it: raised in rooms that can't import this table, worded there as here.
TITLE_TAKEN: Final = Problem(400, 10014, "{op}: 'a namespace with this account ID and title already exists'")
NAMESPACE_ID_TAKEN: Final = Problem(400, 20033, "create namespace: 'there is a namespace with this id already'")
WRITTEN_TOO_SOON: Final = Problem(
    429, 10001, "Too many writes of one key: at most one each {interval_ms} ms is accepted"
)
UNREACHABLE: Final = Problem(
    503, 20010, "the coordinator can't be reached, the write was not made; reads go on; try again later"
)
NODE_REFUSED: Final = Problem(502, 20010, "the coordinator refuses {name}: {why}")
UNKNOWN_OUTCOME: Final = Problem(
    504, 20011, "the coordinator didn't answer, the write may have been made; ask again with this KV-Request-Id"
)
TOO_MANY_WRITES: Final = Problem(503, 20012, "{name} has {most} writes under way; try again in a second")
TOO_MANY_LARGE: Final = Problem(503, 20012, "this node has {most} large writes under way; try again in a second")
DISK_FULL: Final = Problem(507, 20020, "The coordinator's disk is full; nothing was written, reads go on")
DISK_BEHIND: Final = Problem(503, 20021, "The coordinator's disk is behind; try again")
NOT_WRITING: Final = Problem(503, 20022, "The coordinator isn't writing: {why}")
"""Worded there after its several reasons."""

COMPANIONS: Final[Mapping[int, list[dict[str, Any]]]] = {
    NO_ROUTE.code: [{"code": 7000, "message": "No route for that URI"}],
}
"""By code: errors that stand beside one of this code."""

CHAINS: Final[Mapping[int, list[dict[str, Any]]]] = {
    AUTH_GARBLED.code: [{"code": 6111, "message": "Invalid format for Authorization header"}],
}
"""By code: what stands in the `error_chain` of one of this code."""
