"""What can't work is one line that names the cure, and leaves nothing half-started behind."""

from __future__ import annotations

import re
import resource
import socket
import subprocess

import pytest

from tests.support.network import DEADLINE_S, PROGRAM, ROOT, Network, free_port_base, kvnet

SMALL = """\
name: small
coordinator: {place: iad}
pops:
  - {code: iad, city: Ashburn, country: US, lat: 38.9, lon: -77.5, region: north-america}
  - {code: osl, city: Oslo, country: "NO", lat: 60.2, lon: 11.1, region: europe}
"""


def one_line(ended: subprocess.CompletedProcess[str], code: int) -> str:
    """Return what it said, if that was one line without a word on stdout."""
    assert (ended.returncode, ended.stdout) == (code, ""), ended
    assert re.fullmatch(r"kvnet: [^\n]+\n", ended.stderr), ended.stderr
    return ended.stderr


@pytest.fixture
def data(tmp_path):
    """A run folder in which nothing may have been started."""
    network = Network(tmp_path / "data")
    yield network.folder.path
    assert not network.folder.cluster_file.exists()
    with network.folder.locked():  # nobody has it: nodes end with their launcher
        pass


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("pops: [", r"topology\.yaml:\d+: not YAML.*check indents"),
        ("name: small\n", r"topology\.yaml.*coordinator"),
        (SMALL.replace("place: iad", "place: oslo"), r"topology\.yaml:2: .*oslo.*osl"),
        (SMALL.replace("code: osl", "code: iad"), r"topology\.yaml:5: .*iad"),
        (SMALL + "listen: {port_base: 32767}\n", r"topology\.yaml:6: .*port"),
        (SMALL + "wan: {profile: matrix}\n", r"topology\.yaml:6: .*matrix"),
        (SMALL.replace("lat: 60.2", "lat: 160.2"), r"topology\.yaml:5: .*lat.*degrees"),
    ],
    ids=[
        "not YAML",
        "no PoPs",
        "no such place",
        "one code twice",
        "no room for ports",
        "empty matrix",
        "no latitude",
    ],
)
def test_topology_that_cannot_work_names_line_and_cure(data, tmp_path, content, told):
    topology = tmp_path / "topology.yaml"
    topology.write_text(content)
    for command in (("up", "--detach"), ("node", "coordinator")):
        said = one_line(kvnet(*command, "--topology", topology, "--data", data), 2)
        assert re.search(told, said), said
    assert not data.exists()


def test_taken_port_names_its_holder(data):
    base = free_port_base()
    with socket.socket() as ear:
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ear.bind(("127.0.0.1", base + 11))
        ear.listen()
        said = one_line(kvnet("up", "--detach", "--pops", 3, "--port-base", base, "--data", data), 2)
    assert f"port {base + 11} is taken by pid" in said
    assert "--port-base" in said


def test_too_few_file_descriptors_name_the_number_that_is_enough(data):
    """The count must be possible for N nodes before the first of them starts."""
    ended = subprocess.run(
        [*PROGRAM, "up", "--detach", "--data", str(data)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)),
    )
    said = one_line(ended, 2)
    assert re.search(r"256 for each process.*ulimit -n \d+.*--pops", said), said


def test_folder_that_is_a_file_or_not_ours_is_refused(data, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    assert "--data" in one_line(kvnet("up", "--detach", "--pops", 2, "--data", file), 2)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    assert "not a run folder" in one_line(kvnet("up", "--detach", "--pops", 2, "--wipe", "--data", folder), 2)
    assert (folder / "thesis.txt").read_text() == "mine"
    assert file.read_text() == "mine"


def test_running_network_minds_what_it_is_told(network, tmp_path):
    """Names, places and folders that don't exist; the network goes on."""
    data = ("--data", network.folder.path)
    network.kvnet("namespace", "create", "demo")
    assert "kvnet namespace create dmeo" in one_line(kvnet("put", "dmeo", "k", "v", *data), 1)
    assert "atlantis" in one_line(kvnet("get", "demo", "k", "--near", "atlantis", *data), 2)
    assert "xxx" in one_line(kvnet("get", "demo", "k", "--pop", "xxx", *data), 2)
    assert "no node is called 'xxx'" in one_line(kvnet("stop", "xxx", *data), 2)
    assert "no node or region is called 'xxx'" in one_line(kvnet("wan", "isolate", "xxx", *data), 2)
    assert "kvnet up" in one_line(kvnet("wan", "show", "--data", tmp_path / "nowhere"), 2)
    assert "kvnet down" in one_line(kvnet("up", "--detach", "--pops", 8, *data), 2)
    assert "--wipe" in one_line(kvnet("up", "--detach", "--pops", 7, "--data", _copy(network, tmp_path)), 2)
    assert one_line(kvnet("get", "demo", "missing", *data), 4)
    assert {node["phase"] for node in network.nodes().values()} == {"ready"}


def _copy(network, tmp_path):
    """Return another folder with the same network's data."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("cluster.json", "topology.yaml", "secret"):
        (folder / name).write_bytes((network.folder.path / name).read_bytes())
    return folder


def test_too_large_keys_and_values_are_refused_before_they_travel(network, tmp_path):
    network.kvnet("namespace", "create", "sizes")
    limits = network.folder.cluster()["limits"]
    value = tmp_path / "value"
    value.write_bytes(b"x" * (limits["value_bytes_max"] + 1))
    data = ("--data", network.folder.path)
    said = one_line(kvnet("put", "sizes", "k", "--path", value, *data), 1)
    assert str(limits["value_bytes_max"]) in said
    said = one_line(kvnet("put", "sizes", "k" * (limits["key_bytes_max"] + 1), "v", *data), 1)
    assert str(limits["key_bytes_max"]) in said
    value.write_bytes(b"x" * limits["value_bytes_max"])
    network.kvnet("put", "sizes", "k" * limits["key_bytes_max"], "--path", value)


@pytest.mark.parametrize("node", ["coordinator", "fra"])
async def test_requests_that_are_not_allowed_get_the_apis_own_errors(network, client, node):
    cluster = network.folder.cluster()
    path = f"/client/v4/accounts/{cluster['account_id']}/storage/kv/namespaces"
    assert (await client.ask(node, "GET", path, token=None)).error == (400, 9106)
    assert (await client.ask(node, "GET", path, token="wrong")).error == (401, 10000)
    assert (await client.ask(node, "POST", path, b'{"title": "t"}', token=cluster["tokens"]["read"])).error == (
        403,
        10000,
    )
    assert (await client.ask(node, "PUT", "/peer/v1/wan", b"{}", token=None)).error[0] == 401
    assert (await client.ask(node, "PUT", "/peer/v1/wan", b"{}", token=cluster["tokens"]["write"])).error[0] == 403
    assert (await client.ask("monitor", "GET", "/report", token=None)).error == (400, 9106)
    limits = cluster["limits"]
    assert (await client.put(node, "big", b"x" * (limits["value_bytes_max"] + 1))).error == (413, 10001)
    assert (await client.put(node, "k" * (limits["key_bytes_max"] + 1), b"x")).error == (414, 10001)
    assert (await client.put(node, "twice", b"1")).status == 200
    too_early = await client.put(node, "twice", b"2")
    assert (too_early.error[0], too_early.headers["Retry-After"]) == (429, "1")
    assert await client.keys("coordinator") == {"twice"}
