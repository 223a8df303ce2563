"""Modules: the files that a script reaches by its imports, and why it may not run as it stands.

Imports are found by a pattern, not by parsing: what only looks like one costs nothing, unless it names a package.
The runtime itself says what is wrong with a script.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kvnet.errors import ConfigError
from kvnet.workers.project import BUNDLED

KINDS: Final = {
    ".js": "esModule",
    ".mjs": "esModule",
    ".cjs": "commonJsModule",
    ".json": "json",
    ".txt": "text",
    ".html": "text",
    ".sql": "text",
    ".bin": "data",
    ".wasm": "wasm",
}
"""The runtime's kinds of modules by the file's ending, as wrangler has them by default."""
SOURCES: Final = frozenset({"esModule", "commonJsModule"})
AS_MODULE: Final = "?module"
"""May stand behind the name of a WebAssembly file."""
BUILT_IN: Final = ("node:", "cloudflare:", "workerd:")
NODE_COMPATIBLE: Final = "nodejs_compat"
NODE_NAMES: Final = frozenset(
    (
        *("assert", "async_hooks", "buffer", "console", "constants", "crypto", "diagnostics_channel", "dns"),
        *("events", "fs", "http", "https", "module", "net", "os", "path", "process", "punycode", "querystring"),
        *("stream", "string_decoder", "timers", "tls", "url", "util", "zlib"),
    )
)
"""Of Node's own modules, those that the runtime knows without `node:` too."""

_IMPORT: Final = re.compile(
    r"""(?:^|[;}])\s*(?:import|export)\b(?:[^'"`;()]*?\bfrom)?\s*(["'])(?P<name>[^"'\n]+)\1""", re.MULTILINE
)
_DYNAMIC_IMPORT: Final = re.compile(r"""\bimport\(\s*(["'])(?P<name>[^"'\n]+)\1""")
_REQUIRE: Final = re.compile(r"""\brequire\(\s*(["'])(?P<name>[^"'\n]+)\1""")
_EXPORT: Final = re.compile(r"(?:^|[;}])\s*export\b", re.MULTILINE)
_LISTENER: Final = re.compile(r"\baddEventListener\s*\(")


@dataclass(frozen=True, slots=True)
class Module:
    """One file as the runtime is given it."""

    name: str
    """Its path below the folder that all modules share; what imports are resolved against."""
    kind: str
    path: Path
    """Absolute."""


@dataclass(frozen=True, slots=True)
class Code:
    """What a Worker is made of."""

    modules: Sequence[Module]
    """The main one first."""
    listens: bool = False
    """The main one has no exports and adds event listeners: the older form of a Worker."""
    bundling: str | None = None
    """Why it can't run as it stands."""
    missing: Sequence[Path] = ()
    """Files that it seems to import and that aren't there."""


def read_code(main: Path, flags: Sequence[str] = ()) -> Code:
    """Return what `main` reaches by its imports; `flags` are the compatibility flags.

    Raises:
        ConfigError: a file can't be read.
    """
    start = Path(os.path.abspath(main))  # noqa: PTH100 - links stay: imports are relative to where the file seems to be
    node_names = NODE_NAMES if any(flag.startswith(NODE_COMPATIBLE) for flag in flags) else frozenset()
    found: dict[tuple[Path, str], str] = {(start, ""): KINDS.get(start.suffix, "esModule")}
    waiting = [start]
    missing = []
    bundling = None
    while waiting:
        path = waiting.pop()
        for name in _imports(path):
            if name.startswith(BUILT_IN) or name in node_names:
                continue
            target, suffix = _resolve(path, name)
            if target is None:
                bundling = bundling or f"{path.name} imports {name!r}"
                continue
            kind = KINDS.get(target.suffix)
            if not target.is_file():
                missing.append(target)
            elif kind is None:
                bundling = bundling or f"{path.name} imports {name!r}"
            elif (target, suffix) not in found:
                found[target, suffix] = kind
                if kind in SOURCES:
                    waiting.append(target)
    root = Path(os.path.commonpath([path.parent for path, _ in found]))
    modules = [Module(f"{path.relative_to(root)}{suffix}", kind, path) for (path, suffix), kind in found.items()]
    text = _read(start)
    listens = len(modules) == 1 and not _EXPORT.search(text) and bool(_LISTENER.search(text))
    return Code(modules, listens, bundling, missing)


def _resolve(importer: Path, name: str) -> tuple[Path | None, str]:
    """Return the file that `name` means, which needn't exist, and what stands behind its path; None for a package.

    What only a bundler finds, a file without its ending, is none to the runtime.
    """
    if not name.startswith(("./", "../")):
        return None, ""
    plain = name.removesuffix(AS_MODULE)
    target = Path(os.path.normpath(importer.parent / plain))
    if target.suffix not in KINDS and not target.is_file():
        others = target.parent.glob(f"{_escaped(target.name)}.*")
        if target.is_dir() or any(other.suffix in KINDS or other.suffix in BUNDLED for other in others):
            return None, ""
    return target, name[len(plain) :]


def _escaped(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)


def _imports(path: Path) -> list[str]:
    text = _read(path)
    patterns = [_IMPORT, _DYNAMIC_IMPORT, *([_REQUIRE] if path.suffix == ".cjs" else [])]
    return [match["name"] for pattern in patterns for match in pattern.finditer(text)]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"{path} can't be read ({error.strerror}): the Worker imports it") from None
