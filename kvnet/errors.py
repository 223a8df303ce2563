"""Every error kvnet raises on purpose, as one tree.

    KvnetError
    ├── ConfigError          a file, option or folder that can't work; the text names the cure (exit code 2)
    ├── ProtocolError        the peer's fault: drop the message, count it, never stop
    ├── StorageError         the disk's or the environment's fault
    │   ├── StorageFull      no room for this write; reads go on
    │   ├── ForeignEnvironment  another cluster's, another node's or a newer format's data
    │   ├── BeyondHorizon    the journal no longer holds what was asked for
    │   ├── Fenced           the journal has gone on without whoever appends to it
    │   ├── Divergence       same position, different digest: stop serving
    │   ├── StorageDamaged   stored bytes that aren't what was written: stop serving
    │   ├── PageDamaged      a page or snapshot that was cut or altered: nothing of it is taken
    │   └── ChunksMissing    an entry whose chunks aren't here yet
    └── RequestError         the client's answer: status, API code, message

Broken invariants are not errors but `assert`s, and they stay on.
"""

from __future__ import annotations


class KvnetError(Exception):
    """Root of everything raised here on purpose."""


class ConfigError(KvnetError):
    """A configuration that can't work; the message is one line and names the cure."""


class ProtocolError(KvnetError):
    """A peer sent what it must not; the receiver drops it, counts it and goes on."""


class StorageError(KvnetError):
    """The environment can't do what was asked."""


class StorageFull(StorageError):
    """The disk or the map is full: nothing of the batch was written, reads go on."""


class ForeignEnvironment(StorageError):
    """The environment belongs to another cluster, another node or a newer format; nothing was changed."""


class BeyondHorizon(StorageError):
    """The journal starts later than what was asked for."""


class Fenced(StorageError):
    """These frames are of an epoch that is over, or don't continue the journal; nothing was appended."""


class Divergence(StorageError):
    """This replica's digest differs from the frame's at the same position."""


class StorageDamaged(StorageError):
    """Bytes on this disk aren't what was written there: the replica must not serve until it is made anew."""


class PageDamaged(StorageError):
    """A page or a snapshot was cut or altered on its way; nothing of it was taken."""


class ChunksMissing(StorageError):
    """What is to be applied needs chunks of a large value that aren't here; nothing was applied."""

    def __init__(self, hashes: tuple[bytes, ...], applicable: int) -> None:
        super().__init__(f"{len(hashes)} chunks of a large value aren't here yet")
        self.hashes = hashes
        self.applicable = applicable
        """So many of the frames, from the first on, can be applied without them."""


class RequestError(KvnetError):
    """What a client is told: HTTP status, API code and message.

    `definite` is True when the request did not and will not take effect; False when it may have (a time-out
    on the way to the coordinator).
    """

    def __init__(
        self,
        status: int,
        code: int,
        message: str,
        *,
        definite: bool = True,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.definite = definite
        self.headers = headers or {}
