"""The account's namespaces."""

from __future__ import annotations

import secrets
from typing import Any, Final

from aiohttp import web

from kvnet.api import envelope
from kvnet.api.auth import require_everywhere
from kvnet.api.bodies import read_json
from kvnet.api.call import Call, id_of_request
from kvnet.api.validation import check_title
from kvnet.core.catalog import Namespace
from kvnet.core.entries import NAMESPACE_ID_BYTES
from kvnet.core.operations import CreateNamespace, DeleteNamespace, RenameNamespace

PAGE_NAMESPACES_DEFAULT: Final = 20
PAGE_NAMESPACES_MAX: Final = 1000


async def list_namespaces(call: Call) -> web.Response:
    """Answer one page; one beyond the end is empty, which is how official clients know it."""
    page = call.query.integer("page", 1, 1)
    per_page = call.query.integer("per_page", PAGE_NAMESPACES_DEFAULT, 1, PAGE_NAMESPACES_MAX)
    by_title = call.query.choice("order", ("id", "title")) == "title"
    descending = call.query.choice("direction", ("asc", "desc")) == "desc"
    namespaces = sorted(
        (each for each in call.backend.store.namespaces.values() if call.token.reaches(each.id)),
        key=lambda namespace: (namespace.title.encode() if by_title else b"", namespace.id),
        reverse=descending,
    )
    shown = namespaces[(page - 1) * per_page : page * per_page]
    return envelope.success(
        [describe(namespace.id, namespace.title) for namespace in shown],
        result_info={
            "page": page,
            "per_page": per_page,
            "count": len(shown),
            "total_count": len(namespaces),
            "total_pages": -(-len(namespaces) // per_page),
        },
    )


async def create_namespace(call: Call) -> web.Response:
    require_everywhere(call.token)
    title = check_title(await read_json(call.request), "create namespace")
    namespace = _new_id(call.request_id(), call.backend.now_s())
    operation = CreateNamespace(namespace, title)
    answer = await call.write(operation, "create namespace", describe(namespace, title))
    known = call.backend.store.titles.get(title)
    if known is None or known.id == namespace or "KV-Pending" in answer.headers:
        return answer
    # A retry whose first try fell into the span before.
    first = envelope.success(describe(known.id, title))
    first.headers.update(
        {name: value for name, value in answer.headers.items() if name.startswith(("KV-", "ETag"))}
    )
    return first


def _new_id(request_id: bytes | None, now_s: float) -> bytes:
    """Return an id nobody has had; for a retried request the one that it was given the first time, at any node."""
    if request_id is None:
        return secrets.token_bytes(NAMESPACE_ID_BYTES)
    return id_of_request(request_id, now_s, b"kvnet namespace")


async def get_namespace(call: Call) -> web.Response:
    namespace: Namespace = call.backend.store.namespaces[call.namespace_to_read("get namespace")]
    return envelope.success(describe(namespace.id, namespace.title))


async def rename_namespace(call: Call) -> web.Response:
    namespace = call.namespace_to_write("rename namespace")
    title = check_title(await read_json(call.request), "rename namespace")
    return await call.write(RenameNamespace(namespace, title), "rename namespace", describe(namespace, title))


async def delete_namespace(call: Call) -> web.Response:
    namespace = call.namespace_to_write("remove namespace")
    return await call.write(DeleteNamespace(namespace), "remove namespace")


def describe(namespace: bytes, title: str) -> dict[str, Any]:
    return {"id": namespace.hex(), "title": title, "supports_url_encoding": True}
