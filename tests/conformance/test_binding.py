"""Every call of the KV binding, made by a Worker in workerd: written at one node, read at another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest

from tests.conformance.conftest import ROUTES
from tests.conformance.places import Route
from tests.conformance.runtime import UNDEFINED, Binding, Runtime, Thrown

VALUE_BYTES_MAX = 26_214_400
PAST = "Please specify integer greater than the current number of seconds since the UNIX epoch."

_numbers = count()


@dataclass(frozen=True, slots=True)
class Kv:
    """One namespace, written through one Worker and read through another, far away."""

    write: Binding
    read: Binding
    route: Route
    name: str
    """A prefix of this test's own."""

    def key(self, text: str) -> str:
        return self.name + text

    def put(self, key: str, *given: Any) -> Any:
        return self.write.call("put", self.key(key), *given)

    def delete(self, key: str) -> Any:
        return self.write.call("delete", self.key(key))

    def ask(self, call: str, *given: Any) -> Any:
        """Return what a call that reads resolves to where all that was written has arrived."""
        self.route.arrive()
        return self.read.call(call, *given)

    def get(self, key: str, *given: Any) -> Any:
        return self.ask("get", self.key(key), *given)

    def get_with_metadata(self, key: str, *given: Any) -> Any:
        return self.ask("getWithMetadata", self.key(key), *given)


@pytest.fixture(scope="session")
def bindings(routes, npm, new_namespace, tmp_path_factory) -> Iterator[dict[str, Binding]]:
    with Runtime(npm / "node_modules" / ".bin" / "workerd", tmp_path_factory.mktemp("workerd")) as runtime:
        bound = {}
        for name, route in routes.items():
            namespace = new_namespace()
            bound |= {f"{name}-write": (route.write, namespace), f"{name}-read": (route.read, namespace)}
        yield runtime.serve(bound)


@pytest.fixture(params=ROUTES)
def kv(request, bindings, routes) -> Kv:
    name = request.param
    return Kv(bindings[f"{name}-write"], bindings[f"{name}-read"], routes[name], f"t{next(_numbers)}:")


@pytest.fixture
def refused() -> Callable[..., tuple[str, str]]:
    """Return name and message of what a call throws."""

    def refused(call: Callable[..., Any], *given: Any) -> tuple[str, str]:
        with pytest.raises(Thrown) as thrown:
            call(*given)
        return thrown.value.name, thrown.value.message

    return refused


def test_a_value_is_read_as_every_type(kv):
    assert kv.put("json", '{"a": [1, null, "é"]}') == UNDEFINED
    assert kv.get("json") == kv.get("json", "text") == kv.get("json", {"type": "text"}) == '{"a": [1, null, "é"]}'
    assert kv.get("json", "json") == kv.get("json", {"type": "json"}) == {"a": [1, None, "é"]}
    encoded = '{"a": [1, null, "é"]}'.encode().hex()
    assert kv.get("json", "arrayBuffer") == {"$buffer": encoded}
    assert kv.get("json", "stream") == {"$stream": encoded}
    assert kv.get("json", {"type": "json", "cacheTtl": 60}) == {"a": [1, None, "é"]}


@pytest.mark.parametrize("kind", ["text", "json", "arrayBuffer", "stream"])
def test_a_missing_key_is_null_as_every_type(kv, kind):
    assert kv.get("missing", kind) is None
    assert kv.get_with_metadata("missing", kind) == {"value": None, "metadata": None, "cacheStatus": None}


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("", ""),
        ("Grüße \U0001f600", "Grüße \U0001f600".encode().hex()),
        ({"$buffer": "00ff0d0a"}, "00ff0d0a"),
        ({"$view": "00ff0d0a"}, "00ff0d0a"),
        ({"$buffer": ""}, ""),
        ({"$stream": ["00", "ff0d", "0a"], "length": 4}, "00ff0d0a"),
        ({"$stream": ["00", "ff0d", "0a"]}, "00ff0d0a"),
        ({"$stream": []}, ""),
        (5, b"5".hex()),
        (None, b"null".hex()),
        (UNDEFINED, b"undefined".hex()),
    ],
)
def test_every_form_of_a_value_is_stored(kv, given, stored):
    kv.put("k", given)
    assert kv.get("k", "arrayBuffer") == {"$buffer": stored}


