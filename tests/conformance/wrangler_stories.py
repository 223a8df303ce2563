"""What is done with wrangler: every KV command that it has, written at one node, read at another.

The stories begin with the session, since a command takes a second of one processor while other tests mostly wait
for the network; `test_wrangler.py` waits for their ends.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

from tests.conformance.places import Answer, Route
from tests.conformance.wrangler import Wrangler, at_once

AWKWARD: Final = "a/b c:!%41?x=é😀"


@dataclass(frozen=True, slots=True)
class Setting:
    """What a story is given."""

    wrangler: Wrangler
    route: Route
    namespace_id: str
    """A namespace of its own."""
    folder: Path
    """A folder of its own."""

    @property
    def here(self) -> tuple[str, ...]:
        """The options that name the namespace, and the network instead of local files."""
        return ("--namespace-id", self.namespace_id, "--remote")

    def write(self, *command: object) -> bytes:
        """Return what a command prints at the node that is written to, which must work."""
        return self.wrangler(self.route.write, *command)

    def read(self, *command: object) -> bytes:
        """Return what a command prints at the other node, which must work."""
        return self.wrangler(self.route.read, *command)

    def ask(self, path: str) -> Answer:
        """Return the other node's own answer about the namespace, once all that was written is there."""
        self.route.arrive()
        return self.route.read.ask(f"/{self.namespace_id}{path}")

    def file(self, name: str, document: object) -> Path:
        path = self.folder / name
        path.write_text(json.dumps(document))
        return path


def namespace_commands(setting: Setting) -> None:
    title = f"wrangler {setting.route.write.name}"
    created = setting.write("namespace", "create", title).decode()
    setting.route.arrive()
    again, listed = at_once(
        [
            partial(setting.wrangler.fail, setting.route.write, "namespace", "create", title),
            partial(setting.read, "namespace", "list"),
        ]
    )
    assert "already exists" in again
    [namespace] = [found for found in json.loads(listed) if found["title"] == title]
    assert namespace["id"] in created
    assert title in setting.write("namespace", "rename", title, "--new-name", f"{title} (2)").decode()
    setting.route.arrive()
    assert setting.route.read.ask(f"/{namespace['id']}").json["result"] == namespace | {"title": f"{title} (2)"}
    setting.write("namespace", "delete", f"{title} (2)", "--skip-confirmation")
    setting.route.arrive()
    assert setting.route.read.ask(f"/{namespace['id']}").status == 404


def key_commands(setting: Setting) -> None:
    data = bytes(range(256))
    file = setting.folder / "value"
    file.write_bytes(data)
    at = int(time.time()) + 7200
    earliest = int(time.time()) + 600
    puts = [
        ("plain", "hello"),
        (AWKWARD, "awkward", "--ttl", 600),
        ("described", "Grüße", "--metadata", '{"by": "ada"}', "--expiration", at),
        ("file", "--path", file),
        ("file-described", "--path", file, "--metadata", '{"size": 256}'),
    ]
    at_once(partial(setting.write, "key", "put", *put, *setting.here) for put in puts)
    latest = int(time.time()) + 601
    setting.route.arrive()

    text, binary, awkward, missing, all_keys, some_keys = at_once(
        [
            partial(setting.read, "key", "get", "described", *setting.here),
            partial(setting.read, "key", "get", "file-described", *setting.here),
            partial(setting.read, "key", "get", AWKWARD, *setting.here),
            partial(setting.wrangler.fail, setting.route.read, "key", "get", "missing", *setting.here),
            partial(setting.read, "key", "list", *setting.here),
            partial(setting.read, "key", "list", "--prefix", "file", *setting.here),
        ]
    )
    assert (text.decode(), binary, awkward) == ("Grüße", data, b"awkward")
    assert "404" in missing
    expiring, *others = json.loads(all_keys)
    assert expiring["name"] == AWKWARD
    assert earliest <= expiring["expiration"] <= latest
    assert others == [
        {"name": "described", "expiration": at, "metadata": {"by": "ada"}},
        {"name": "file"},
        {"name": "file-described", "metadata": {"size": 256}},
        {"name": "plain"},
    ]
    assert json.loads(some_keys) == others[1:3]
    assert setting.ask("/values/file").body == data
    assert setting.ask("/values/plain").body == b"hello"

    setting.write("key", "delete", AWKWARD, *setting.here)
    assert setting.ask(f"/values/{quote(AWKWARD, safe='')}").status == 404
    assert setting.ask("/keys").json["result"] == others


def bulk_commands(setting: Setting) -> None:
    """More keys than wrangler puts into one request, and than it lists by one."""
    names = [f"key/{number:04}" for number in range(1100)]
    pairs = [
        *({"key": name, "value": name} for name in names),
        {"key": "binary", "value": "AAEC/w==", "base64": True},
        {"key": "described", "value": "1", "metadata": {"a": 1}, "expiration_ttl": 600},
    ]
    setting.write("bulk", "put", setting.file("put.json", pairs), *setting.here)
    setting.route.arrive()
    wanted = setting.file("get.json", ["key/0000", "key/1099", "missing"])
    listed, got = at_once(
        [
            partial(setting.read, "key", "list", *setting.here),
            partial(setting.read, "bulk", "get", wanted, *setting.here),
        ]
    )
    assert [key["name"] for key in json.loads(listed)] == ["binary", "described", *names]
    assert json.loads(got) == {"key/0000": "key/0000", "key/1099": "key/1099", "missing": None}
    assert setting.ask("/values/binary").body == b"\0\1\2\xff"
    assert setting.ask("/metadata/described").json["result"] == {"a": 1}

    setting.write("bulk", "delete", setting.file("delete.json", names), "--force", *setting.here)
    left = setting.ask("/keys").json["result"]
    assert [key["name"] for key in left] == ["binary", "described"]


def account_is_found_by_asking(setting: Setting) -> None:
    wrangler, there = setting.wrangler, setting.route.read
    listed = wrangler(there, "namespace", "list", without="CLOUDFLARE_ACCOUNT_ID")
    assert setting.namespace_id in [namespace["id"] for namespace in json.loads(listed)]


def unknown_token_is_refused(setting: Setting) -> None:
    said = setting.wrangler.fail(setting.route.write.with_token("x" * 40), "namespace", "list")
    assert "Authentication error" in said
    assert "10000" in said


STORIES: Final = (
    namespace_commands,
    key_commands,
    bulk_commands,
    account_is_found_by_asking,
    unknown_token_is_refused,
)
