from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from kvnet.topology.geography import great_circle_km
from kvnet.topology.load import load
from tests.support.network import DEADLINE_S, PROGRAM, ROOT, kvnet
from tests.workers.dev import Dev

ECHO = """
export default {
  async fetch(request) {
    const url = new URL(request.url);
    if (url.pathname === "/bytes") return new Response(new Uint8Array([0, 255, 10]));
    const status = Number(url.searchParams.get("status") ?? 200);
    const headers = { "X-Mine": "yes", ...(status === 302 ? { Location: "/elsewhere" } : {}) };
    const { method, cf } = request;
    const sent = [...request.headers].filter(([name]) => name.startsWith("x-"));
    return Response.json({ url: request.url, method, cf, sent, body: await request.text() }, { status, headers });
  },
};
"""


@pytest.fixture(scope="module")
def echo(network, workerd, tmp_path_factory):
    """A Worker that tells what it was asked, at all PoPs; it runs from here to the end of the file."""
    folder = tmp_path_factory.mktemp("echo")
    (folder / "echo.js").write_text(ECHO)
    variables = {**os.environ, "KVNET_WORKERD": str(workerd)}
    dev = Dev(["echo.js", "--data", network.folder.path], folder, variables, folder / "log").ready()
    yield dev
    dev.close()


@pytest.fixture
def fetch(network):
    def fetch(*arguments: object) -> subprocess.CompletedProcess[str]:
        return kvnet("fetch", *arguments, "--data", network.folder.path)

    return fetch


def answered(ended):
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_it_goes_to_the_nearest_pop_and_tells_where_it_comes_from(echo, network, fetch):
    pops = network.folder.cluster()["pops"]
    for city in ("Tokyo", "Frankfurt", "Sydney", "São Paulo"):
        place = next(pop.place for pop in load("world-2018").pops if pop.city == city)
        nearest = min(pops, key=lambda code: great_circle_km(place, (pops[code]["lat"], pops[code]["lon"])))
        cf = answered(fetch("/", "--near", city))["cf"]
        assert (cf["colo"], cf["city"]) == (nearest.upper(), city), "the PoP's, and the client's own"


def test_where_the_nearest_pop_has_no_worker_the_sender_is_still_there(dev, network, write, fetch):
    """The Worker runs at one PoP; whoever is next to another one reaches it from there."""
    here, there, _ = network.pops
    dev(write("alone.js", ECHO), "--at", here).ready()
    cf = answered(fetch("/", "--near", there, "--worker", "alone"))["cf"]
    assert cf["colo"] == here.upper()
    assert cf["city"] == network.folder.cluster()["pops"][there]["city"]


def test_a_pop_is_asked_by_its_code(echo, network, fetch):
    for code in network.pops:
        assert answered(fetch("/", "--pop", code.upper()))["cf"]["colo"] == code.upper()
    refused = fetch("/", "--pop", "zzz")
    assert refused.returncode == 2
    assert "'zzz'" in refused.stderr


def test_method_headers_and_body_are_sent_as_they_are(echo, fetch, write):
    got = answered(fetch("/a%2Fb?q=1%202", "-X", "PATCH", "-H", "X-One: 1", "-H", "X-Two:2", "-d", "bödy"))
    assert got["method"] == "PATCH"
    assert got["sent"] == [["x-one", "1"], ["x-two", "2"]]
    assert got["body"] == "bödy"
    assert got["url"].endswith("/a%2Fb?q=1%202")
    posted = answered(fetch("/", "-d", f"@{write('body.txt', 'x' * 100_000)}"))
    assert (posted["method"], len(posted["body"])) == ("POST", 100_000)


def test_a_whole_url_tells_the_host(echo, fetch):
    assert answered(fetch("https://shop.example/cart?x=1"))["url"] == "http://shop.example/cart?x=1"


def test_status_and_headers_are_shown_when_asked_for(echo, fetch):
    ended = fetch("/?status=302", "-i")
    assert ended.returncode == 0
    head, _, body = ended.stdout.partition("\n\n")
    assert head.startswith("HTTP/1.1 302 Found\n")
    assert "X-Mine: yes" in head
    assert "Location: /elsewhere" in head
    assert '"method":"GET"' in body


@pytest.mark.parametrize("status", [400, 404, 503])
def test_an_answer_that_is_an_error_is_exit_code_1_and_still_printed(echo, fetch, status):
    ended = fetch(f"/?status={status}")
    assert ended.returncode == 1
    assert '"method":"GET"' in ended.stdout


def test_the_body_is_written_byte_for_byte(echo, network):
    ended = subprocess.run(
        [*PROGRAM, "fetch", "/bytes", "--data", str(network.folder.path)],
        cwd=ROOT,
        capture_output=True,
        timeout=DEADLINE_S,
        check=True,
    )
    assert ended.stdout == b"\x00\xff\n"


def test_of_several_workers_one_is_named(echo, dev, write, fetch):
    dev(write("other.js", "export default { fetch() { return new Response('other'); } };")).ready()
    ended = fetch("/")
    assert ended.returncode == 2
    assert "--worker (echo, other)" in ended.stderr
    assert fetch("/", "--worker", "other").stdout == "other"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("/", "--near", "Tokyo", "--pop", "nrt"), "give one of them"),
        (("/", "-H", "no colon"), "NAME: VALUE"),
        (("/", "-d", "@/nowhere"), "can't be read"),
        (("ftp://x/",), "write a path"),
        (("path",), "write a path"),
        (("/", "--near", "Atlantis"), "Atlantis"),
        (("/", "-X", "G T"), "can't be sent"),
    ],
)
def test_what_cannot_be_sent_is_one_line(echo, fetch, arguments, told):
    ended = fetch(*arguments)
    assert ended.returncode == 2
    assert told in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_where_nothing_runs_the_command_that_starts_it_is_named(network, tmp_path):
    shutil.copy(network.folder.cluster_file, tmp_path)
    ended = kvnet("fetch", "/", "--data", tmp_path)
    assert ended.returncode == 1
    assert "kvnet workers dev" in ended.stderr
