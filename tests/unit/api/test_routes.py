"""Targets as clients really send them: what each means, and which mean nothing."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvnet.api.routes import Place, Resource, decode_key, find_place, split_target
from kvnet.core.catalog import Scope
from kvnet.errors import RequestError
from tests.support.backends import ACCOUNT

AWKWARD = "a/b c:!%41?x=é"


@pytest.mark.parametrize(
    ("client", "segment"),
    [
        ("encodeURIComponent", "a%2Fb%20c%3A!%2541%3Fx%3D%C3%A9"),
        ("pchar", "a%2Fb%20c:!%2541%3Fx=%C3%A9"),
        ("raw slash", "a/b%20c:!%2541%3Fx=%C3%A9"),
        ("lower-case hex", "a%2fb%20c:!%2541%3fx=%c3%a9"),
    ],
)
async def test_each_clients_encoding_names_the_same_key(api, ns, client, segment):
    await api("PUT", f"{ns}/values/{segment}", client.encode())
    (operation, _) = api.node.written[-1]
    assert operation.key.decode() == AWKWARD
    assert (await api("GET", f"{ns}/values/{quote(AWKWARD, safe='')}")).body == client.encode()


@pytest.mark.parametrize(
    ("segment", "key"),
    [
        ("a/b", "a/b"),
        ("a%2Fb", "a/b"),
        ("a%252Fb", "a%2Fb"),
        ("%2541", "%41"),
        ("+", "+"),
        ("a+b", "a+b"),
        ("%20", " "),
        ("%3F", "?"),
        ("%23", "#"),
        ("%F0%9F%98%80", "\U0001f600"),
        ("%01", "\x01"),
        ("%00", "\x00"),
        ("%0D%0AX:%20y", "\r\nX: y"),
        ("//a", "//a"),
        ("a//b/", "a//b/"),
        ("a/../b", "a/../b"),
        ("./", "./"),
        ("e%CC%81", "e\u0301"),
        ("%C3%A9", "\u00e9"),
        ("keys", "keys"),
        ("%2e%2e%2e", "..."),
    ],
)
async def test_key_is_decoded_once_and_never_normalised(api, ns, segment, key):
    assert (await api("PUT", f"{ns}/values/{segment}", b"v")).status == 200
    (operation, _) = api.node.written[-1]
    assert operation.key == key.encode()
    assert (await api("GET", f"{ns}/values/{segment}")).body == b"v"
    assert [entry["name"] for entry in (await api("GET", f"{ns}/keys")).result] == [key]


@given(
    st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"])),
    st.sampled_from(["", "/", "!:@+,;=$&'()*"]),
)
def test_every_key_survives_its_encoding(key, left_raw):
    assert decode_key(quote(key, safe=left_raw)) == key.encode()


@given(st.binary(min_size=1))
def test_key_that_is_not_utf8_is_refused_and_others_survive(raw):
    spelled = quote(raw, safe="")
    try:
        raw.decode()
    except UnicodeDecodeError:
        with pytest.raises(RequestError, match="Could not URL-decode key name"):
            decode_key(spelled)
    else:
        assert decode_key(spelled) == raw


@pytest.mark.parametrize("segment", ["%", "%4", "%zz", "%FF", "%C3", "%ED%A0%80"])
async def test_key_that_cannot_be_decoded_is_refused(api, ns, segment):
    answer = await api("GET", f"{ns}/values/{segment}")
    assert answer.error == (400, 10001, "Could not URL-decode key name")


@pytest.mark.parametrize("segment", [b"\xc3\xa9", b"\xff", b"a b", b"\x00", b"\x01"])
async def test_target_that_is_no_http_is_refused(api, ns, segment):
    answer = await api("GET", f"{ns}/values/".encode() + segment)
    status, code, message = answer.error
    assert (status, code) == (400, 10001)
    assert message.startswith("The request isn't well-formed HTTP: ")


@pytest.mark.parametrize("segment", [".", "..", "%2E", "%2e%2E"])
async def test_dot_keys_are_refused(api, ns, segment):
    for method in ("GET", "PUT", "DELETE"):
        assert (await api(method, f"{ns}/values/{segment}")).error == (400, 10001, "key name not allowed")


async def test_key_of_the_limit_is_taken_and_one_byte_more_refused(api, ns):
    limit = api.node.limits.key_bytes_max
    assert (await api("PUT", f"{ns}/values/{'%C3%A9' * (limit // 2)}", b"v")).status == 200
    for method in ("GET", "PUT", "DELETE"):
        answer = await api(method, f"{ns}/values/{'%C3%A9' * (limit // 2)}x")
        expected = f"UTF-8 encoded length of {limit + 1} exceeds key length limit of {limit}."
        assert answer.error == (414, 10001, expected)


async def test_empty_key_is_no_route_for_any_method(api, ns):
    for method in ("GET", "PUT", "DELETE"):
        answer = await api(method, f"{ns}/values/")
        assert answer.error == (405, 10000, f"{method} method not allowed for the api_token authentication scheme")


async def test_deleting_with_a_trailing_slash_does_not_delete_the_namespace(api, ns):
    """An old official client's `values.delete("..")` arrives as `DELETE …/{id}/`: HTTP libraries collapse it."""
    answer = await api("DELETE", f"{ns}/")
    assert answer.error == (405, 7001, "DELETE not supported for requested URI")
    assert (await api("DELETE", "/")).error[:2] == (405, 7001)
    assert (await api("GET", ns)).status == 200


