"""docs/api.md's tables and examples, from the same descriptions as the OpenAPI document.

    python -m kvnet.api.document [FILE]    writes them into FILE, docs/api.md by default; what stands around stays

The file has a pair of comments around each part that is made here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from kvnet.api import codes
from kvnet.api.codes import Problem
from kvnet.api.endpoints import ENDPOINTS
from kvnet.api.explanations import EXPLANATIONS
from kvnet.api.openapi import problems_of
from kvnet.api.openapi_endpoints import NAMESPACES, PATHS, Description, describe
from kvnet.api.openapi_schemas import Schema
from kvnet.api.routes import OF_NODE, Resource
from kvnet.core.catalog import Scope
from kvnet.limits import Limits

FILE: Final = Path("docs/api.md")

_OPEN: Final = (
    ("/healthz", "`status`, `name`, `pop`, `ready`, as soon as the process answers"),
    ("/openapi.json", "this API as an OpenAPI 3.1 document, also below `/client/v4`"),
)
"""What takes no token."""
_EXAMPLES: Final = {
    NAMESPACES: "$NS",
    "{account_id}": "$ACCOUNT",
    "{namespace_id}": "$ID",
    "{key}": "user%2F42",
    "{token_id}": "$TOKEN_ID",
}
_PART: Final = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(text: str) -> str:
    """Return the text of docs/api.md with every part that is made here made anew."""
    parts = {
        "endpoints": "\n".join(_endpoints()),
        "examples": "\n".join(_examples()),
        "errors": "\n".join(_errors()),
    }
    return _PART.sub(lambda match: f"{match[1]}\n{parts[match[2]]}\n\n{match[3]}", text)


def _described() -> Iterator[tuple[Resource, str, Scope, Description]]:
    described = describe(Limits())
    for resource, methods in ENDPOINTS.items():
        for method, endpoint in methods.items():
            yield resource, method, endpoint.scope, described[resource, method]


def _endpoints() -> Iterator[str]:
    yield "| request | scope | result |"
    yield "|---|---|---|"
    for resource, method, scope, description in _described():
        yield f"| `{method} {_short(resource)}` | {scope.value} | {_sentence(description.summary)} |"
    for path, result in _OPEN:
        yield f"| `GET {path}` | none | {result} |"


def _examples() -> Iterator[str]:
    blocks: list[str] = []
    for resource, method, _, description in _described():
        lines = [
            f"### {method} {_short(resource)}",
            "",
            f"{_sentence(description.summary)}. {description.detail}".strip(),
        ]
        if description.query:
            lines += ["", "| query | | |", "|---|---|---|"]
            lines += [
                f"| `{field['name']}` | {_range(field['schema'])} | {field['description']} |"
                for field in description.query
            ]
        lines += ["", "```sh", _curl(resource, method, description), "```"]
        blocks.append("\n".join(lines))
    yield "\n\n".join(blocks)


def _errors() -> Iterator[str]:
    yield "| status | code | text | cause |"
    yield "|---|---|---|---|"
    met: dict[Problem, None] = {codes.METHOD_NOT_ALLOWED: None}
    for resource, method, scope, description in _described():
        met |= dict.fromkeys(problems_of(resource, method, scope, description))
    for problem in sorted(met, key=lambda problem: (problem.status, problem.code)):
        text = problem.text.replace("|", "\\|")
        yield f"| {problem.status} | {problem.code} | {text} | {EXPLANATIONS[problem].cause} |"


def _short(resource: Resource) -> str:
    return PATHS[resource].replace(NAMESPACES, "NS").replace("{namespace_id}", "{id}")


def _sentence(text: str) -> str:
    return text.replace("|", "\\|")


def _range(schema: Schema) -> str:
    """Return a field's values in words."""
    if "enum" in schema:
        return ", ".join(_value(choice, schema) for choice in schema["enum"])
    words = [str(schema.get("type", ""))]
    least, most, default = (schema.get(name) for name in ("minimum", "maximum", "default"))
    if least is not None and most is not None:
        words.append(f"from {least} to {most}")
    elif least is not None:
        words.append(f"from {least}")
    if default is not None:
        words.append(f"({default})")
    return " ".join(words)


def _value(choice: Any, schema: Schema) -> str:
    return f"`{choice}` (default)" if choice == schema.get("default") else f"`{choice}`"


def _curl(resource: Resource, method: str, description: Description) -> str:
    target = PATHS[resource]
    for template, example in _EXAMPLES.items():
        target = target.replace(template, example)
    if not target.startswith("$"):
        target = ("$NODE" if resource in OF_NODE else "$NODE/client/v4") + target
    if description.example_query:
        target += f"?{description.example_query}"
    chosen = "" if method == "GET" else f" -X {method}"
    body = f" {description.example_body}" if description.example_body else ""
    return f'curl -H "$AUTH"{chosen} "{target}"{body}'


def main() -> int:
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    file.write_text(fill(file.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