@pytest.mark.parametrize(
    "metadata", [{"a": {"b": [1, 2.5, None, True]}, "city": "São Paulo \U0001f600"}, "text", 7, [], False, 0, ""]
)
def test_metadata_comes_back_as_it_was(kv, metadata):
    kv.put("k", "v", {"metadata": metadata})
    assert kv.get_with_metadata("k") == {"value": "v", "metadata": metadata, "cacheStatus": None}
    listed = kv.ask("list", {"prefix": kv.name})
    assert listed["keys"] == [{"name": kv.key("k"), "metadata": metadata}]


@pytest.mark.parametrize("options", [{}, {"metadata": None}, {"metadata": UNDEFINED}, UNDEFINED, None])
def test_no_metadata_is_null(kv, options):
    kv.put("k", "v", options)
    assert kv.get_with_metadata("k")["metadata"] is None
    assert kv.ask("list", {"prefix": kv.name})["keys"] == [{"name": kv.key("k")}]


def test_a_put_replaces_metadata_and_end(kv):
    kv.put("k", "v", {"metadata": {"a": 1}, "expirationTtl": 600})
    time.sleep(1.1)  # one write of a key a second is what Workers KV takes
    kv.put("k", "w")
    assert kv.get_with_metadata("k") == {"value": "w", "metadata": None, "cacheStatus": None}
    assert kv.ask("list", {"prefix": kv.name})["keys"] == [{"name": kv.key("k")}]


def test_an_end_is_told_in_lists_and_ttl_wins(kv):
    at = int(time.time()) + 7200
    kv.put("absolute", "1", {"expiration": at})
    began = int(time.time())
    kv.put("relative", "2", {"expiration": at, "expirationTtl": 600})
    ends = {key["name"]: key["expiration"] for key in kv.ask("list", {"prefix": kv.name})["keys"]}
    assert ends[kv.key("absolute")] == at
    assert began + 600 <= ends[kv.key("relative")] <= int(time.time()) + 601


def test_a_deleted_key_is_null_and_deleting_nothing_is_no_error(kv):
    kv.put("k", "v")
    assert kv.get("k") == "v"
    time.sleep(1.1)  # as above
    assert kv.delete("k") == UNDEFINED
    assert kv.get("k") is None
    assert kv.delete("never there") == UNDEFINED


AWKWARD = [
    "a/b c:!%41?x=é",
    "a%2Fb",
    "a/b",
    "+",
    "a+b c",
    "\U0001f600",
    "\x00\x01\t\n\r\x7f",
    "é",
    "e\u0301",
    "?#&=",
    "//",
    "/",
    "[]$,;@~'()*",
    "bulk/get",
    "healthz",
    "client/v4/accounts",
]
"""Keys that PUT and DELETE spell in different ways, keys like our routes, and two that look alike and are not."""


def test_awkward_keys_are_keys(kv):
    for number, key in enumerate(AWKWARD):
        kv.put(key, str(number))
    assert [kv.get(key) for key in AWKWARD] == [str(number) for number in range(len(AWKWARD))]
    listed = [key["name"].removeprefix(kv.name) for key in kv.ask("list", {"prefix": kv.name})["keys"]]
    assert listed == sorted(AWKWARD, key=str.encode)
    found = kv.ask("get", [kv.key(key) for key in AWKWARD])
    assert found == {"$map": [[kv.key(key), str(number)] for number, key in enumerate(AWKWARD)]}
    time.sleep(1.1)  # as above
    for key in AWKWARD:
        kv.delete(key)
    assert kv.ask("list", {"prefix": kv.name})["keys"] == []


def test_keys_that_are_routes_alone(kv):
    for key in ("healthz", "status", "peer", "bulk", "openapi.json"):
        kv.write.call("put", f"{key}", kv.name)
        assert kv.ask("get", key) == kv.name


