"""Files that commands write: there when all is in them, and not before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from kvnet.errors import ConfigError
from nodes.files import PRIVATE, sync_folder

PUBLIC = 0o666
"""As far as the user's umask lets others read it."""


@contextmanager
def whole_file(path: Path, *, private: bool = False) -> Iterator[BinaryIO]:
    """Give a file to write; at the end it stands on the disk under its name, in place of an older one.

    After an error there is what was there before.

    Raises:
        ConfigError: it can't be written.
    """
    if path.exists() and not path.is_file():  # a pipe or a device has no place to be put into
        with path.open("wb") as stream:
            yield stream
        return
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE if private else PUBLIC)
    except OSError as error:
        raise ConfigError(f"{path} can't be written ({error.strerror}): name a file that can") from None
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - created with its final permissions
            yield file
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        with suppress(OSError):
            fresh.unlink()
        raise
    sync_folder(path.parent)
