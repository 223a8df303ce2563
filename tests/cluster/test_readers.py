"""One port, several processes: what any of them answers is what the node would, and never older than it was."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import pytest

from kvnet.core.versions import Version
from kvnet.transport.links import PATH as LINKS_PATH
from tests.support.damage import flip_value
from tests.support.http import Answer, request_bytes
from tests.support.network import DEADLINE_S, PROGRAM, ROOT, Client, Network, kvnet, open_session, until
from tests.support.shared_port import Line, Lines, processes

READERS = 2
TOLD_ANEW = frozenset({"kv-staleness-ms", "kv-position"})
"""Headers that differ from one moment to the next."""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Three PoPs with two readers each; journals are short, so that who was away is filled with pages."""
    folder = tmp_path_factory.mktemp("network")
    made = kvnet("topology", "gen", "--pops", 3).stdout
    made = re.sub(r"edge_journal_mib: \d+", "edge_journal_mib: 1", made)
    topology = folder / "topology.yaml"
    topology.write_text(made.replace("\npops:", f"\nreaders: {READERS}\npops:"))
    limits = ("ttl_seconds_min=1", "write_interval_ms=0")
    with Network(folder / "data") as network:
        options = [option for limit in limits for option in ("--limit", limit)]
        network.up("--topology", topology, "--limits", "workers-kv", *options)
        yield network


@pytest.fixture
def pop(network: Network) -> str:
    return network.pops[-1]


