"""What a Worker's KV binding speaks: get, bulk get, list, put and delete, over HTTP to the PoP's own edge.

A request with `KV-Namespace` is the binding's, whatever its path: the whole path is the key, so no key can be
taken for one of our own routes. Who may ask is decided as everywhere else. The Worker sees nothing of a refusal
but the status line, so the reason phrase carries the message; nor can it tell one 404 from another, so only a key
that isn't there is one.

    GET    /<key>           the value; CF-KV-Metadata has the metadata as JSON
    POST   /bulk/get        {"keys": [...], "type", "withMetadata", "cacheTtl"}
    GET    /                a page of keys: key_count_limit, prefix, cursor
    PUT    /<key>           expiration, expiration_ttl, CF-KV-Metadata
    DELETE /<key>

The source of all of it is the open-source runtime, workerd.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any, Final

from aiohttp import web
from multidict import CIMultiDictProxy

from kvnet.api import codes, envelope
from kvnet.api.bodies import read_value
from kvnet.api.bulk import Wanted, find_many, find_values, hold, read_wanted
from kvnet.api.call import Call, Endpoint
from kvnet.api.keys import PAGE_KEYS_MAX, read_page
from kvnet.api.query import read_integer
from kvnet.api.routes import Place, Resource
from kvnet.api.validation import check_metadata
from kvnet.api.values import TakeRoom, answer_value, delete_value, find_record, write_pair
from kvnet.core.catalog import Scope
from kvnet.core.pieces import LargeValue
from kvnet.errors import RequestError
from kvnet.storage.store import ListedKey

HEADER: Final = "KV-Namespace"
METADATA: Final = "CF-KV-Metadata"
CACHE_TTL_S_MIN: Final = 30
REASON_CHARACTERS_MAX: Final = 400

_QUOTED: Final = re.compile(r"[a-z ]+: '(.*)'", re.DOTALL)
"""An error's text as the REST API wraps it: the binding's has the operation's name already."""
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]")


class _Wanted(Wanted, rename="camel"):
    """The body of a bulk get, as workerd writes it."""

    cache_ttl: str | None = None


def find(headers: CIMultiDictProxy[str], method: str, path: str) -> tuple[Place, Endpoint]:
    """Return what a request of the binding is about, and what answers it.

    Raises:
        RequestError: nothing does.
    """
    namespace = headers[HEADER]
    key = path.removeprefix("/")
    match method:
        case "GET" | "HEAD" if key:
            return Place(Resource.VALUE, namespace=namespace, key=key), _GET
        case "GET" | "HEAD":
            return Place(Resource.KEYS, namespace=namespace), _LIST
        case "POST" if key == "bulk/get":
            return Place(Resource.BULK_GET, namespace=namespace), _GET_MANY
        case "PUT" if key:
            return Place(Resource.VALUE, namespace=namespace, key=key), _PUT
        case "DELETE" if key:
            return Place(Resource.VALUE, namespace=namespace, key=key), _DELETE
        case _:
            raise codes.METHOD_NOT_ALLOWED.error(headers={"Allow": "GET, HEAD, PUT, DELETE"})


def failure(error: RequestError) -> web.Response:
    """Return the answer to a request of the binding that failed: the envelope, its text in the status line too."""
    response = envelope.failure(error)
    status = error.status
    if status in {404, 410} and error.code != codes.KEY_NOT_FOUND.code:
        status = 400
    response.set_status(status, _reason(error))
    return response


def _reason(error: RequestError) -> str | None:
    """Return the message as one line of ASCII, None for what the status says by itself."""
    if error.status == 429 or error.code == codes.KEY_NOT_FOUND.code:
        return None
    quoted = _QUOTED.fullmatch(error.message)
    return _UNPRINTABLE.sub("?", quoted[1] if quoted else error.message)[:REASON_CHARACTERS_MAX]


async def _get(call: Call) -> web.Response:
    _check_cache_ttl(call.query.text("cache_ttl"))
    record = find_record(call)
    response = answer_value(call, record)
    if record.metadata:
        response.headers[METADATA] = record.metadata.decode("utf-8")
    if record.expires_at:
        response.headers["CF-Expiration"] = str(record.expires_at)
    return response


async def _get_many(call: Call) -> web.Response:
    wanted = await read_wanted(call, _Wanted)
    _check_cache_ttl(wanted.cache_ttl)
    values: dict[str, Any]
    if wanted.with_metadata:
        found, size = find_many(call, wanted)
        values = {key: each and {"value": each.value, "metadata": each.metadata} for key, each in found.items()}
    else:
        values, size = find_values(call, wanted)
    return hold(envelope.plain(values), call, size)


async def _list(call: Call) -> web.Response:
    listed, cursor = read_page(call, _page_keys(call.query.text("key_count_limit")))
    page: dict[str, Any] = {"keys": [_describe(key) for key in listed], "list_complete": not cursor}
    if cursor:
        page["cursor"] = cursor
    return envelope.plain(page)


async def _put(call: Call) -> web.Response:
    return await write_pair(call, partial(_read_pair, call))


async def _read_pair(call: Call, take_room: TakeRoom) -> tuple[bytes | LargeValue, bytes]:
    """Return value and metadata: the body is the value, even where it says that it is a form."""
    limits = call.backend.limits
    text = call.request.headers.get(METADATA, "").encode("utf-8", "surrogateescape")
    metadata = check_metadata(text, limits) if text else b""
    return await read_value(call.request, limits.value_bytes_max, codes.VALUE_TOO_LARGE, take_room), metadata


def _check_cache_ttl(text: str | None) -> None:
    """Refuse what Workers KV refuses. Nothing is kept by any answer's age: an edge's own disk is near enough."""
    if text is None:
        return
    seconds = read_integer(text)
    if seconds is None or seconds < CACHE_TTL_S_MIN:
        raise codes.CACHE_TTL_TOO_SHORT.error(given=text, least=CACHE_TTL_S_MIN)


def _page_keys(text: str | None) -> int:
    if text is None:
        return PAGE_KEYS_MAX
    count = read_integer(text)
    if count is None or count < 1:
        raise codes.COUNT_TOO_LOW.error(given=text)
    if count > PAGE_KEYS_MAX:
        raise codes.COUNT_TOO_HIGH.error(given=text, most=PAGE_KEYS_MAX)
    return count


def _describe(key: ListedKey) -> dict[str, Any]:
    """Return a listed key; its metadata is JSON within a string, which the runtime reads."""
    described: dict[str, Any] = {"name": key.key.decode("utf-8")}
    if key.expires_at:
        described["expiration"] = key.expires_at
    if key.metadata:
        described["metadata"] = key.metadata.decode("utf-8")
    return described


_GET: Final = Endpoint(_get, Scope.READ)
_GET_MANY: Final = Endpoint(_get_many, Scope.READ)
_LIST: Final = Endpoint(_list, Scope.READ)
_PUT: Final = Endpoint(_put, Scope.WRITE)
_DELETE: Final = Endpoint(delete_value, Scope.WRITE)
