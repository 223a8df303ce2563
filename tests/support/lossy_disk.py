"""A disk that loses at a power cut what was not synced: storage.disk.Disk for tests.

It keeps what is durable beside what the process sees. At the cut every 4 KiB page of an environment that was
written since its last sync, every folder and file that was made or removed since its folder's, is kept or lost at
random.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from kvnet.storage.disk import HostDisk

PAGE_BYTES = 4096


class LossyDisk(HostDisk):
    """The host's, with a memory of what was synced."""

    def __init__(self, seed: int) -> None:
        self.lost = 0
        """Pages, files and folders that power cuts took, or brought back."""
        self._random = random.Random(seed)
        self._boots = 1
        self._data: dict[Path, bytes] = {}
        """By environment, its file as it was last synced."""
        self._entries: dict[Path, set[str]] = {}
        """By folder, the names that are in it for good."""
        self._removed: dict[Path, bytes | None] = {}
        """Environments whose removal isn't for good yet."""

    def boot_id(self) -> str:
        return f"boot {self._boots}"

    def sync_folder(self, folder: Path) -> None:
        super().sync_folder(folder)
        self._entries[folder] = {path.name for path in folder.iterdir()}
        for path in [path for path in self._removed if path.parent == folder]:
            del self._removed[path]

    def remove_tree(self, path: Path) -> None:
        durable = path.name in self._entries.get(path.parent, ())
        if path.exists() and durable:
            self._removed[path] = self._data.get(path)
        super().remove_tree(path)

    def on_synced(self, environment: Path) -> None:
        self._data[environment] = (environment / "data.mdb").read_bytes()

    def power_cut(self, folder: Path) -> None:
        """The machine goes down, and is up again; nobody has the folder open."""
        self._boots += 1
        for environment in sorted(folder.glob("replica*")):
            if not self._keeps(folder, environment.name):
                shutil.rmtree(environment)
            elif not self._keeps(environment, "data.mdb"):
                shutil.rmtree(environment)
                environment.mkdir()
            elif (environment / "data.mdb").exists():
                self._lose_pages(environment)
        for path, data in self._removed.items():
            if self._random.random() < 0.5 and not path.exists():
                self.lost += 1
                path.mkdir()
                if data is not None:
                    (path / "data.mdb").write_bytes(data)
        self._removed.clear()
        for known in (folder, *folder.glob("replica*")):
            self._entries[known] = {path.name for path in known.iterdir()}
        for environment in folder.glob("replica*"):
            if (environment / "data.mdb").exists():
                self.on_synced(environment)

    def _keeps(self, folder: Path, name: str) -> bool:
        if name in self._entries.get(folder, ()) or self._random.random() < 0.5:
            return True
        self.lost += 1
        return False

    def _lose_pages(self, environment: Path) -> None:
        file = environment / "data.mdb"
        now, durable = file.read_bytes(), self._data.get(environment, b"")
        pages = []
        for at in range(0, len(now), PAGE_BYTES):
            new, old = now[at : at + PAGE_BYTES], durable[at : at + PAGE_BYTES]
            if new != old and self._random.random() < 0.5:
                self.lost += 1
                new = old.ljust(PAGE_BYTES, b"\0")
            pages.append(new)
        file.write_bytes(b"".join(pages))
