"""From the raw request target to a place in the API. Nothing is decoded or normalised before it is matched.

A decoded path can't tell the key `a%2Fb` from `a/b`, and a path without its trailing slash can't tell the deletion
of the key `..` from that of the whole namespace: some HTTP clients collapse it before they send it. Those that
drop the slash as well are beyond help.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from kvnet.api import codes

API_PREFIX: Final = "/client/v4"

_ORIGIN = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
_ACCOUNT_ID = re.compile(r"[0-9a-fA-F]{32}")
_TOKEN = re.compile(r"/user/tokens/([A-Za-z0-9_-]{1,64})(/value)?")
_ACCOUNT = re.compile(r"/accounts/([^/]*)", re.DOTALL)
_NAMESPACES = re.compile(r"/accounts/([^/]*)/(?:storage/kv|workers)/namespaces(?:/(.*))?", re.DOTALL)
_BAD_PERCENT = re.compile(r"%(?![0-9a-fA-F]{2})")


class Resource(Enum):
    STATUS = auto()
    USAGE = auto()
    METRICS = auto()
    TOKEN_VERIFICATION = auto()
    TOKENS = auto()
    TOKEN = auto()
    TOKEN_VALUE = auto()
    ACCOUNTS = auto()
    ACCOUNT = auto()
    MEMBERSHIPS = auto()
    NAMESPACES = auto()
    NAMESPACE = auto()
    KEYS = auto()
    VALUE = auto()
    METADATA = auto()
    BULK = auto()
    BULK_DELETE = auto()
    BULK_GET = auto()


_NODE_PATHS: Final = {"/status": Resource.STATUS, "/usage": Resource.USAGE, "/metrics": Resource.METRICS}
"""What isn't part of the API: without its prefix, and answered also by a replica that may not serve."""
OF_NODE: Final = frozenset(_NODE_PATHS.values())
_FIXED: Final = {
    "/user/tokens": Resource.TOKENS,
    "/user/tokens/verify": Resource.TOKEN_VERIFICATION,
    "/accounts": Resource.ACCOUNTS,
    "/memberships": Resource.MEMBERSHIPS,
}
_IN_NAMESPACE: Final = {
    "keys": Resource.KEYS,
    "bulk": Resource.BULK,
    "bulk/delete": Resource.BULK_DELETE,
    "bulk/get": Resource.BULK_GET,
}
_OF_KEY: Final = {"values": Resource.VALUE, "metadata": Resource.METADATA}


class Place(NamedTuple):
    """What a path names. `namespace` and `key` are as they came: not validated, not decoded."""

    resource: Resource
    account: str = ""
    """Empty where the resource belongs to no account."""
    namespace: str = ""
    key: str = ""
    token: str = ""


class Target(NamedTuple):
    """A request target in its two parts, both raw; the path begins with a slash wherever one can be routed."""

    path: str
    query: str


def split_target(raw: str) -> Target:
    """Return path and query of a request target in origin or absolute form."""
    if not raw.startswith("/") and (origin := _ORIGIN.match(raw)):
        raw = raw[origin.end() :]
    path, _, query = raw.partition("?")
    return Target(path, query)


def find_place(method: str, path: str) -> Place:
    """Return the place that `path` names, with or without the API's prefix.

    Raises:
        RequestError: it names none.
    """
    if path in _NODE_PATHS:
        return Place(_NODE_PATHS[path])
    local = path[len(API_PREFIX) :] if path.startswith(API_PREFIX + "/") else path
    if local in _FIXED:
        return Place(_FIXED[local])
    match = _TOKEN.fullmatch(local)
    if match is not None:
        return Place(Resource.TOKEN_VALUE if match[2] else Resource.TOKEN, token=match[1])
    match = _ACCOUNT.fullmatch(local)
    if match is not None and _ACCOUNT_ID.fullmatch(match[1]):
        return Place(Resource.ACCOUNT, match[1].lower())
    match = _NAMESPACES.fullmatch(local)
    if match is None or not _ACCOUNT_ID.fullmatch(match[1]):
        raise codes.NO_ROUTE.error(path=path)
    account, rest = match[1].lower(), match[2]
    if rest is None:
        return Place(Resource.NAMESPACES, account)
    namespace, slash, rest = rest.partition("/")
    if slash and not namespace:
        raise codes.NO_ROUTE.error(path=path)
    if not namespace or (slash and not rest):
        # The trap of the module's docstring: `DELETE …/{id}/` must not delete the namespace.
        raise codes.METHOD_NOT_SUPPORTED.error(method=method)
    if not slash:
        return Place(Resource.NAMESPACE, account, namespace)
    if rest in _IN_NAMESPACE:
        return Place(_IN_NAMESPACE[rest], account, namespace)
    kind, slash, key = rest.partition("/")
    if not slash or kind not in _OF_KEY:
        raise codes.NO_ROUTE.error(path=path)
    if not key:
        raise codes.KEY_EMPTY.error(method=method)
    return Place(_OF_KEY[kind], account, namespace, key)


def decode_key(raw: str) -> bytes:
    """Return the key that a path's end spells: percent-decoded once, `+` and `/` as they are.

    Raises:
        RequestError: a bad percent sequence, or not UTF-8.
    """
    if _BAD_PERCENT.search(raw):
        raise codes.KEY_UNDECODABLE.error()
    key = unquote_to_bytes(raw.encode("utf-8", "surrogateescape"))
    try:
        key.decode("utf-8")
    except UnicodeDecodeError:
        raise codes.KEY_UNDECODABLE.error() from None
    return key