async def test_api_is_served_with_and_without_its_prefix(api, ns):
    await api("PUT", f"{ns}/values/k", b"v")
    bare = f"/accounts/{ACCOUNT}/storage/kv/namespaces{ns}/values/k"
    assert (await api("GET", bare, whole=True)).body == b"v"
    assert (await api("GET", f"http://example.net:1/client/v4{bare}", whole=True)).body == b"v"
    assert (await api("GET", f"/client/v4/client/v4{bare}", whole=True)).error[:2] == (400, 7003)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nothing",
        "/client/v4",
        "/client/v4/healthz",
        "/accounts//storage/kv/namespaces",
        "/accounts/abc/storage/kv/namespaces",
        f"/accounts/{ACCOUNT}0/storage/kv/namespaces",
        f"/accounts/{ACCOUNT}/storage/kv/namespaces//values/k",
        f"/accounts/{ACCOUNT}/storage/kv/namespaces/{'0' * 32}/values",
        f"/accounts/{ACCOUNT}/storage/kv/namespaces/{'0' * 32}/keys/",
        f"/accounts/{ACCOUNT}/storage/kv/namespaces/{'0' * 32}/nothing",
        f"/accounts/{ACCOUNT}/storage/kv//namespaces",
        "/%FF%2561/{0}",
        "*",
    ],
)
async def test_unknown_route_is_told_so(api, path):
    method = "OPTIONS" if path == "*" else "GET"
    answer = await api(method, path, whole=True)
    status, code, message = answer.error
    assert (status, code) == (400, 7003)
    assert message.startswith("Could not route to ")
    assert answer.json["errors"][1] == {"code": 7000, "message": "No route for that URI"}


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("", "GET, POST, HEAD"),
        ("/{ns}", "GET, PUT, DELETE, HEAD"),
        ("/{ns}/keys", "GET, HEAD"),
        ("/{ns}/values/k", "GET, PUT, DELETE, HEAD"),
        ("/{ns}/metadata/k", "GET, HEAD"),
    ],
)
async def test_known_route_with_a_wrong_method_is_told_so(api, ns, path, allowed):
    answer = await api("PATCH", path.format(ns=ns[1:]))
    assert answer.error == (405, 10405, "Method not allowed")
    assert answer.headers["allow"] == allowed


async def test_namespace_id_must_be_32_hex_digits(api):
    for bad, what in (("abc", "length"), ("0" * 31, "length"), ("0" * 33, "length"), ("g" * 32, "format")):
        for path in (f"/{bad}/values/k", f"/{bad}/keys", f"/{bad}"):
            status, code, message = (await api("GET", path)).error
            assert (status, code) == (400, 10011)
            assert f"uuid: incorrect UUID {what}: {bad}" in message


async def test_namespace_id_may_be_written_in_capitals(api, ns):
    await api("PUT", f"{ns}/values/k", b"v")
    assert (await api("GET", f"{ns.upper()}/values/k")).body == b"v"


async def test_other_account_is_refused(api):
    path = f"/client/v4/accounts/{'f' * 32}/storage/kv/namespaces"
    assert (await api("GET", path, whole=True)).error == (403, 10000, "Authentication error")
    assert (await api("GET", path, whole=True, scope=Scope.ADMIN)).error[0] == 403


@given(st.text(max_size=60))
def test_any_path_below_the_namespaces_is_a_place_or_an_error(path):
    with suppress(RequestError):
        place = find_place("GET", f"/accounts/{ACCOUNT}/storage/kv/namespaces/{path}")
        assert place.resource in {Resource.NAMESPACE, Resource.KEYS, Resource.VALUE, Resource.METADATA}
        assert place.namespace


def test_target_splits_at_the_first_question_mark():
    assert split_target("/a?b?c=1") == ("/a", "b?c=1")
    assert split_target("https://host?x") == ("", "x")
    assert find_place("GET", f"/accounts/{ACCOUNT.upper()}/storage/kv/namespaces") == Place(
        Resource.NAMESPACES, ACCOUNT
    )
