"""`.dev.vars`: the secrets that a developer keeps beside a project, as wrangler reads them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from kvnet.errors import ConfigError

FILE: Final = ".dev.vars"

_LINE: Final = re.compile(
    r"""\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*"""
    r"""(?:'(?P<raw>[^']*)'|"(?P<quoted>[^"]*)"|(?P<bare>[^#]*?))\s*(?:\#.*)?"""
)


def read_dev_vars(folder: Path) -> dict[str, str]:
    """Return the variables that `.dev.vars` sets, none where there is no such file.

    Raises:
        ConfigError: it can't be read, or a line of it isn't NAME=VALUE.
    """
    file = folder / FILE
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} can't be read ({error}): it holds lines such as NAME=VALUE") from None
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ConfigError(f"{file}: line {number}: write NAME=VALUE, a value with # in quotes")
        quoted = match["quoted"]
        value = quoted.replace("\\n", "\n") if quoted is not None else match["raw"] or match["bare"] or ""
        found[match["name"]] = value
    return found
