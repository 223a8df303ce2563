"""What can be wrong with a request,
by name; each change leaves a request that later changes can be made to.
"""

from __future__ import annotations

from random import Random
from typing import Final

from bench._support.raw_requests import Change, Request, change_document, make_form, numbers, versions

PART_BYTES_MAX: Final = 2000
"""A form that is repeated is no longer than this."""
INJECTED: Final = b"X-Injected"
"""A header that a client tries to put into an answer."""


def _path(request: Request, rng: Random) -> None:
    at = rng.randrange(len(request.path) + 1)
    inserted = rng.choice(
        (b"%", b"%4", b"%zz", b"%ff", b"%C3", b"%ED%A0%80", b"\xff", b"\x00", b"%00", b"//", b"/../",
         b"/./", b"#", b"?",
         b"%2F", b"%252F", b";", b"\\", b" ", b"\t", b"\x7f", b"x" * 9000, b"x" * 17_000,
         b"%0d%0a" + INJECTED + b":%201")
    )  # fmt: skip
    request.path = request.path[:at] + inserted + request.path[at:]


def _path_end(request: Request, rng: Random) -> None:
    ends = (b"/", b"%", b"%E2%82", b"\xe2\x82", b"\x00", b"?", b"%3F", b"/..", b"/%2e%2e/", b"//")
    request.path += rng.choice(ends)


def _absolute(request: Request, rng: Random) -> None:
    origins = (b"http://localhost", b"https://other.example:99999", b"http://", b"ftp://x", b"http://[::1")
    request.path = rng.choice(origins) + request.path


def _method(request: Request, rng: Random) -> None:
    methods = (b"get", b"PATCH", b"TRACE", b"CONNECT", b"PRI", b"G\x00T", b"", b"X" * 5000, b"OPTIONS", b"HEAD")
    request.method = rng.choice(methods)


def _query_twice(request: Request, rng: Random) -> None:
    name = rng.choice((b"limit", b"cursor", b"prefix", b"page", b"expiration", b"expiration_ttl"))
    request.query += [(name, rng.choice(numbers())) for _ in range(rng.choice((1, 2, 70)))]


def _query_broken(request: Request, rng: Random) -> None:
    names = (b"limit", b"prefix", b"cursor", b"", b"%ff", b"a;b")
    values = (
        b"%",
        b"%ff",
        b"\xff",
        b"%00",
        b"\x00",
        b"%ED%A0%80",
        b"&&=&",
        b"#",
        b"x" * 9000,
        b"%F0%9F%98%80" * 100,
    )
    request.query.append((rng.choice(names), rng.choice(values)))


def _header_injected(request: Request, rng: Random) -> None:
    breaks = (b"\r\n", b"\n", b"\r", b"\x0b", b"\x00")
    value = b"1" + rng.choice(breaks) + INJECTED + b": 1"
    request.headers.append(
        (rng.choice((b"KV-At-Least", b"KV-Request-Id", b"X-A", b"Content-Type", b"Range")), value)
    )


def _header_twice(request: Request, rng: Random) -> None:
    name, value = rng.choice(request.headers)
    request.headers.append((rng.choice((name, name.lower())), rng.choice((value, b"other", b"", b"\xff\xfe"))))


def _header_missing(request: Request, rng: Random) -> None:
    if request.headers:
        del request.headers[rng.randrange(len(request.headers))]
    if not request.headers:
        request.headers.append((b"Host", b"localhost"))


def _header_huge(request: Request, rng: Random) -> None:
    request.headers.append(
        (rng.choice((b"X-A", b"Cookie", b"Authorization", b"x" * 9000)), b"x" * rng.choice((8000, 8200, 70_000)))
    )


def _headers_many(request: Request, rng: Random) -> None:
    request.headers += [(b"X-%d" % n, b"1") for n in range(rng.choice((50, 150, 500)))]


def _header_odd(request: Request, rng: Random) -> None:
    request.headers.append(
        rng.choice(
            ((b"", b"x"), (b" X", b"1"), (b"X Y", b"1"), (b"X\x00", b"1"), (b"\xff", b"1"),
             (b"X:Y", b"1"), (b"X", b"1\r\n folded"),
             (b"Host", b"a b"), (b"Upgrade", b"websocket"), (b"Connection", b"upgrade, close"),
             (b"Upgrade", b"h2c"),
             (b"Connection", b"keep-alive, Authorization"), (b"Expect", b"100-continue"),
             (b"Expect", b"later"),
             (b"Content-Encoding", b"gzip"), (b"Range", b"bytes=0-1"), (b"If-None-Match", b"*"),
             (b"Origin", b"null"))
        )
    )  # fmt: skip


def _ours(request: Request, rng: Random) -> None:
    request.headers.append(
        (b"KV-Wait-Timeout-Ms", rng.choice((b"0", b"1", b"20", b"-1", b"1e9", b"x", b"9" * 40)))
    )
    request.headers.append(
        rng.choice(
            (
                (b"KV-At-Least", rng.choice(versions())),
                (b"KV-Max-Staleness-Ms", rng.choice(numbers())),
                (b"KV-Request-Id", rng.choice((b"", b"a b", b"x" * 65, b"\xc3\xa9", b"same", b"1"))),
                (b"KV-Wait", rng.choice((b"all", b"50%", b"local", b""))),
                (b"KV-Namespace", b"0" * 32),
            )
        )
    )


