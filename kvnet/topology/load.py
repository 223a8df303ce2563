"""Topologies from files, and back: find, read, check, write."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, cast

import yaml
from msgspec import to_builtins
from msgspec.structs import replace

from kvnet.errors import ConfigError
from kvnet.topology import checks
from kvnet.topology.document import Document
from kvnet.topology.generation import generated
from kvnet.topology.schema import Topology

DATA: Final = Path(__file__).parent / "data"
FILE_NAME: Final = "topology.yaml"
SHIPPED: Final = ("world-2018", "world-2026")
"""Topologies that come with the package, by name; the first one is used where none is asked for."""

_HEADER: Final = """\
# yaml-language-server: $schema=topology.schema.json
# `kvnet topology schema > topology.schema.json` lets editors complete and check this file.
"""


def load(source: str | Path | None = None) -> Topology:
    """Return the checked topology of a file, or of a name in SHIPPED.

    Without a source: `topology.yaml` in the working folder, else the shipped one.

    Raises:
        ConfigError: no such file or name, or a file that can't work; one line: file, line, field and cure.
    """
    path = _find(source)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"{path}: can't be read ({error.strerror}); name a file that can, or one of {', '.join(SHIPPED)}"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    return parse(text, str(path))


def parse(text: str, name: str = FILE_NAME) -> Topology:
    """Return the checked topology that `text` describes; `name` is what errors call the file.

    Raises:
        ConfigError: it can't work; one line: file, line, field and cure.
    """
    document = Document(text, name)
    topology = cast("Topology", document.read(Topology))
    for path, problem in checks.problems(topology):
        document.fail(path, problem)
    return topology


def generate(topology: Topology, count: int) -> Topology:
    """Return a topology of its own name: the `count` best-spread PoPs, or all and more around their cities.

    Raises:
        ConfigError: so many can't be generated.
    """
    return replace(generated(topology, count), name=f"{topology.name[:56]}-{count}")  # names end at 64


def dump_yaml(topology: Topology) -> str:
    """Return the file that `parse` reads back as `topology`: one line per PoP, defaults of the timers left out."""
    values = to_builtins(topology)
    defaults = to_builtins(Topology(name="x", coordinator=topology.coordinator, pops=topology.pops))
    lines = [_HEADER, f"name: {_flow(values['name'])}\n"]
    for section in ("coordinator", "monitor", "listen", "wan", "limits", "storage", "timers"):
        terse = section in {"monitor", "timers"}
        kept = {
            key: value
            for key, value in values[section].items()
            if value is not None and not (terse and value == defaults[section][key])
        }
        if kept:
            lines.append(f"{section}: {_flow(kept)}\n")
    if topology.readers:
        lines.append(f"readers: {topology.readers}\n")
    lines.append("pops:\n")
    for pop in values["pops"]:
        optional = {"url": None, "readers": None, "assumed": False}
        kept = {key: value for key, value in pop.items() if optional.get(key, ...) != value}
        lines.append(f"  - {_flow(kept)}\n")
    return "".join(lines)


def _find(source: str | Path | None) -> Path:
    if source is None:
        local = Path(FILE_NAME)
        return local if local.exists() else _shipped(SHIPPED[0])
    path = Path(source)
    if str(source) in SHIPPED and not path.exists():
        return _shipped(str(source))
    return path


def _shipped(name: str) -> Path:
    """The file of a shipped topology; a checkout has the first one at its root, a wheel beside the others."""
    if name != SHIPPED[0]:
        return DATA / f"{name}.yaml"
    packaged = DATA / FILE_NAME
    return packaged if packaged.exists() else DATA.parents[2] / FILE_NAME


def _flow(value: Any) -> str:
    """One value on one line, quoted where YAML needs it."""
    dumped: str = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=2**31 - 1
    )
    return dumped.removesuffix("\n").removesuffix("\n...")
