"""The account's namespaces."""

from __future__ import annotations

import secrets
from typing import Any

from aiohttp import web

from kvnet.api import envelope
from kvnet.api.auth import require_everywhere
from kvnet.api.bodies import read_json
from kvnet.api.call import Call, id_of_request
from kvnet.api.pages import page_of
from kvnet.api.validation import check_chosen_id, check_title
from kvnet.core.catalog import Namespace
from kvnet.core.entries import NAMESPACE_ID_BYTES
from kvnet.core.operations import CreateNamespace, DeleteNamespace, RenameNamespace


async def list_namespaces(call: Call) -> web.Response:
    """Answer one page of those that the token may see."""
    by_title = call.query.choice("order", ("id", "title")) == "title"
    descending = call.query.choice("direction", ("asc", "desc")) == "desc"
    namespaces = sorted(
        (each for each in call.backend.store.namespaces.values() if call.token.reaches(each.id)),
        key=lambda namespace: (namespace.title.encode() if by_title else b"", namespace.id),
        reverse=descending,
    )
    return page_of(call.query, namespaces, lambda namespace: describe(namespace.id, namespace.title))


async def create_namespace(call: Call) -> web.Response:
    require_everywhere(call.token)
    document = await read_json(call.request)
    title = check_title(document, "create namespace")
    namespace = check_chosen_id(document) or _new_id(call.request_id(), call.backend.now_s())
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
