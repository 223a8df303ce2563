"""A request's query string, form-decoded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from kvnet.api import codes

FIELDS_MAX: Final = 64

_INTEGER = re.compile(r"-?[0-9]{1,18}")


def read_integer(text: str) -> int | None:
    """Return the integer that `text` spells in ASCII digits, None if it is anything else."""
    return int(text) if _INTEGER.fullmatch(text) else None


class Query:
    """Fields by name; the first of several of one name counts."""

    def __init__(self, raw: str) -> None:
        """Decode `raw`.

        Raises:
            RequestError: not UTF-8, or more than FIELDS_MAX fields.
        """
        self._fields: Mapping[str, str] = {}
        if raw:
            try:
                pairs = parse_qsl(raw, keep_blank_values=True, errors="strict", max_num_fields=FIELDS_MAX)
                raw.encode("utf-8")
            except ValueError:
                raise codes.QUERY_INVALID.error(most=FIELDS_MAX) from None
            self._fields = dict(reversed(pairs))

    def text(self, name: str) -> str | None:
        return self._fields.get(name)

    def integer(self, name: str, default: int, least: int, most: int | None = None) -> int:
        """Return the field as an integer from `least` to `most`.

        Raises:
            RequestError: it is something else.
        """
        text = self._fields.get(name)
        if text is None:
            return default
        number = read_integer(text)
        if number is None or number < least or (most is not None and number > most):
            allowed = f"of at least {least}" if most is None else f"from {least} to {most}"
            raise codes.FIELD_INVALID.error(name=name, what=f"must be an integer {allowed}")
        return number

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """Return the field as one of `choices`, the first if it is absent.

        Raises:
            RequestError: it is something else.
        """
        text = self._fields.get(name, choices[0])
        if text not in choices:
            raise codes.FIELD_INVALID.error(name=name, what=f"must be {' or '.join(choices)}")
        return text