@pytest.fixture
async def client(network: Network, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    async with open_session() as session:
        client = Client(network, session, request.node.name)
        await client.create_namespace()
        yield client


@pytest.fixture
async def lines(network: Network, client: Client, pop: str) -> AsyncIterator[Lines]:
    await complete(network, pop)
    lines = await Lines.open(network, client, pop)
    yield lines
    lines.close()


async def complete(network: Network, pop: str) -> None:
    """Wait until a node has all its readers."""

    async def there() -> bool:
        pids = processes(network, pop)
        return None not in pids and len(pids) == READERS + 1

    await until(there, f"{pop} has {READERS} readers")


async def written_through(client: Client, pop: str, key: str, value: bytes) -> Version:
    """Write at a PoP; it is in that PoP's replica when this returns."""
    answer = await client.put(pop, key, value)
    assert (answer.status, answer.headers.get("KV-Pending")) == (200, None), answer
    return answer.version


def lives(pid: int | None) -> bool:
    return Path(f"/proc/{pid}").exists()


def essence(answer: Answer) -> tuple[Any, ...]:
    return (
        answer.status,
        answer.reason,
        {k: v for k, v in answer.headers.items() if k not in TOLD_ANEW},
        answer.body,
    )


async def test_what_ps_tells_is_what_the_launcher_knows_and_what_each_process_takes(
    network: Network, pop: str
) -> None:
    await complete(network, pop)
    told = {
        node["name"]: node for node in json.loads(await asyncio.to_thread(network.kvnet, "ps", "--json"))["nodes"]
    }
    known = network.nodes()
    assert {name: {what: told[name][what] for what in known[name]} for name in told} == known
    assert len(told[pop]["readers"]) == READERS
    for node in told.values():
        assert node["pss_bytes"] > 0
        assert node["cpu_percent"] >= 0
    table = await asyncio.to_thread(network.kvnet, "ps")
    assert re.search(rf"\b{pop}\b.*\bready\b.*\b{known[pop]['pid']}\b", table), table


async def test_each_process_answers_every_read_alike(client: Client, lines: Lines, pop: str) -> None:
    await client.put(pop, "a%2Fb?expiration=4000000000", b"slashed")
    version = await written_through(client, pop, "k", b"value")
    namespace = client.base.rpartition("/")[2]
    bulk = json.dumps({"keys": ["k", "absent"]}).encode()
    questions: list[tuple[str, str, bytes, dict[str, str]]] = [
        ("GET", "/values/k", b"", {}),
        ("HEAD", "/values/k", b"", {}),
        ("GET", "/values/a%2Fb", b"", {}),
        ("GET", "/values/absent", b"", {}),
        ("GET", "/values/k", b"", {"If-None-Match": f'"{version}"'}),
        ("GET", "/values/k", b"", {"Range": "bytes=1-2"}),
        ("GET", "/values/k", b"", {"KV-At-Least": str(version)}),
        ("GET", "/values/k", b"", {"KV-Max-Staleness-Ms": "60000"}),
        ("GET", "/values/k", b"", {"KV-At-Least": "nonsense"}),
        ("GET", "/values/k", b"", {"Authorization": "Bearer wrong"}),
        ("GET", "/metadata/k", b"", {}),
        ("GET", "/keys", b"", {}),
        ("GET", "/keys?limit=10&prefix=a", b"", {}),
        ("POST", "/bulk/get", bulk, {}),
        ("GET", "/k", b"", {"KV-Namespace": namespace}),
        ("GET", "/", b"", {"KV-Namespace": namespace}),
        ("GET", "/k", b"", {"KV-Namespace": "00" * 16}),
        ("POST", "/bulk/get", bulk, {"KV-Namespace": namespace}),
        ("GET", "/healthz", b"", {}),
    ]
    for method, path, body, headers in questions:
        answers = {
            pid: await line.ask(client, method, path, body, **headers) for pid, line in lines.by_pid.items()
        }
        assert len({repr(essence(answer)) for answer in answers.values()}) == 1, (method, path, headers, answers)
    for pid, line in lines.by_pid.items():
        assert line.owner == pid, "a read was handed to another process"


async def test_what_only_the_node_knows_is_answered_by_it_on_the_same_connection(
    network: Network, client: Client, lines: Lines, pop: str
) -> None:
    value = Random(1).randbytes(300_000)  # more than came with the head, and more than one message takes
    for number, (pid, line) in enumerate(lines.by_pid.items()):
        # Three requests in one go: the first is this process's, then the connection is the node's.
        for method, path, body in (("GET", "/values/absent", b""), ("PUT", f"/values/k{number}", value)):
            line.send(client, method, path, body)
        line.send(client, "GET", f"/values/k{number}", KV_At_Least="1-1")
        answers = [await line.answer() for _ in range(3)]
        assert [answer.status for answer in answers] == [404, 200, 200]
        assert answers[2].body == value
        assert (await line.ask(client, "GET", "/status")).json["readers"]["wanted"] == READERS
        assert line.owner == network.pid(pop), f"pid {pid} kept it"


async def test_no_process_answers_older_than_another_has(client: Client, lines: Lines, pop: str) -> None:
    """Readers in turn and side by side under writes: in the order of time no version and no position goes back."""
    keys = ("hot", "other")
    for key in keys:
        await written_through(client, pop, key, b"0")
    reads: list[tuple[float, float, str, Version, Version]] = []
    done = asyncio.Event()

    async def write() -> None:
        for number in range(150):
            for key in keys:
                assert (await client.put("coordinator", key, b"%d" % number)).status == 200
        done.set()

    async def read(line: Line) -> None:
        turn = 0
        while not done.is_set():
            key = keys[turn % 16 == 0]
            # Now and then one that isn't plain, which the service answers.
            headers = {"If_None_Match": '"0-0"'} if turn % 5 == 0 else {}
            turn += 1
            began = monotonic()
            answer = await line.ask(client, "GET", f"/values/{key}", **headers)
            assert answer.status == 200
            told = Version.parse(answer.headers["kv-version"]), Version.parse(answer.headers["kv-position"])
            reads.append((began, monotonic(), key, *told))

    await asyncio.gather(write(), *(read(line) for line in lines))
    assert len({version for *_, version, _ in reads}) > 50, "hardly anything was written while it was read"
    newest: dict[str, Version] = {}
    ended = sorted(reads, key=lambda row: row[1])
    at = 0
    for began, _, key, version, position in sorted(reads):
        while ended[at][1] < began:
            for what, seen in ((ended[at][2], ended[at][3]), ("position", ended[at][4])):
                newest[what] = max(seen, newest.get(what, seen))
            at += 1
        assert version >= newest.get(key, version), f"{key} went back from {newest[key]} to {version}"
        assert position >= newest.get("position", position), f"the position went back to {position}"


async def test_a_revoked_token_and_a_deleted_namespace_are_gone_in_every_process_at_once(
    network: Network, client: Client, lines: Lines, pop: str
) -> None:
    for number in range(5):
        await written_through(client, pop, "k", b"v")
        body = json.dumps({"name": f"t{number}", "scope": "read"}).encode()
        made = await client.ask(pop, "POST", "/client/v4/user/tokens", body)
        assert made.status == 200, made
        token = made.json["result"]
        for line in lines:
            for _ in range(40):  # often enough to be remembered
                assert (await line.ask(client, "GET", "/values/k", token=token["value"])).status == 200
        revoked = await client.ask(pop, "DELETE", f"/client/v4/user/tokens/{token['id']}")
        assert (revoked.status, revoked.headers.get("KV-Pending")) == (200, None)
        for line in lines:
            assert (await line.ask(client, "GET", "/values/k", token=token["value"])).status == 401
    deleted = await client.ask(pop, "DELETE", client.base)
    assert (deleted.status, deleted.headers.get("KV-Pending")) == (200, None)
    for line in lines:
        assert (await line.ask(client, "GET", "/values/k")).status == 404
        assert (await line.ask(client, "GET", "/keys")).status == 404


async def test_what_one_process_finds_expired_is_expired_in_all(client: Client, lines: Lines, pop: str) -> None:
    for number in range(3):
        await written_through(client, pop, f"k{number}?expiration_ttl=1", b"v")

        async def gone(line: Line, number: int = number) -> bool:
            return (await line.ask(client, "GET", f"/values/k{number}")).status == 404

        several = list(lines)
        found = several[number % len(several)]
        await until(lambda found=found, gone=gone: gone(found), "it expires")  # type: ignore[misc]
        for line in several:
            assert await gone(line)


async def test_a_killed_reader_is_missed_by_nobody_else_and_comes_back(
    network: Network, client: Client, lines: Lines, pop: str
) -> None:
    await written_through(client, pop, "k", b"v")
    node = network.pid(pop)
    victim = next(pid for pid in lines.by_pid if pid != node)
    os.kill(victim, signal.SIGKILL)
    for pid, line in lines.by_pid.items():
        if pid != victim:
            assert (await line.ask(client, "GET", "/values/k")).status == 200

    async def replaced() -> bool:
        pids = processes(network, pop)
        return victim not in pids and len(pids) == READERS + 1

    await until(replaced, "another reader takes its place")
    assert network.pid(pop) == node
    again = await Lines.open(network, client, pop)
    for line in again:
        assert (await line.ask(client, "GET", "/values/k")).body == b"v"
    again.close()

    async def told() -> bool:
        status = await client.status(pop)
        return set(status["readers"]["pids"]) == processes(network, pop) - {node}

    await until(told, "the node knows its readers")


async def test_readers_go_on_while_their_node_is_killed_and_started_again(
    network: Network, client: Client, lines: Lines, pop: str
) -> None:
    first = await written_through(client, pop, "k", b"v")
    node = network.pid(pop)
    readers = [line for pid, line in lines.by_pid.items() if pid != node]
    spare = await Lines.open(network, client, pop)
    waiting = next(line for pid, line in spare.by_pid.items() if pid != node)
    network.kill(pop)

    async def dead() -> bool:
        return not lives(node)

    await until(dead, "the node is dead")
    # What only the node can do waits for it.
    waiting.send(client, "PUT", "/values/k", b"w")
    asked = 0
    answering = asyncio.ensure_future(waiting.answer())
    newest = first
    while not answering.done():
        for line in readers:
            answer = await line.ask(client, "GET", "/values/k")
            asked += 1
            version = Version.parse(answer.headers["kv-version"])
            assert (answer.status, version >= newest) == (200, True)
            newest = version
    written = await answering
    assert written.status == 200, written
    spare.close()
    assert network.pid(pop) not in {None, node}
    assert processes(network, pop) - {network.pid(pop)} == set(lines.by_pid) - {node}, "the readers are the same"
    at_least = written.headers["kv-version"]

    async def counts() -> bool:
        return await reads_of(client, pop) >= asked

    await until(counts, "what was read while the node was away is counted")
    for line in readers:
        assert (await line.ask(client, "GET", "/values/k", KV_At_Least=at_least)).body == b"w"


async def reads_of(client: Client, pop: str) -> int:
    namespace = client.base.rpartition("/")[2]
    answer = await client.ask(pop, "GET", "/usage")
    months = answer.json["months"].values()
    return sum(month[namespace]["reads"] for month in months if namespace in month)


async def test_nothing_that_was_read_is_forgotten_at_a_clean_stop(
    network: Network, client: Client, lines: Lines, pop: str
) -> None:
    await written_through(client, pop, "k", b"v")
    before = await reads_of(client, pop)

    async def settled() -> bool:
        nonlocal before
        last, before = before, await reads_of(client, pop)
        return last == before

    await until(settled, "what was read so far is counted")
    owners = set(lines.by_pid)
    for line in lines:
        for _ in range(50):
            assert (await line.ask(client, "GET", "/values/k")).status == 200
    await asyncio.to_thread(network.kvnet, "restart", pop)
    await complete(network, pop)
    assert not owners & processes(network, pop), "the readers ended with their node"
    assert await reads_of(client, pop) == before + 50 * len(owners)


@asynccontextmanager
async def reading(client: Client, lines: Lines, key: str) -> AsyncIterator[list[Version]]:
    """Every process is read from all the time; each answer is a value, and none is older than the one before."""
    seen: list[Version] = []
    done = asyncio.Event()

    async def read() -> None:
        while not done.is_set():
            for line in lines:
                answer = await line.ask(client, "GET", f"/values/{key}")
                assert answer.status == 200, answer
                version = Version.parse(answer.headers["kv-version"])
                assert not seen or version >= seen[-1]
                seen.append(version)

    task = asyncio.ensure_future(read())
    try:
        yield seen
    finally:
        done.set()
        await task


async def test_a_compaction_and_a_bootstrap_swap_the_replica_under_readers_that_go_on(
    network: Network, client: Client, lines: Lines, pop: str
) -> None:
    await written_through(client, pop, "k", b"0")
    node = network.pid(pop)
    async with reading(client, lines, "k") as seen:
        before = len(seen)
        await asyncio.to_thread(network.kvnet, "compact", pop)
        written = await client.put("coordinator", "k", b"1")

        async def there() -> bool:
            return seen[-1] >= written.version and len(seen) > before + 20

        await until(there, "what is written into the new file is read")
    assert network.pid(pop) == node
    # The readers of a node that was killed are in its place until it is filled anew.
    readers = Lines({pid: line for pid, line in lines.by_pid.items() if pid != node})
    async with reading(client, readers, "k") as seen:
        network.kvnet("wan", "cut", pop, "coordinator", "--both")
        others = [name for name in network.pops if name != pop]
        for other in others:
            network.kvnet("wan", "cut", pop, other, "--both")
        last = Version(0, 0)
        for number in range(40):
            assert (await client.put("coordinator", f"filler{number}", b"x" * 60_000)).status == 200
            last = (await client.put("coordinator", "k", b"%d" % number)).version
        await client.agreed([name for name in network.replicas if name != pop])
        network.kvnet("wan", "heal")
        network.kvnet("wan", "cut", pop, "coordinator", "--both")

        async def filled() -> bool:
            return seen[-1] >= last

        await until(filled, "it is filled anew")
        network.kvnet("wan", "heal")
    assert (await client.status(pop))["driver"]["reports"]["bootstrap"] >= 2, "it was made anew of pages"


async def test_a_large_value_is_the_same_from_every_process(client: Client, lines: Lines, pop: str) -> None:
    value = Random(2).randbytes(3_000_000)
    await written_through(client, pop, "large", value)
    for pid, line in lines.by_pid.items():
        assert (await line.ask(client, "GET", "/values/large")).body == value
        part = await line.ask(client, "GET", "/values/large", Range="bytes=1500000-1500009")
        assert (part.status, part.body) == (206, value[1_500_000:1_500_010])
        assert line.owner == pid


async def test_damage_that_a_reader_finds_is_served_by_nobody_and_mended(
    network: Network, client: Client, pop: str
) -> None:
    value = b"a value that is like no other of the readers"
    await written_through(client, pop, "k", value)
    await client.agreed()
    await asyncio.to_thread(network.kvnet, "stop", pop)
    assert flip_value(network, pop, value) == 1
    await asyncio.to_thread(network.kvnet, "start", pop)
    await client.agreed()
    await complete(network, pop)
    lines = await Lines.open(network, client, pop)
    reader = next(line for pid, line in lines.by_pid.items() if pid != network.pid(pop))
    found = await reader.ask(client, "GET", "/values/k")
    assert (found.status, found.json["errors"][0]["code"]) == (503, 20004)

    async def mended() -> bool:
        answers = [await line.ask(client, "GET", "/values/k") for line in lines]
        # Until then, nobody says what isn't so: nor that there is no such key.
        assert {answer.status for answer in answers} <= {200, 401, 503}, answers
        return all(answer.status == 200 and answer.body == value for answer in answers)

    await until(mended, "it is as it was written")
    lines.close()

    async def told() -> bool:
        return (await client.status(pop))["damaged"] is None  # it looks now and then whether it is level

    await until(told, "the node says that it is whole")
    assert (await client.status(pop))["driver"]["reports"]["damaged"] == 1


async def test_a_peers_connection_that_a_reader_is_given_becomes_the_nodes(
    network: Network, client: Client, lines: Lines, pop: str
) -> None:
    node = network.pid(pop)
    line = next(line for pid, line in lines.by_pid.items() if pid != node)
    fields = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
    }
    line.writer.write(request_bytes("GET", LINKS_PATH, fields, b""))
    head = await line.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head
    assert line.owner == node
    taken = (await client.status(pop))["readers"]["connections_taken"]
    assert taken >= 1


