"""Lists by page number: of namespaces, tokens, accounts. Keys are listed by cursor (keys.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from aiohttp import web

from kvnet.api import envelope
from kvnet.api.query import Query

PAGE_DEFAULT: Final = 20
PAGE_MAX: Final = 1000

ItemT = TypeVar("ItemT")


def page_of(query: Query, items: Sequence[ItemT], describe: Callable[[ItemT], Any]) -> web.Response:
    """Answer the page that the query asks for; one beyond the end is empty, which is how official clients know it.

    Raises:
        RequestError: its number or size isn't one.
    """
    page = query.integer("page", 1, 1)
    per_page = query.integer("per_page", PAGE_DEFAULT, 1, PAGE_MAX)
    shown = items[(page - 1) * per_page : page * per_page]
    return envelope.success(
        [describe(item) for item in shown],
        result_info={
            "page": page,
            "per_page": per_page,
            "count": len(shown),
            "total_count": len(items),
            "total_pages": -(-len(items) // per_page),
        },
    )
