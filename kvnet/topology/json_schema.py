"""The JSON schema of topology files, for editors: ranges from the types, descriptions from their docstrings."""

from __future__ import annotations

import ast
import inspect
import re
from types import ModuleType
from typing import Any

import msgspec

from kvnet import timers
from kvnet.topology import schema, sections
from kvnet.topology.schema import Topology


def json_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12) that the shipped `topology.schema.json` holds."""
    document = msgspec.json.schema(Topology)
    told = _field_docstrings(schema) | _field_docstrings(sections) | _field_docstrings(timers)
    for name, definition in document["$defs"].items():
        definition["description"] = _one_line(definition["description"])
        for field, description in told[name].items():
            definition["properties"][field]["description"] = description
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "kvnet topology", **document}


def _field_docstrings(module: ModuleType) -> dict[str, dict[str, str]]:
    """Return the string under each annotated field of each class, which Python itself forgets."""
    told: dict[str, dict[str, str]] = {}
    for item in ast.parse(inspect.getsource(module)).body:
        if isinstance(item, ast.ClassDef):
            fields = told.setdefault(item.name, {})
            for field, text in zip(item.body, item.body[1:], strict=False):
                match field, text:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                        fields[name] = _one_line(said)
                    case _:
                        pass
    return told


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
