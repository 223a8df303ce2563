"""Bodies: forms as each client sends them, sizes, and all that can break."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvnet.api.bodies import PARTS_MAX, find_parts, form_boundary
from kvnet.errors import RequestError
from tests.support.http import read_answer

BOUNDARY = "d4e5f6"


def part(disposition: str, content: bytes, *headers: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in (f"Content-Disposition: form-data; {disposition}", *headers))
    return f"--{BOUNDARY}\r\n{lines}\r\n".encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


async def put(api, path: str, body: bytes, boundary: str = BOUNDARY):
    return await api("PUT", path, body, Content_Type=f"multipart/form-data; boundary={boundary}")


VALUE = b"\x00\xff\r\n--d4e5f\r\n\r\n"
OCTETS = "Content-Type: application/octet-stream"

FORMS = {
    "httpx bytes, dict": [
        part('name="metadata"', b'{"a": 1}', "Content-Type: application/json"),
        part('name="value"; filename="upload"', VALUE, OCTETS),
    ],
    "httpx tuple without filename": [part('name="value"', VALUE), part('name="metadata"', b'{"a": 1}')],
    "node string": [part('name="value"', VALUE), part('name="metadata"', b'{"a":1}')],
    "node file": [part('name="value"; filename="f.bin"', VALUE, OCTETS), part('name="metadata"', b'{"a":1}')],
    "wrangler --path": [part('name="value"; filename="blob"', VALUE, OCTETS), part('name="metadata"', b'{"a":1}')],
    "metadata as a file": [
        part('name="value"', VALUE),
        part('name="metadata"; filename="m.json"', b'{"a":1}', "Content-Type: application/json"),
    ],
    "name unquoted": [part("name=value", VALUE), part("name=metadata", b'{"a":1}')],
    "filename that looks like a name": [
        part('filename="x; name=metadata; y"; name="value"', VALUE),
        part('name="metadata"', b'{"a":1}'),
    ],
    "unknown parts, and some without a name": [
        part('name="metadata[a]"', b"2"),
        part("", b"nameless"),
        part('name="value"', VALUE),
        part('name="metadata"', b'{"a":1}'),
    ],
    "first of two counts": [
        part('name="value"', VALUE),
        part('name="value"', b"second"),
        part('name="metadata"', b'{"a":1}'),
        part('name="metadata"', b"2"),
    ],
}


@pytest.mark.parametrize("parts", FORMS.values(), ids=FORMS.keys())
async def test_value_and_metadata_of_a_form_are_stored(api, ns, parts):
    assert (await put(api, f"{ns}/values/k", form(*parts))).result is None
    assert (await api("GET", f"{ns}/values/k")).body == VALUE
    assert (await api("GET", f"{ns}/metadata/k")).result == {"a": 1}


async def test_flattened_metadata_fields_of_an_old_client_are_ignored(api, ns):
    body = form(part('name="metadata.m.n"', b"1"), part('name="value"', b"v"))
    assert (await put(api, f"{ns}/values/k", body)).status == 200
    assert (await api("GET", f"{ns}/metadata/k")).result is None


async def test_preamble_and_quoted_boundary_are_understood(api, ns):
    body = b"preamble\r\n" + form(part('name="value"', b"v")) + b"epilogue"
    assert (await put(api, f"{ns}/values/k", body, f'"{BOUNDARY}"; charset=utf-8')).status == 200
    assert (await api("GET", f"{ns}/values/k")).body == b"v"


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        (b"null", None),
        (b"0", 0),
        (b'""', ""),
        (b"false", False),
        (b" [ 1, 2 ]\n", [1, 2]),
        (b'{"a": 12345678901234567890123, "b": 1.0}', {"a": 12345678901234567890123, "b": 1.0}),
        ('"é\U0001f600"'.encode(), "é\U0001f600"),
    ],
)
async def test_any_json_is_metadata(api, ns, sent, stored):
    await put(api, f"{ns}/values/k", form(part('name="value"', b"v"), part('name="metadata"', sent)))
    assert (await api("GET", f"{ns}/metadata/k")).result == stored


@pytest.mark.parametrize(
    "sent", [b"", b" ", b"abc", b"{'a':1}", b"[1,]", b"NaN", b'"\xff"', b'"\\ud800x"', b"1 2", b"[" * 60_000]
)
async def test_metadata_that_is_no_json_is_refused(api, ns, sent):
    answer = await put(api, f"{ns}/values/k", form(part('name="value"', b"v"), part('name="metadata"', sent)))
    assert answer.error == (400, 10001, "metadata must be valid json")
    assert api.node.written == []


async def test_metadata_is_measured_without_its_spaces(api, ns):
    fits = b'["' + b"x" * 1019 + b'"   \n,1]'
    assert len(fits.translate(None, b" \n")) == 1025
    for sent, status in ((fits, 413), (fits.replace(b"x", b"", 1), 200)):
        answer = await put(api, f"{ns}/values/k", form(part('name="value"', b"v"), part('name="metadata"', sent)))
        assert answer.status == status
    answer = await put(api, f"{ns}/values/k", form(part('name="value"', b"v"), part('name="metadata"', fits)))
    assert answer.error == (413, 10001, "Metadata length of 1025 exceeds limit of 1024.")


async def test_value_of_a_form_has_the_limit_of_any_value(api, ns):
    limit = api.node.limits.value_bytes_max
    assert (await put(api, f"{ns}/values/k", form(part('name="value"', b"x" * limit)))).status == 200
    answer = await put(api, f"{ns}/values/k", form(part('name="value"', b"x" * (limit + 1))))
    assert answer.error == (413, 10001, f"Value length of {limit + 1} exceeds limit of {limit}.")
    answer = await put(api, f"{ns}/values/k", form(part('name="other"', b"x" * (limit + 70_000))))
    assert answer.error[:2] == (413, 10001)


async def test_form_without_a_value_is_refused(api, ns):
    for body in (form(part('name="metadata"', b"1")), form()):
        assert (await put(api, f"{ns}/values/k", body)).error == (400, 10001, "Missing value field")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form at all",
        b"--d4e5f6",
        b"--d4e5f6\r\n",
        b"--d4e5f6 junk\r\n\r\nx\r\n--d4e5f6--",
        b"--d4e5f6\r\nContent-Disposition: form-data; name=value\r\n\r\nunfinished",
        b"--d4e5f6\nContent-Disposition: form-data; name=value\n\nx\n--d4e5f6--",
        b"--d4e5f6\r\n" + b"X" * 10_000 + b"\r\n\r\nx\r\n--d4e5f6--",
        b"--d4e5f6\r\n\r\n\r\n" * (PARTS_MAX + 1),
        form(part('name="value"', b"dg==", "Content-Transfer-Encoding: base64")),
    ],
)
async def test_broken_form_is_refused(api, ns, body):
    status, code, message = (await put(api, f"{ns}/values/k", body)).error
    assert (status, code) == (400, 10001)
    assert message.startswith("The multipart body can't be read: ")


@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data", "Multipart/Form-Data; boundary=", "multipart/form-data; boundary=" + "x" * 201],
)
async def test_form_without_a_boundary_is_refused(api, ns, content_type):
    assert (await api("PUT", f"{ns}/values/k", b"x", Content_Type=content_type)).error[:2] == (400, 10001)


@given(
    st.binary(max_size=300),
    st.lists(st.sampled_from([b"--b", b"\r\n", b"--", b": ", b"name=value", b'"', b"\xff"])),
)
def test_no_form_breaks_the_parser(noise, pieces):
    with suppress(RequestError):
        assert isinstance(find_parts(noise + b"".join(pieces) + noise, b"b"), dict)


@given(st.text(max_size=80))
def test_no_content_type_breaks_the_boundary(text):
    with suppress(RequestError):
        boundary = form_boundary("multipart/form-data;" + text)
        assert boundary


@given(st.binary(max_size=200).filter(lambda value: b"\r\n--d4e5f6" not in value))
def test_every_value_survives_its_form(value):
    body = form(part('name="value"', value))
    assert {name: body[slice(*at)] for name, at in find_parts(body, BOUNDARY.encode()).items()} == {"value": value}


async def connect(api, sent: bytes):
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(sent)
    return reader, writer


def head(api, path: str, **headers: str) -> bytes:
    return api.request("PUT", path, headers=headers)


async def test_chunked_body_is_stored(api, ns):
    sent = head(api, f"{ns}/values/k", Transfer_Encoding="chunked") + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    reader, writer = await connect(api, sent)
    assert (await read_answer(reader)).status == 200
    writer.close()
    assert (await api("GET", f"{ns}/values/k")).body == b"abcde"


async def test_endless_body_is_refused_when_it_passes_the_limit(api, ns):
    limit = api.node.limits.value_bytes_max
    reader, writer = await connect(api, head(api, f"{ns}/values/k", Transfer_Encoding="chunked"))
    writer.write(b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n")
    await writer.drain()
    writer.write(b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n")
    answer = await read_answer(reader)
    assert answer.error == (413, 10001, f"Value length of more than {limit} exceeds limit of {limit}.")
    assert answer.headers["connection"] == "close"
    writer.close()


async def test_announced_size_is_refused_before_a_byte_of_it_came(api, ns):
    reader, writer = await connect(api, head(api, f"{ns}/values/k", Content_Length="99999999999"))
    answer = await read_answer(reader)
    assert answer.error[:2] == (413, 10001)
    assert answer.headers["connection"] == "close"
    writer.close()


async def test_client_that_waits_is_told_to_go_on(api, ns):
    reader, writer = await connect(api, head(api, f"{ns}/values/k", Content_Length="3", Expect="100-continue"))
    assert (await read_answer(reader)).status == 100
    writer.write(b"abc")
    assert (await read_answer(reader)).status == 200
    writer.close()
    assert (await api("GET", f"{ns}/values/k")).body == b"abc"


async def test_client_that_waits_is_refused_without_sending(api, ns):
    size = str(api.node.limits.value_bytes_max + 1)
    reader, writer = await connect(api, head(api, f"{ns}/values/k", Content_Length=size, Expect="100-continue"))
    assert (await read_answer(reader)).error[:2] == (413, 10001)
    writer.close()


async def test_other_expectations_cannot_be_met(api, ns):
    assert (await api("PUT", f"{ns}/values/k", b"v", Expect="miracles")).error[:2] == (417, 10001)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Transfer_Encoding": "chunked"}, b"zz\r\nabc\r\n"),
        ({"Transfer_Encoding": "chunked"}, b"3\r\nabcdef\r\n0\r\n\r\n"),
        ({"Transfer_Encoding": "chunked", "Content_Length": "3"}, b"abc"),
        ({"Content_Length": "-1"}, b""),
        ({"Content_Length": "three"}, b""),
        ({"Transfer_Encoding": "gzip"}, b"abc"),
    ],
)
async def test_body_that_is_no_http_is_refused(api, ns, headers, body):
    reader, writer = await connect(api, head(api, f"{ns}/values/k", **headers) + body)
    answer = await read_answer(reader)
    assert answer.error[:2] == (400, 10001)
    assert api.node.written == []
    writer.close()


async def test_silent_body_ends_in_a_refusal(api, ns, monkeypatch):
    monkeypatch.setattr("kvnet.api.bodies.SILENCE_S_MAX", 0.01)
    reader, writer = await connect(api, head(api, f"{ns}/values/k", Content_Length="3") + b"a")
    assert (await read_answer(reader)).error[:2] == (408, 10001)
    assert api.node.written == []
    writer.close()


async def test_client_that_leaves_in_its_body_is_no_error(api, ns, caplog):
    _, writer = await connect(api, head(api, f"{ns}/values/k", Content_Length="3") + b"a")
    writer.close()
    await writer.wait_closed()
    assert (await api("GET", f"{ns}/values/k")).status == 404
    assert api.node.written == []
    assert caplog.records == []