def test_list_goes_on_by_its_cursor_with_any_limit(kv):
    names = [kv.key(f"{number:02}") for number in range(25)]
    for name in names:
        kv.write.call("put", name, "v")
    kv.write.call("put", f"{kv.name[:-1]};", "of another prefix")
    seen, cursor, limit = [], None, 1
    while True:
        page = kv.ask("list", {"prefix": kv.name, "limit": limit, "cursor": cursor})
        assert len(page["keys"]) <= limit
        seen += [key["name"] for key in page["keys"]]
        limit += 4
        assert page["cacheStatus"] is None
        if page["list_complete"]:
            assert "cursor" not in page
            break
        cursor = page["cursor"]
    assert seen == names
    for given in ({"prefix": kv.name, "limit": 0}, {"prefix": kv.name, "limit": 1000}):
        page = kv.ask("list", given)
        assert len(page["keys"]) == 25
        assert page["list_complete"] is True


def test_list_without_options_lists_all(kv):
    kv.put("k", "v")
    assert kv.key("k") in {key["name"] for key in kv.ask("list")["keys"]}


def test_bulk_get_is_a_map_of_every_key(kv):
    kv.put("json", '{"a": 1}', {"metadata": {"m": True}})
    kv.put("text", "plain")
    keys = [kv.key("json"), kv.key("missing"), kv.key("text")]
    assert kv.ask("get", keys) == {"$map": [[keys[0], '{"a": 1}'], [keys[1], None], [keys[2], "plain"]]}
    assert kv.ask("get", keys[:2], "json") == {"$map": [[keys[0], {"a": 1}], [keys[1], None]]}
    assert kv.ask("get", keys[:1], {"type": "json", "cacheTtl": 30}) == {"$map": [[keys[0], {"a": 1}]]}
    assert kv.ask("getWithMetadata", keys, {"type": "text"}) == {
        "$map": [
            [keys[0], {"value": '{"a": 1}', "metadata": {"m": True}}],
            [keys[1], None],
            [keys[2], {"value": "plain", "metadata": None}],
        ]
    }
    assert len(kv.ask("get", [kv.key(str(number)) for number in range(100)])["$map"]) == 100


def test_what_the_runtime_refuses_never_comes_here(kv, refused):
    assert refused(kv.write.call, "get", "") == ("TypeError", "Key name cannot be empty.")
    for key in (".", ".."):
        assert refused(kv.write.call, "put", key, "v") == ("TypeError", f'"{key}" is not allowed as a key name.')
    long = "KV GET failed: 414 UTF-8 encoded length of 513 exceeds key length limit of 512."
    assert refused(kv.write.call, "get", "k" * 513) == ("Error", long)
    assert refused(kv.write.call, "put", "k", {"an": "object"})[0] == "TypeError"
    assert refused(kv.write.call, "put", "k", "v", {"expirationTtl": 2**31})[0] == "TypeError"


def test_a_type_that_is_none_and_a_text_that_is_not_json_are_the_workers_errors(kv, refused):
    kv.put("k", "not json")
    name, message = refused(kv.get, "k", "blob")
    assert name == "TypeError"
    assert message.startswith(
        'Unknown response type. Possible types are "text", "arrayBuffer", "json", and "stream".'
    )
    assert refused(kv.get, "k", "json")[0] == "SyntaxError"


SOON = "Expiration times must be at least 60 seconds in the future."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expirationTtl": 0}, "400 Invalid expiration_ttl of 0. Please specify integer greater than 0."),
        ({"expirationTtl": -1}, "400 Invalid expiration_ttl of -1. Please specify integer greater than 0."),
        (
            {"expirationTtl": {"$number": "NaN"}},
            "400 Invalid expiration_ttl of 0. Please specify integer greater than 0.",
        ),
        ({"expirationTtl": 59}, "400 Invalid expiration_ttl of 59. Expiration TTL must be at least 60."),
        ({"expiration": 0}, f"400 Invalid expiration of 0. {PAST}"),
        ({"expiration": 1_700_000_000}, f"400 Invalid expiration of 1700000000. {PAST}"),
        ({"metadata": "m" * 1023}, "413 Metadata length of 1025 exceeds limit of 1024."),
    ],
)
def test_a_put_that_is_refused_says_why(kv, refused, options, message):
    assert refused(kv.put, "k", "v", options) == ("Error", f"KV PUT failed: {message}")
    assert kv.get("k") is None


