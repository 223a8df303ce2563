"""`kvnet usage`: what clients asked of each namespace in a month, what it stores, and what that would cost."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Annotated, Any, Final, NamedTuple

import typer
from msgspec.structs import asdict
from rich import box
from rich.table import Table

from kvnet.cli.options import DATA_DEFAULT, DataOption, JsonOption, run_folder
from kvnet.cli.output import print_report
from kvnet.cli.polling import Answer, ask_all, require_some, urls_of
from kvnet.cli.sizes import bytes_in_words
from kvnet.cli.tally import plural
from kvnet.core.usage import (
    DOLLARS_PER_GB_MONTH,
    DOLLARS_PER_MILLION_READS,
    INCLUDED_DOLLARS,
    INCLUDED_GB,
    INCLUDED_READS,
    Usage,
    gb_months,
    month_of,
    month_seconds,
    price_dollars,
    read_months,
)
from kvnet.core.versions import Version
from kvnet.errors import ConfigError, RequestError

NAMESPACE_NOT_FOUND: Final = 10013
DELETED: Final = "(deleted)"


class Row(NamedTuple):
    """One namespace."""

    id: str
    title: str
    usage: Usage
    keys: int
    size: int


def usage(
    namespace: Annotated[str | None, typer.Argument(help="Only this one: a title or an id.")] = None,
    month: Annotated[str | None, typer.Option("--month", help="YYYY-MM in UTC; default: this one.")] = None,
    data: DataOption = DATA_DEFAULT,
    json_: JsonOption = False,
) -> None:
    """Show reads, writes and storage per namespace, and their price."""
    month = month or month_of(time.time())
    try:
        month_seconds(month)
    except ValueError:
        raise ConfigError(f"--month {month}: write it as YYYY-MM, for example {month_of(time.time())}") from None
    cluster = run_folder(data).cluster()
    answers = asyncio.run(ask_all(urls_of(cluster), "/usage", cluster["tokens"]["admin"]))
    require_some(answers, data)
    rows = _only(_rows(answers, month), namespace)
    total = Usage()
    for row in rows:
        total.add(row.usage)
    stored = gb_months(total.byte_seconds, month)
    price = price_dollars(total.reads, stored)
    silent = [name for name, answer in answers.items() if isinstance(answer, str)]
    if json_:
        told = {
            "month": month,
            "namespaces": [
                {"id": row.id, "title": row.title, **asdict(row.usage), "keys": row.keys, "bytes": row.size}
                for row in rows
            ],
            "total": asdict(total),
            "gb_months": stored,
            "price_dollars": round(price, 2),
            "silent": silent,
        }
        typer.echo(json.dumps(told, ensure_ascii=False))
        return
    included = f"${INCLUDED_DOLLARS:.0f} with {INCLUDED_GB:.0f} GB and {INCLUDED_READS // 1_000_000} million reads"
    beyond = f"${DOLLARS_PER_GB_MONTH:.2f} per GB-month and ${DOLLARS_PER_MILLION_READS:.2f} per million reads"
    lines = [
        f"{stored:.3f} GB-months and {total.reads:,} reads: ${price:.2f} in {month}",
        f"({included}, then {beyond})",
    ]
    if silent:
        lines.append(
            f"{plural(len(silent), 'node')} didn't answer, their counts are missing: {', '.join(silent[:5])}"
        )
    print_report(_table(rows, month), *lines)


def _rows(answers: Mapping[str, Answer], month: str) -> list[Row]:
    """Add up what the nodes tell; keys and bytes are those of the replica that stands furthest."""
    counted: dict[str, Usage] = {}
    for answer in answers.values():
        if isinstance(answer, str):
            continue
        for namespace, usage_ in read_months(answer.get("months")).get(month, {}).items():
            counted.setdefault(namespace.hex(), Usage()).add(usage_)
    told = [answer for answer in answers.values() if not isinstance(answer, str)]
    furthest = max(told, key=lambda answer: Version.parse(answer["position"]))
    stored: Mapping[str, Any] = furthest["namespaces"]
    rows = [
        Row(
            id_,
            stored.get(id_, {}).get("title", DELETED),
            counted.get(id_, Usage()),
            stored.get(id_, {}).get("keys", 0),
            stored.get(id_, {}).get("bytes", 0),
        )
        for id_ in {**stored, **counted}
    ]
    return sorted(rows, key=lambda row: (-row.usage.reads, -row.size, row.title, row.id))


def _only(rows: list[Row], namespace: str | None) -> list[Row]:
    if namespace is None:
        return rows
    found = [row for row in rows if row.title == namespace] or [row for row in rows if row.id == namespace]
    if not found:
        text = f"there is no namespace {namespace!r}: `kvnet namespace list` shows them"
        raise RequestError(404, NAMESPACE_NOT_FOUND, text)
    return found


def _table(rows: list[Row], month: str) -> Table:
    table = Table(box=box.SIMPLE)
    table.add_column("namespace", overflow="ellipsis", no_wrap=True)
    for heading in ("reads", "writes", "deletes", "lists", "keys", "bytes", "GB-months"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        used = row.usage
        table.add_row(
            row.title if row.title != DELETED else f"{row.id[:8]}… {DELETED}",
            *(f"{count:,}" for count in (used.reads, used.writes, used.deletes, used.lists, row.keys)),
            bytes_in_words(row.size),
            f"{gb_months(used.byte_seconds, month):.3f}",
        )
    return table