def begin(log: Path, variables: dict[str, str], *arguments: object) -> subprocess.Popen[bytes]:
    """Run a command that writes to `log`."""
    with log.open("wb") as file:
        return subprocess.Popen(
            [*PROGRAM, *map(str, arguments)], cwd=ROOT, env={**os.environ, **variables}, stdout=file, stderr=file
        )


async def test_a_node_alone_has_readers_that_end_with_it(
    network: Network, client: Client, pop: str, tmp_path: Path
) -> None:
    await asyncio.to_thread(network.kvnet, "stop", pop)
    options = ("--topology", network.folder.topology_file, "--data", tmp_path / "alone", "--readers", 1)
    secret = {"KVNET_SECRET_FILE": str(network.folder.secret_file)}
    log = tmp_path / "log"
    alone = begin(log, secret, "node", pop, *options)
    try:
        pids: set[int] = set()

        async def complete() -> bool:
            assert alone.poll() is None, log.read_text()
            status = await client.ask(pop, "GET", "/status")
            pids.update(status.json["readers"]["pids"] if status.status == 200 else ())
            return bool(pids) and status.json["ready"]

        await until(complete, "it has a reader")
        version = (await client.put("coordinator", "k", b"v")).version
        assert (await client.get(pop, "k", KV_At_Least=str(version))).body == b"v"
        second = await asyncio.to_thread(
            kvnet, "node", pop, *options[:2], "--data", tmp_path / "second", "--readers", 1, **secret
        )
        assert second.returncode == 2, second
        assert "is taken" in second.stderr
        [reader] = pids
        os.kill(reader, signal.SIGKILL)

        async def replaced() -> bool:
            now = (await client.status(pop))["readers"]["pids"]
            pids.update(now)
            return bool(now) and reader not in now

        await until(replaced, "another reader takes its place")
        for pid in pids - {reader}:
            assert lives(pid)
        alone.terminate()
        assert await asyncio.to_thread(alone.wait, DEADLINE_S) == 0, log.read_text()
    finally:
        alone.kill()
        await asyncio.to_thread(alone.wait)

    async def gone() -> bool:
        return not any(map(lives, pids))

    await until(gone, "none of its readers is left")
    await asyncio.to_thread(network.kvnet, "start", pop)
    await client.agreed()


async def test_a_node_that_is_stopped_leaves_no_reader_also_when_it_was_killed_before(
    network: Network, client: Client, pop: str
) -> None:
    await complete(network, pop)
    before = processes(network, pop)
    network.kill(pop)
    await asyncio.to_thread(network.kvnet, "stop", pop)
    assert processes(network, pop) == {None}
    assert not any(map(lives, before))
    await asyncio.to_thread(network.kvnet, "start", pop)
    await complete(network, pop)
    await client.agreed()