def test_an_end_within_a_minute_is_refused(kv, refused):
    at = int(time.time()) + 30
    assert refused(kv.put, "k", "v", {"expiration": at}) == (
        "Error", f"KV PUT failed: 400 Invalid expiration of {at}. {SOON}",
    )  # fmt: skip


def test_limits_are_reached_exactly(kv):
    kv.put("m", "v", {"metadata": "m" * 1022, "expirationTtl": 60})
    assert kv.get_with_metadata("m")["metadata"] == "m" * 1022
    long = "k" * (512 - len(kv.name))
    kv.put(long, "v")
    assert kv.get(long) == "v"


def test_the_largest_value_arrives_and_one_byte_more_is_refused(kv, refused):
    kv.put("large", {"$zeros": VALUE_BYTES_MAX})
    assert kv.get("large", "arrayBuffer") == {"$length": VALUE_BYTES_MAX}
    message = f"KV PUT failed: 413 Value length of {VALUE_BYTES_MAX + 1} exceeds limit of {VALUE_BYTES_MAX}."
    assert refused(kv.put, "larger", {"$zeros": VALUE_BYTES_MAX + 1}) == ("Error", message)
    name, message = refused(kv.ask, "get", [kv.key("large")] * 2 + [kv.key("missing")], "json")
    assert (name, message.startswith("KV GET_BULK failed: 4")) == ("Error", True)


def test_a_bulk_get_that_is_refused_says_why(kv, refused):
    kv.put("t", "text")

    def bulk(*given):
        name, message = refused(kv.ask, "get", *given)
        assert name == "Error"
        return message.removeprefix("KV GET_BULK failed: ")

    key = kv.key("t")
    assert bulk([key], "json") == "400 At least one of the requested keys corresponds to a non-json value"
    assert bulk([key], "stream") == '400 "stream" is not a valid type. Use "json" or "text"'
    assert bulk([kv.key(str(number)) for number in range(101)]) == "400 You can request a maximum of 100 keys"
    assert bulk([]) == "400 You must request at least one key"
    assert bulk(["k" * 513]) == "414 UTF-8 encoded length of 513 exceeds key length limit of 512."
    assert bulk([key], {"cacheTtl": 29}) == "400 Invalid cache_ttl of 29. Cache TTL must be at least 30."


def test_a_read_or_a_list_that_is_refused_says_why(kv, refused):
    ttl = "KV GET failed: 400 Invalid cache_ttl of 29. Cache TTL must be at least 30."
    assert refused(kv.get, "k", {"cacheTtl": 29}) == ("Error", ttl)
    assert refused(kv.ask, "list", {"limit": 1001}) == (
        "Error",
        "KV GET failed: 400 Invalid key_count_limit of 1001. Please specify an integer less than 1000.",
    )
    assert refused(kv.ask, "list", {"cursor": "no cursor"}) == ("Error", "KV GET failed: 400 Invalid cursor")


def test_a_second_write_of_a_key_within_a_second_is_refused(kv, refused):
    """Whatever a slow machine makes of it: of several in a row one comes within the second."""
    messages = []
    for number in range(5):
        try:
            kv.put("k", str(number))
        except Thrown as thrown:
            messages.append(thrown.message)
    assert "KV PUT failed: 429 Too Many Requests" in messages


def test_json_that_was_put_by_rest_is_read_by_the_worker(kv):
    pairs = [{"key": kv.key("k"), "value": '{"by": "rest"}', "metadata": {"é": 1}}]
    assert kv.route.write.ask(f"/{kv.write.namespace}/bulk", pairs, method="PUT").status == 200
    assert kv.get_with_metadata("k", "json") == {
        "value": {"by": "rest"}, "metadata": {"é": 1}, "cacheStatus": None,
    }  # fmt: skip
