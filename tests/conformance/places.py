"""Where clients talk to: nodes of one network, in terms of the variables that official clients read."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any, Final

WAIT_MS: Final = 30_000


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Place:
    """One node, and who asks it."""

    name: str
    url: str
    account_id: str
    token: str

    @property
    def variables(self) -> dict[str, str]:
        base = f"{self.url}/client/v4"
        return {
            "CLOUDFLARE_BASE_URL": base,
            "CLOUDFLARE_API_BASE_URL": base,
            "CLOUDFLARE_API_TOKEN": self.token,
            "CLOUDFLARE_ACCOUNT_ID": self.account_id,
        }

    def with_token(self, token: str) -> Place:
        return Place(self.name, self.url, self.account_id, token)

    def position(self) -> str:
        """Return how far this node's replica is."""
        return str(self.ask("").headers["KV-Position"])

    def reach(self, position: str) -> None:
        """Return when this node's replica is there."""
        answer = self.ask("", headers={"KV-At-Least": position, "KV-Wait-Timeout-Ms": str(WAIT_MS)})
        assert answer.status == 200, answer

    def ask(
        self,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        method: str | None = None,
    ) -> Answer:
        """Return the answer to a GET, or with a body a POST, of `path` below the account's namespaces."""
        request = urllib.request.Request(
            f"{self.url}/client/v4/accounts/{self.account_id}/storage/kv/namespaces{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", **(headers or {})},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=2 * WAIT_MS / 1000) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())


@dataclass(frozen=True, slots=True)
class Route:
    """Writes go in at one node and are read at another."""

    write: Place
    read: Place

    def arrive(self) -> None:
        """Return when what was written is where it is read."""
        self.read.reach(self.write.position())
