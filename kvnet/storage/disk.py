"""What our own code asks of the disk, beside LMDB's part: few things, so that a power cut can be tried on them."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

BOOT_ID_PATH: Final = Path("/proc/sys/kernel/random/boot_id")


class Disk(Protocol):
    """Files and folders, and what of them is still there after the power was gone."""

    def boot_id(self) -> str:
        """Another one after every start of the machine."""

    def write_durably(self, path: Path, data: bytes) -> None:
        """The file holds this on the disk afterwards; meanwhile it is the old one or the new one, whole."""

    def remove_tree(self, path: Path) -> None:
        """The folder and all in it are gone, if it was there."""

    def sync_folder(self, folder: Path) -> None:
        """What was created, renamed or removed in it stays so."""

    def on_synced(self, environment: Path) -> None:
        """LMDB has synced what was committed to this environment."""


class HostDisk:
    """The disk of this machine."""

    def boot_id(self) -> str:
        return BOOT_ID_PATH.read_text().strip()

    def write_durably(self, path: Path, data: bytes) -> None:
        scratch = path.with_name(path.name + ".new")
        with suppress(FileNotFoundError):
            scratch.unlink()
        with scratch.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
        self.sync_folder(path.parent)

    def remove_tree(self, path: Path) -> None:
        with suppress(FileNotFoundError):
            shutil.rmtree(path)

    def sync_folder(self, folder: Path) -> None:
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def on_synced(self, environment: Path) -> None:
        """The kernel knows."""


HOST: Final = HostDisk()
