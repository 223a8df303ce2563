"""The client for programs without an event loop: the same objects, each call waited for.

One loop in a thread of its own does what any other program's loop does; nothing here speaks to an edge. It may be
called from any number of threads, not from a process that was forked since.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import IO, Any, Literal, ParamSpec, Self, TypeVar, Unpack, overload

from kvnet.client.answers import NamespaceInfo, NewPair, TokenInfo
from kvnet.client.candidates import Candidate
from kvnet.client.contents import ValueStream
from kvnet.client.directory import Edge
from kvnet.client.namespace import Namespace
from kvnet.client.network import Network, NetworkSession, connect
from kvnet.client.options import FreshOptions, GetOptions, ListOptions, PutOptions
from kvnet.client.receipt import Receipt, Wait
from kvnet.core.versions import Version
from kvnet.values import KeyPage, Keys, ListedKey, Value

P = ParamSpec("P")
ResultT = TypeVar("ResultT")
SyncContent = str | bytes | bytearray | memoryview | IO[bytes] | IO[str]


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kvnet client", daemon=True)
        self._thread.start()

    def run(self, call: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Return what it comes to; it is cancelled when the wait for it is interrupted."""
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


class SyncNetwork:
    """An open network, as `Network`; to be entered with `with`."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def __enter__(self) -> Self:
        self._thread = LoopThread()
        try:
            self._thread.run(self._network.__aenter__())
        except BaseException:
            self._thread.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._thread.run(self._network.__aexit__(kind, error, trace))
        finally:
            self._thread.close()

    @property
    def edge(self) -> Edge:
        """The edge that is asked first now."""
        return self._network.edge

    @property
    def preferred(self) -> Edge:
        """As Network.preferred."""
        return self._network.preferred

    @property
    def version(self) -> Version | None:
        """As Network.version."""
        return self._network.version

    def session(self, version: Version | None = None) -> SyncNetworkSession:
        """As Network.session."""
        return SyncNetworkSession(self._thread, self._network.session(version))

    def candidates(self, count: int = 5) -> list[Candidate]:
        """As Network.candidates."""
        return self._thread.run(self._network.candidates(count))

    def status(self, code: str) -> dict[str, Any]:
        """As Network.status."""
        return self._thread.run(self._network.status(code))

    def namespace(self, name: str) -> SyncNamespace:
        """As Network.namespace."""
        return SyncNamespace(self._thread, self._network.namespace(name))

    def namespaces(self) -> list[NamespaceInfo]:
        """As Network.namespaces."""
        return self._thread.run(self._network.namespaces())

    def create_namespace(self, title: str, *, id: str | None = None) -> SyncNamespace:  # noqa: A002 - its name
        """As Network.create_namespace."""
        return SyncNamespace(self._thread, self._thread.run(self._network.create_namespace(title, id=id)))

    def tokens(self) -> list[TokenInfo]:
        """As Network.tokens."""
        return self._thread.run(self._network.tokens())

    def token(self, name: str) -> TokenInfo:
        """As Network.token."""
        return self._thread.run(self._network.token(name))

    def create_token(
        self, name: str, *, scope: str = "read", namespaces: Sequence[str] = (), expires_on: str | None = None
    ) -> tuple[TokenInfo, str]:
        """As Network.create_token."""
        call = self._network.create_token(name, scope=scope, namespaces=namespaces, expires_on=expires_on)
        return self._thread.run(call)

    def roll_token(self, name: str) -> str:
        """As Network.roll_token."""
        return self._thread.run(self._network.roll_token(name))

    def revoke_token(self, name: str) -> None:
        """As Network.revoke_token."""
        self._thread.run(self._network.revoke_token(name))


class SyncNetworkSession:
    """A session, as `NetworkSession`."""

    def __init__(self, thread: LoopThread, session: NetworkSession) -> None:
        self._thread = thread
        self._session = session

    @property
    def version(self) -> Version | None:
        """As NetworkSession.version."""
        return self._session.version

    def namespace(self, name: str) -> SyncNamespace:
        """As NetworkSession.namespace."""
        return SyncNamespace(self._thread, self._session.namespace(name))


class SyncNamespace:
    """A namespace, as `Namespace`."""

    def __init__(self, thread: LoopThread, namespace: Namespace) -> None:
        self._thread = thread
        self._namespace = namespace

    @property
    def name(self) -> str:
        """Title or id, as given."""
        return self._namespace.name

    @overload
    def get(self, key: str, type: Literal["text"] = "text", **options: Unpack[GetOptions]) -> str | None: ...
    @overload
    def get(self, key: str, type: Literal["json"], **options: Unpack[GetOptions]) -> Any: ...
    @overload
    def get(
        self, key: str, type: Literal["bytes", "arrayBuffer"], **options: Unpack[GetOptions]
    ) -> bytes | None: ...
    @overload
    def get(self, key: str, type: Literal["stream"], **options: Unpack[GetOptions]) -> SyncValueStream | None: ...
    @overload
    def get(
        self, key: Keys, type: Literal["text"] = "text", **options: Unpack[GetOptions]
    ) -> dict[str, str | None]: ...
    @overload
    def get(self, key: Keys, type: Literal["json"], **options: Unpack[GetOptions]) -> dict[str, Any]: ...
    @overload
    def get(self, key: str | Keys, type: Mapping[str, Any], **options: Unpack[GetOptions]) -> Any: ...
    def get(self, key: Any, type: Any = "text", **options: Unpack[GetOptions]) -> Any:  # noqa: A002 - as there
        """As Namespace.get."""
        found = self._thread.run(self._namespace.get(key, type, **options))
        return SyncValueStream(self._thread, found) if isinstance(found, ValueStream) else found

    @overload
    def get_with_metadata(
        self, key: str, type: Literal["text"] = "text", **options: Unpack[GetOptions]
    ) -> Value[str]: ...
    @overload
    def get_with_metadata(self, key: str, type: Literal["json"], **options: Unpack[GetOptions]) -> Value[Any]: ...
    @overload
    def get_with_metadata(
        self, key: str, type: Literal["bytes", "arrayBuffer"], **options: Unpack[GetOptions]
    ) -> Value[bytes]: ...
    @overload
    def get_with_metadata(
        self, key: Keys, type: Literal["text"] = "text", **options: Unpack[GetOptions]
    ) -> dict[str, Value[str]]: ...
    @overload
    def get_with_metadata(
        self, key: Keys, type: Literal["json"], **options: Unpack[GetOptions]
    ) -> dict[str, Value[Any]]: ...
    @overload
    def get_with_metadata(
        self, key: str | Keys, type: Mapping[str, Any], **options: Unpack[GetOptions]
    ) -> Any: ...
    def get_with_metadata(
        self,
        key: Any,
        type: Any = "text",  # noqa: A002 - as there
        **options: Unpack[GetOptions],
    ) -> Any:
        """As Namespace.get_with_metadata."""
        return self._thread.run(self._namespace.get_with_metadata(key, type, **options))

    @overload
    def put(
        self, key: str, value: SyncContent, options: Mapping[str, Any] | None = None, **more: Unpack[PutOptions]
    ) -> Version: ...
    @overload
    def put(
        self,
        key: str,
        value: SyncContent,
        options: Mapping[str, Any] | None = None,
        *,
        wait: Wait,
        wait_timeout_ms: int | None = None,
        **more: Unpack[PutOptions],
    ) -> Receipt: ...
    def put(self, key: str, value: SyncContent, options: Mapping[str, Any] | None = None, **more: Any) -> Any:
        """As Namespace.put."""
        return self._thread.run(self._namespace.put(key, value, options, **more))

    @overload
    def delete(self, key: str) -> Version: ...
    @overload
    def delete(self, key: str, *, wait: Wait, wait_timeout_ms: int | None = None) -> Receipt: ...
    def delete(self, key: str, **more: Any) -> Any:
        """As Namespace.delete."""
        return self._thread.run(self._namespace.delete(key, **more))

    def list(self, options: Mapping[str, Any] | None = None, **more: Unpack[ListOptions]) -> KeyPage:
        """As Namespace.list."""
        return self._thread.run(self._namespace.list(options, **more))

    getWithMetadata = get_with_metadata  # noqa: N815 - as a Worker spells it

    def keys(
        self, *, prefix: str = "", limit: int | None = None, **fresh: Unpack[FreshOptions]
    ) -> Iterator[ListedKey]:
        """As Namespace.keys."""
        keys = self._namespace.keys(prefix=prefix, limit=limit, **fresh)

        async def following() -> ListedKey | None:
            return await anext(keys, None)

        while (key := self._thread.run(following())) is not None:
            yield key

    @overload
    def put_many(self, pairs: Sequence[NewPair]) -> Version | None: ...
    @overload
    def put_many(
        self, pairs: Sequence[NewPair], *, wait: Wait, wait_timeout_ms: int | None = None
    ) -> Receipt | None: ...
    def put_many(self, pairs: Sequence[NewPair], **more: Any) -> Any:
        """As Namespace.put_many."""
        return self._thread.run(self._namespace.put_many(pairs, **more))

    def id(self) -> str:
        """As Namespace.id."""
        return self._thread.run(self._namespace.id())

    def info(self) -> NamespaceInfo:
        """As Namespace.info."""
        return self._thread.run(self._namespace.info())

    def rename(self, title: str) -> None:
        """As Namespace.rename."""
        self._thread.run(self._namespace.rename(title))

    def drop(self) -> None:
        """As Namespace.drop."""
        self._thread.run(self._namespace.drop())


class SyncValueStream:
    """A value as it comes: an iterator of bytes, to be read to its end or closed."""

    def __init__(self, thread: LoopThread, stream: ValueStream) -> None:
        self._thread = thread
        self._stream = stream

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        """As ValueStream.__anext__."""

        async def following() -> bytes | None:
            return await anext(self._stream, None)

        data = self._thread.run(following())
        if data is None:
            raise StopIteration
        return data

    def close(self) -> None:
        """Read no more of it."""
        self._thread.run(self._stream.aclose())


def _without_a_loop(network: Callable[P, Network]) -> Callable[P, SyncNetwork]:
    def connected(*given: P.args, **more: P.kwargs) -> SyncNetwork:
        return SyncNetwork(network(*given, **more))

    connected.__doc__ = "Return a client as `connect` does, for a program without an event loop."
    return connected


connect_sync = _without_a_loop(connect)
