"""The official SDKs as processes of their own, and one client for all of them that tells each its way."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import pytest

from tests.conformance.places import Place, Route

CLIENTS: Final = Path(__file__).parent / "clients"
RETRIES: Final = 2
"""Both SDKs' own default."""


class SdkError(Exception):
    """What the SDK raised: the API's answer, or the SDK's own objection."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(json.dumps(error))
        self.answer: tuple[int, list[int]] | None = (
            (error["status"], error["codes"]) if "status" in error else None
        )


@dataclass(frozen=True, slots=True)
class Value:
    data: bytes
    headers: Mapping[str, str]

    @property
    def expiration(self) -> int | None:
        return int(self.headers["expiration"]) if "expiration" in self.headers else None


class Process:
    """One SDK's script, which is told one call a line; use it as a context."""

    def __init__(self, command: Sequence[str | Path], variables: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.__exit__(None, None, None)  # closes its stdin, at which it ends

    def call(
        self, place: Place, operation: str, arguments: Mapping[str, Any], *, max_retries: int = RETRIES
    ) -> Any:
        """Return what the call returned.

        Raises:
            SdkError: it raised.
        """
        message = {
            "variables": place.variables,
            "operation": operation,
            "arguments": {"account_id": place.account_id, **arguments},
            "max_retries": max_retries,
        }
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the client's process ended: {self._process.wait()}"
        answer = json.loads(line)
        if "error" in answer:
            raise SdkError(answer["error"])
        return answer["result"]


@dataclass(frozen=True, slots=True)
class Sdk:
    """One SDK in one namespace, writing at one node and reading at another."""

    name: str
    process: Process
    route: Route
    namespace_id: str = ""

    @property
    def is_python_4(self) -> bool:
        return self.name == "python-4.3.1"

    def in_namespace(self, namespace_id: str) -> Sdk:
        return Sdk(self.name, self.process, self.route, namespace_id)

    def write(self, operation: str, **arguments: Any) -> Any:
        """Return what the call returned at the node that is written to."""
        return self.process.call(self.route.write, operation, self._with_namespace(operation, arguments))

    def read(self, operation: str, **arguments: Any) -> Any:
        """Return what the call returned at the other node, once all that was written is there."""
        self.route.arrive()
        return self.process.call(self.route.read, operation, self._with_namespace(operation, arguments))

    def put(
        self, key: str, data: bytes, metadata: Any = None, *, max_retries: int = RETRIES, **times: int
    ) -> None:
        """Write a pair as this SDK's users do."""
        arguments: dict[str, Any] = {"key_name": key, "namespace_id": self.namespace_id, **times}
        if self.is_python_4:  # it has no optional metadata and no bytes, and sends a form only when it is told to
            arguments |= {"value": data.decode(), "metadata": json.dumps(metadata)}
            arguments["extra_headers"] = {"Content-Type": "multipart/form-data"}
        else:
            arguments["value"] = {"base64": base64.b64encode(data).decode()}
            if (
                metadata is not None
            ):  # the npm SDK would take an object apart into fields that the API doesn't know
                arguments["metadata"] = json.dumps(metadata) if self.name.startswith("npm") else metadata
        self.process.call(self.route.write, "values.update", arguments, max_retries=max_retries)

    def get(self, key: str) -> Value:
        found = self.read("values.get", key_name=key)
        return Value(base64.b64decode(found["base64"]), found["headers"])

    def delete(self, key: str) -> None:
        self.write("values.delete", key_name=key)

    def list_keys(self, **options: Any) -> list[dict[str, Any]]:
        """Return all keys, through the SDK's own walk over the pages."""
        return list(self.read("keys.list", **options))

    def _with_namespace(self, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if operation in {"create", "list"}:
            return dict(arguments)
        return {"namespace_id": self.namespace_id, **arguments}


def refused(call: Callable[..., Any], *arguments: object, **options: object) -> tuple[int, list[int]]:
    """Return status and codes of the answer to a call that must fail."""
    with pytest.raises(SdkError) as raised:
        call(*arguments, **options)
    assert raised.value.answer, raised.value
    return raised.value.answer