def _authorization(request: Request, rng: Random) -> None:
    odd = (b"Bearer", b"Bearer ", b"Bearer a b", b"Basic YTpi", b"bearer \xff", b"Bearer " + b"x" * 2000, b"")
    request.headers = [line for line in request.headers if line[0] != b"Authorization"]
    pairs = ((b"X-Auth-Key", b"\xff"), (b"X-Auth-Email", b"a@b"), (b"Authorization", rng.choice(odd)))
    request.headers += rng.sample(pairs, rng.randrange(4))


def _length(request: Request, rng: Random) -> None:
    """Announce another length than the body has."""
    lengths = (
        b"-1",
        b"+5",
        b"5, 5",
        b"1e3",
        b"0x5",
        b" 5",
        b"",
        b"9" * 30,
        b"99999999",
        b"0",
        b"\xd9\xa5",
        b"5\x00",
    )
    request.headers.append((b"Content-Length", rng.choice(lengths)))
    request.framing = request.body


def _chunked(request: Request, rng: Random) -> None:
    """Send the body in chunks, some of them not as they should be, perhaps without an end."""
    codings = (
        b"chunked",
        b"chunked",
        b"Chunked",
        b"chunked, identity",
        b"gzip, chunked",
        b"xchunked",
        b"chunked;a=1",
    )
    request.headers.append((b"Transfer-Encoding", rng.choice(codings)))
    size = rng.choice(
        (b"%x" % len(request.body), b"%X;ext=1" % len(request.body), b"-1", b"zz", b"f" * 20, b"", b"0x5", b"1")
    )
    chunk = size + rng.choice((b"\r\n", b"\r\n", b"\n", b"")) + request.body + rng.choice((b"\r\n", b"\r\n", b""))
    ends = (
        b"0\r\n\r\n",
        b"0\r\n\r\n",
        b"0\r\nX-Trailer: 1\r\n\r\n",
        b"",
        b"0\r\n",
        b"00000\r\n\r\n",
        b"0\r\n" + INJECTED,
    )
    request.framing = chunk * rng.choice((1, 1, 3)) + rng.choice(ends)
    if rng.random() < 0.2:
        request.headers.append((b"Content-Length", b"%d" % len(request.body)))


def _form(request: Request, rng: Random) -> None:
    """Make a form of the body that a parser of forms stumbles over."""
    make_form(request, rng)
    _, type_ = request.headers.pop()
    types = (
        type_, b"multipart/form-data", b"multipart/form-data; boundary=",
        b'multipart/form-data; boundary="', type_ + b"x",
        b"multipart/form-data; boundary=" + b"x" * 300, b"multipart/form-data; boundary*=utf-8''b%31",
        b"multipart/mixed",
        b"multipart/form-data; boundary=\xff", type_ + b"; boundary=other",
        b"Multipart/Form-Data;BOUNDARY=b1",
    )  # fmt: skip
    request.headers.append((b"Content-Type", rng.choice(types)))
    old, new = rng.choice(
        ((b"value", b"values"), (b"metadata", b"value"), (b'name="value"', b""), (b"--\r\n", b""),
         (b"\r\n\r\n", b"\r\n"),
         (b"form-data", b"x" * 9000), (b'"value"', b'"va\xfflue"'), (b"\r\n", b"\n"),
         (b"Content-Disposition", b"\x00"),
         (b"name=", b"filename*=utf-8''%ff; name="), (b"form-data;", b"form-data;\r\n "),
         (b'"value"', b"=?utf-8?b?dmFsdWU=?="),
         (b"Content-Disposition", b"Content-Transfer-Encoding: base64\r\nContent-Disposition"))
    )  # fmt: skip
    request.body = request.body.replace(old, new, rng.choice((1, -1)))
    if rng.random() < 0.1 and len(request.body) < PART_BYTES_MAX:
        request.body *= 300


def _large(request: Request, rng: Random) -> None:
    request.body = rng.choice((b"x", b"\x00", b'["a"],')) * rng.choice((65_536, 65_537, 300_000))


CHANGES: Final[tuple[Change, ...]] = (
    Change("path", 2, _path),
    Change("end of path", 2, _path_end),
    Change("absolute target", 1, _absolute),
    Change("method", 1, _method),
    Change("query twice", 4, _query_twice),
    Change("query broken", 3, _query_broken),
    Change("header injected", 2, _header_injected),
    Change("header twice", 2, _header_twice),
    Change("header missing", 1, _header_missing),
    Change("header huge", 1, _header_huge),
    Change("many headers", 1, _headers_many),
    Change("odd header", 3, _header_odd),
    Change("our headers", 5, _ours),
    Change("authorization", 2, _authorization),
    Change("length", 2, _length),
    Change("chunks", 5, _chunked),
    Change("form", 6, _form),
    Change("document", 9, change_document),
    Change("large body", 2, _large),
)
