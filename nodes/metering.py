"""A node's usage on its disk: written every few seconds while it changes, and read at the next start."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from kvnet.core.usage import UsageMeter
from nodes.files import replace_file

SAVE_INTERVAL_S: Final = 5.0
"""What a killed process may forget."""
GAP_S_MAX: Final = 60.0
"""A longer time between two looks was sleep: nobody is charged for it."""

_log = logging.getLogger(__name__)


class Metering:
    """Keeps one meter's file."""

    def __init__(self, path: Path, stored_bytes: Callable[[], Mapping[bytes, int]]) -> None:
        """`stored_bytes` tells by namespace what is charged for here; nothing at an edge."""
        self._path = path
        self._stored_bytes = stored_bytes
        self._looked_at: float | None = None
        self._saved = b""
        self._task: asyncio.Task[None] | None = None
        told = None
        try:
            self._saved = path.read_bytes()
            told = msgspec.json.decode(self._saved)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            _log.error("usage begins anew, %s can't be read: %s", path, error)
        self.meter = UsageMeter(told)
        self.meter.turn(time.time())

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._go_on())

    async def stop(self) -> None:
        """Save what was counted last."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._save(durable=True)

    async def _go_on(self) -> None:
        while True:
            self._save()
            await asyncio.sleep(SAVE_INTERVAL_S)

    def _save(self, *, durable: bool = False) -> None:
        try:
            self._note(durable=durable)
        except Exception:  # noqa: BLE001 - counting must not end with one bad look
            _log.exception("usage wasn't noted this time")

    def _note(self, *, durable: bool) -> None:
        self.meter.turn(time.time())
        now = time.monotonic()
        gap_s = 0.0 if self._looked_at is None else min(GAP_S_MAX, now - self._looked_at)
        self._looked_at = now
        for namespace, size in self._stored_bytes().items():
            if size and gap_s:
                self.meter.of(namespace).byte_seconds += size * gap_s
        content = msgspec.json.encode(self.meter.to_dict())
        if content == self._saved:
            return
        try:
            replace_file(self._path, content, durable=durable)
            self._saved = content
        except OSError as error:  # counted on in memory, and tried again
            _log.warning("usage isn't saved: %s", error)
