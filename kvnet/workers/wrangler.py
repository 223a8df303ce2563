"""Wrangler's configuration: the fields of it that mean something here, and a line for those that don't."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import json5

from kvnet.errors import ConfigError
from kvnet.workers.project import VARIABLE, KvBinding, Project, check_name, check_script, why_bundled

FILES: Final = ("wrangler.jsonc", "wrangler.json", "wrangler.toml")
"""In the order in which they are looked for."""

NOT_PROVIDED: Final = {
    "ai": "Workers AI",
    "analytics_engine_datasets": "Analytics Engine",
    "assets": "static assets",
    "browser": "Browser Rendering",
    "containers": "Containers",
    "d1_databases": "D1",
    "dispatch_namespaces": "dispatch namespaces",
    "durable_objects": "Durable Objects",
    "env": "wrangler's environments",
    "hyperdrive": "Hyperdrive",
    "images": "Images",
    "mtls_certificates": "mTLS certificates",
    "pipelines": "Pipelines",
    "queues": "Queues",
    "r2_buckets": "R2",
    "ratelimits": "rate limiting",
    "secrets_store_secrets": "the Secrets Store",
    "send_email": "sending email",
    "services": "bindings to other Workers",
    "site": "Workers Sites",
    "tail_consumers": "tail Workers",
    "triggers": "Cron Triggers",
    "unsafe": "unsafe bindings",
    "vectorize": "Vectorize",
    "version_metadata": "version metadata",
    "workflows": "Workflows",
}
"""What people ask for, by the field that asks for it."""

BUNDLING: Final = ("alias", "build", "define", "find_additional_modules", "rules")
"""Fields that mean something only while a script is bundled."""

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_ID: Final = re.compile(r"[0-9a-f]{32}")


def find_config(folder: Path) -> Path | None:
    """Return the configuration in `folder`, if there is one."""
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def from_config(path: Path, script: Path | None = None) -> Project:
    """Return the project that a configuration describes; `script` takes the place of its `main`.

    Raises:
        ConfigError: it can't be read, or a field of it can't work; names file, field and cure.
    """
    return _Reader(path).project(script)


class _Reader:
    """One configuration while it is read; each mistake names its field."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fields = _parse(path)

    def project(self, script: Path | None) -> Project:
        if script is None:
            main = self._path.parent / self._required_text("main", 'write "main": "src/index.js"')
            check_script(main, f"{self._path}: main:")
        else:
            main = script
            check_script(main, "the script")
        reasons = [f"{name} is set in {self._path.name}" for name in BUNDLING if self._fields.get(name)]
        return Project(
            name=self._name(),
            main=main,
            folder=self._path.parent,
            config=self._path,
            compatibility_date=self._date(),
            compatibility_flags=self._flags(),
            kv_namespaces=tuple(self._kv_namespaces()),
            variables=self._variables(),
            bundling=next(iter(reasons), None) or why_bundled(main),
            warnings=tuple(
                f"{self._path.name}: {field}: {name}: not provided here, the Worker runs without"
                for field, name in NOT_PROVIDED.items()
                if self._fields.get(field)
            ),
        )

    def _name(self) -> str:
        name = self._text("name")
        if name is None:
            return re.sub(r"[^A-Za-z0-9_-]+", "-", self._path.resolve().parent.name).strip("-_")[:63] or "worker"
        try:
            return check_name(name)
        except ConfigError as error:
            raise self._wrong("name", str(error)) from None

    def _date(self) -> str | None:
        date = self._fields.get("compatibility_date")
        if date is None:
            return None
        if not _DATE.fullmatch(str(date)):  # TOML has dates of its own
            raise self._wrong("compatibility_date", f'{date!r} is not a date: write "2026-11-01"')
        return str(date)

    def _flags(self) -> tuple[str, ...]:
        flags = self._fields.get("compatibility_flags", [])
        if not isinstance(flags, list) or not all(isinstance(flag, str) for flag in flags):
            raise self._wrong("compatibility_flags", 'write a list of names, such as ["nodejs_compat"]')
        return tuple(flags)

    def _kv_namespaces(self) -> list[KvBinding]:
        entries = self._fields.get("kv_namespaces", [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise self._wrong("kv_namespaces", 'write a list such as [{"binding": "KV"}]')
        found: dict[str, KvBinding] = {}
        for number, entry in enumerate(entries):
            where = f"kv_namespaces[{number}]"
            name = entry.get("binding")
            if not isinstance(name, str) or not VARIABLE.fullmatch(name):
                raise self._wrong(f"{where}.binding", 'write the name of a variable, such as "KV"')
            if name in found:
                raise self._wrong(f"{where}.binding", f"{name!r} stands twice: remove one of them")
            ids = [self._id(entry, where, field, name) for field in ("id", "preview_id")]
            found[name] = KvBinding(name, *ids)
        return list(found.values())

    def _id(self, entry: Mapping[str, Any], where: str, field: str, binding: str) -> str | None:
        told = entry.get(field)
        if told is None or told == "":
            return None
        if not isinstance(told, str) or not _ID.fullmatch(told.lower()):
            raise self._wrong(
                f"{where}.{field}",
                f"{told!r} is not 32 hex digits: leave it out for a namespace titled {binding!r}, "
                f"or choose one with --bind {binding}=NAMESPACE",
            )
        return told.lower()

    def _variables(self) -> dict[str, Any]:
        variables = self._fields.get("vars", {})
        if not isinstance(variables, dict):
            raise self._wrong("vars", 'write names and values, such as {"GREETING": "hello"}')
        for name in variables:
            if not VARIABLE.fullmatch(name):
                raise self._wrong(f"vars.{name}", "write the name of a variable: letters, digits and _")
        return variables

    def _required_text(self, field: str, cure: str) -> str:
        text = self._text(field)
        if not text:
            raise self._wrong(field, f"is missing: {cure}")
        return text

    def _text(self, field: str) -> str | None:
        text = self._fields.get(field)
        if text is not None and not isinstance(text, str):
            raise self._wrong(field, f"{text!r} is not text: put it in quotes")
        return text

    def _wrong(self, field: str, what: str) -> ConfigError:
        return ConfigError(f"{self._path}: {field}: {what}")


def _parse(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        fields = tomllib.loads(text) if path.suffix == ".toml" else json5.loads(text, allow_duplicate_keys=False)
    except OSError as error:
        raise ConfigError(f"{path} can't be read ({error.strerror}): --config names wrangler's file") from None
    except (ValueError, RecursionError) as error:  # what both parsers raise, and bytes that aren't UTF-8
        told = str(error).replace("<string>:", "line ")
        language = "TOML" if path.suffix == ".toml" else "JSON with comments"
        raise ConfigError(f"{path}: {told}: correct it, the file is read as {language}") from None
    if not isinstance(fields, dict):
        raise ConfigError(f'{path} holds no settings: write {{"name": "…", "main": "src/index.js"}}')
    return fields
