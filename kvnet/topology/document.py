"""YAML that remembers where everything stands, read as the types of the schema ask for it.

Every complaint is one line: file, line, field, what is wrong, and what to write instead. The types decide how a
plain scalar is read, so `country: NO` is Norway and not YAML's false, and 1e-3 is a number.
"""

from __future__ import annotations

import math
import re
from difflib import get_close_matches
from typing import Any, Final, NoReturn

import msgspec.inspect as kinds
import yaml

from kvnet.errors import ConfigError

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times faster
_NULL: Final = "tag:yaml.org,2002:null"
_BOOL: Final = "tag:yaml.org,2002:bool"
_NUMBERS: Final = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_DEPTH_MAX: Final = 20
_STYLE_PLAIN: Final = (None, "")


class Document:
    """One parsed file; `lines` fills while it is read."""

    def __init__(self, text: str, name: str) -> None:
        """Parse `text`; `name` is what complaints call the file.

        Raises:
            ConfigError: not one YAML document.
        """
        self.name = name
        self.lines: dict[str, int] = {}
        """Line of each field that was read, by its path: `pops[3].lat`."""
        try:
            self._refuse_depth(text)
            root = yaml.compose(text, Loader=_LOADER)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            problem = error.problem or error.context
            raise ConfigError(f"{name}:{line}: not YAML ({problem}); check indents, brackets and quotes") from None
        except yaml.YAMLError as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{name}:1: not YAML ({reason}); save the file as plain UTF-8 text") from None
        if root is None:
            raise ConfigError(f"{name}:1: the file is empty; `kvnet topology gen` writes one to start from")
        self.root: yaml.Node = root

    def read(self, cls: type[Any]) -> Any:
        """Return the document as an instance of the struct `cls`.

        Raises:
            ConfigError: the first field, in the order of the file, that isn't what the type says.
        """
        return self._read(self.root, kinds.type_info(cls), "", None)

    def fail(self, path: str, problem: str) -> NoReturn:
        """Complain about the field at `path`, or about the nearest thing around it that the file has."""
        place = path
        while place and place not in self.lines:
            place = place[: max(place.rfind("."), place.rfind("["), 0)]
        field = f"{path}: " if path else ""
        raise ConfigError(f"{self.name}:{self.lines.get(place, 1)}: {field}{problem}")

    def _refuse_depth(self, text: str) -> None:
        """Stop before `compose` does, which is recursive in C and would end the process."""
        depth = 0
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > _DEPTH_MAX:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise ConfigError(
                    f"{self.name}:{line}: nested deeper than {_DEPTH_MAX} levels; close the brackets"
                )

    def _read(self, node: yaml.Node, kind: kinds.Type, path: str, write: str | None) -> Any:
        self.lines[path] = node.start_mark.line + 1
        match kind:
            case kinds.Metadata():
                return self._read(node, kind.type, path, (kind.extra or {}).get("write", write))
            case kinds.UnionType():
                if node.tag == _NULL and any(isinstance(t, kinds.NoneType) for t in kind.types):
                    return None
                inner = next(t for t in kind.types if not isinstance(t, kinds.NoneType))
                return self._read(node, inner, path, write)
            case kinds.StructType():
                return self._read_struct(node, kind, path)
            case kinds.DictType():
                return self._read_dict(node, kind, path)
            case kinds.VarTupleType():
                return self._read_tuple(node, kind, path)
            case kinds.LiteralType():
                return self._read_choice(node, kind, path)
            case kinds.BoolType():
                return self._read_bool(node, path)
            case kinds.IntType() | kinds.FloatType():
                return self._read_number(node, kind, path, write)
            case kinds.StrType():
                return self._read_text(node, kind, path, write)
            case _:
                raise AssertionError(f"the schema uses a type that files can't hold: {kind}")

    def _read_struct(self, node: yaml.Node, kind: kinds.StructType, path: str) -> Any:
        fields = {field.encode_name: field for field in kind.fields}
        values: dict[str, Any] = {}
        for name, value in self._items(node, path, "name: value"):
            if name not in fields:
                self.lines[_join(path, name)] = value.start_mark.line + 1
                close = get_close_matches(name, fields, n=1, cutoff=0.5)
                cure = f"did you mean {close[0]}?" if close else f"the fields are {', '.join(fields)}"
                self.fail(_join(path, name), f"unknown field; {cure}")
            values[name] = self._read(value, fields[name].type, _join(path, name), None)
        for name, field in fields.items():
            if name not in values and field.required:
                self.fail(_join(path, name), f"is missing; write {_wanted(field.type)}")
        return kind.cls(**values)

    def _read_dict(self, node: yaml.Node, kind: kinds.DictType, path: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, value in self._items(node, path, "code: value"):
            values[name] = self._read(value, kind.value_type, _join(path, name), None)
        return values

    def _read_tuple(self, node: yaml.Node, kind: kinds.VarTupleType, path: str) -> tuple[Any, ...]:
        if not isinstance(node, yaml.SequenceNode):
            self.fail(path, f"{_shown(node)} is not a list; write one `- ` line for each")
        if len(node.value) < (kind.min_length or 0):
            self.fail(path, f"is empty; write at least {kind.min_length}")
        return tuple(self._read(item, kind.item_type, f"{path}[{i}]", None) for i, item in enumerate(node.value))

    def _items(self, node: yaml.Node, path: str, form: str) -> list[tuple[str, yaml.Node]]:
        """The pairs of a mapping, its names checked to be text and unique."""
        if not isinstance(node, yaml.MappingNode):
            self.fail(path, f"{_shown(node)} is not a mapping; write `{form}` pairs")
        first_lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self.lines[path] = line
                self.fail(path, f"{_shown(key)} is not a name; write `{form}` pairs")
            if key.value in first_lines:
                self.lines[_join(path, key.value)] = line
                self.fail(_join(path, key.value), f"is already on line {first_lines[key.value]}; remove one")
            first_lines[key.value] = line
        return [(key.value, value) for key, value in node.value]

    def _read_choice(self, node: yaml.Node, kind: kinds.LiteralType, path: str) -> str:
        choices = [str(value) for value in kind.values]
        text = node.value if isinstance(node, yaml.ScalarNode) else ""
        if text not in choices:
            close = get_close_matches(text, choices, n=1)
            guess = f"did you mean {close[0]}? " if close else ""
            self.fail(path, f"{_shown(node)} is none of the choices; {guess}write one of {', '.join(choices)}")
        return str(text)

    def _read_bool(self, node: yaml.Node, path: str) -> bool:
        if node.tag != _BOOL or node.value.lower() not in {"true", "false"}:
            self.fail(path, f"{_shown(node)} is neither true nor false; write one of them, without quotes")
        return bool(node.value.lower() == "true")

    def _read_number(
        self, node: yaml.Node, kind: kinds.IntType | kinds.FloatType, path: str, write: str | None
    ) -> float:
        whole = isinstance(kind, kinds.IntType)
        noun, cure = ("a whole number", "a number")[not whole], write or "digits"
        if isinstance(node, yaml.ScalarNode) and node.style not in _STYLE_PLAIN:
            self.fail(path, f"{_shown(node)} is text, not {noun}; write {cure}, without quotes")
        try:
            value = int(node.value) if whole else float(node.value)
        except (TypeError, ValueError):
            self.fail(path, f"{_shown(node)} is not {noun}; write {cure}")
        if not math.isfinite(value):
            self.fail(path, f"{_shown(node)} is not {noun}; write {cure}")
        if (
            (kind.ge is not None and value < kind.ge)
            or (kind.le is not None and value > kind.le)
            or (kind.gt is not None and value <= kind.gt)
            or (kind.lt is not None and value >= kind.lt)
        ):
            self.fail(path, f"{value} is not {_range(kind)}; write {cure}")
        return value

    def _read_text(self, node: yaml.Node, kind: kinds.StrType, path: str, write: str | None) -> str:
        cure = write or "text"
        if not isinstance(node, yaml.ScalarNode) or node.tag == _NULL:
            self.fail(path, f"{_shown(node)} is not text; write {cure}")
        if node.tag in _NUMBERS:
            self.fail(path, f"{_shown(node)} is a number, not text; write {cure}, in quotes if it has only digits")
        text = str(node.value)
        fits = (kind.min_length or 0) <= len(text) <= (kind.max_length or math.inf)
        if not fits or (kind.pattern and not re.search(kind.pattern, text)):
            self.fail(path, f"{_shown(node)} won't do; write {cure}")
        return text


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _wanted(kind: kinds.Type) -> str:
    """What to write for a field of this kind."""
    match kind:
        case kinds.Metadata(extra={"write": str(write)}):
            return write
        case kinds.Metadata():
            return _wanted(kind.type)
        case kinds.LiteralType():
            return f"one of {', '.join(str(value) for value in kind.values)}"
        case kinds.VarTupleType():
            return "a list, one `- ` line for each"
        case kinds.StructType():
            return "{" + ", ".join(f"{f.encode_name}: …" for f in kind.fields if f.required) + "}"
        case _:
            return "it"


def _range(kind: kinds.IntType | kinds.FloatType) -> str:
    if kind.ge is not None and kind.le is not None:
        return f"between {kind.ge} and {kind.le}"
    bounds = (("at least", kind.ge), ("above", kind.gt), ("at most", kind.le), ("below", kind.lt))
    return " and ".join(f"{word} {bound}" for word, bound in bounds if bound is not None)


def _shown(node: yaml.Node) -> str:
    match node:
        case yaml.ScalarNode(tag=tag) if tag == _NULL:
            return "null"
        case yaml.ScalarNode(tag=tag, style=style) if tag in _NUMBERS and style in _STYLE_PLAIN:
            return str(node.value)[:40]
        case yaml.ScalarNode():
            return repr(node.value) if len(node.value) <= 40 else repr(node.value[:40] + "…")
        case yaml.SequenceNode():
            return "a list"
        case _:
            return "a mapping"
