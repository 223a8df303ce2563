"""An edge's replica, read straight from its disk while its node writes, dies, is made anew and comes back."""

from __future__ import annotations

import asyncio
import re
import threading

import lmdb
import pytest

import kvnet as product
from kvnet.core.versions import Version
from kvnet.errors import RequestError, StorageError
from kvnet.storage.state import STATE_KEY, State
from tests.support.network import Network, kvnet, until


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    made = kvnet("topology", "gen", "--pops", 4).stdout
    topology = folder / "topology.yaml"
    topology.write_text(re.sub(r"edge_journal_mib: \d+", "edge_journal_mib: 1", made))
    with Network(folder / "data") as network:
        network.up("--topology", topology, "--limit", "ttl_seconds_min=1")
        yield network


@pytest.fixture
def pop(network):
    return network.pops[-1]


@pytest.fixture
def replica(network, pop):
    with product.open_replica(network.folder.node_folder(pop)) as replica:
        yield replica


class Reading:
    """A thread that reads all the time: what it has seen stays, in the order in which it was written."""

    def __init__(self, namespace, replica) -> None:
        self.seen = 0
        self.reads = 0
        self.refusals: set[str] = set()
        self._namespace, self._replica = namespace, replica
        self._problem: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        position = Version(0, 0)
        try:
            while not self._stop.is_set():
                try:
                    now, latest = self._replica.position, self._namespace.get(f"n{self.seen}")
                    first = self._namespace.get("n0")
                except StorageError as error:
                    self.refusals.add(re.sub(r" in \S+", "", str(error)))
                    continue
                assert now >= position, f"{position} was there before {now}"
                position = now
                if latest is not None:
                    assert (latest, first) == (f"v{self.seen}", "v0")
                    self.seen += 1
                assert self.seen == 0 or first == "v0"
                self.reads += 1
        except BaseException as error:  # noqa: BLE001 - the test's own thread raises it
            self._problem = error

    async def reaches(self, number: int) -> None:
        async def there() -> bool:
            assert self._problem is None, self._problem
            return self.seen >= number

        await until(there, f"{number} are read (last: {self.seen})")

    async def goes_on(self) -> None:
        before = self.reads

        async def read() -> bool:
            assert self._problem is None, self._problem
            return self.reads > before + 10

        await until(read, "reads go on")

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self._problem is None, self._problem


async def put_some(client, numbers, size=1) -> None:
    for number in numbers:
        written = await client.put("coordinator", f"n{number}", f"v{number}".encode().ljust(size))
        assert written.status == 200


async def test_what_an_edge_answers_and_what_is_read_beside_it_are_the_same(network, client, replica, pop):
    written = await client.put("coordinator", "k", b"v")
    answer = await client.get(pop, "k", KV_At_Least=str(written.version))
    assert answer.status == 200
    namespace = replica.namespace(client.title)
    found = namespace.get_with_metadata("k", "bytes")
    assert (found.value, found.version, found.pop) == (answer.body, answer.version, pop)
    assert (replica.pop, replica.running) == (pop, True)
    assert replica.position >= written.version
    # The node tells it in steps of 500 ms, upwards; both are of one beacon or of the next.
    assert abs(replica.staleness_ms() - answer.staleness_ms) < 5_000


async def test_a_reader_beside_writes_and_kills_never_goes_back(network, client, replica, pop):
    with Reading(replica.namespace(client.title), replica) as reading:
        await put_some(client, range(30))
        await reading.reaches(30)
        before = network.kill(pop)
        await reading.goes_on()

        async def back() -> bool:
            return network.pid(pop) not in {None, before} and (await client.status(pop))["ready"]

        await put_some(client, range(30, 60))
        await until(back, f"{pop} is back")
        await reading.reaches(60)
    assert reading.refusals == set()


async def test_a_stopped_edges_replica_is_read_and_says_how_old_it_is(network, client, replica, pop):
    await client.put("coordinator", "k", b"v")
    await client.agreed()
    network.kvnet("stop", pop)
    try:
        namespace = replica.namespace(client.title)
        assert (namespace.get("k"), replica.running) == ("v", False)
        first = replica.staleness_ms()

        async def older() -> bool:
            return replica.staleness_ms() > first + 300

        await until(older, "it grows stale")
        with product.open_replica(network.folder.node_folder(pop)) as another:
            assert another.namespace(client.title).get("k") == "v"
            assert another.staleness_ms() > first
    finally:
        network.kvnet("start", pop)

    async def fresh() -> bool:
        return replica.running and replica.staleness_ms() < 1500

    await until(fresh, "the node tells again")


async def test_readers_are_served_through_the_swap_at_a_bootstrap(network, client, replica, pop):
    """An edge that was away for more than the others remember is made anew beside its readers."""
    await put_some(client, range(1))
    await client.agreed()
    network.kvnet("stop", pop)
    before = replica.position
    await put_some(client, range(1, 40))
    for number in range(40):
        assert (await client.put("coordinator", f"filler{number}", b"x" * 60_000)).status == 200
    await client.agreed([name for name in network.replicas if name != pop])
    with Reading(replica.namespace(client.title), replica) as reading:
        await reading.goes_on()
        network.kvnet("wan", "cut", pop, "coordinator", "--both")
        try:
            network.kvnet("start", pop)
            await reading.reaches(40)
            await client.agreed()
        finally:
            network.kvnet("wan", "heal")
        await reading.goes_on()
    assert (await client.status(pop))["driver"]["reports"]["bootstrap"] >= 2, "it was made anew of pages"
    assert reading.refusals == set()
    assert replica.position > before


async def test_what_expires_is_hidden_by_the_time_that_the_node_goes_by(network, client, replica, pop):
    await client.put("coordinator", "kept", b"v")
    written = await client.put("coordinator", "k?expiration_ttl=2", b"v")
    expires_at = int((await client.get(pop, "k", KV_At_Least=str(written.version))).headers["expiration"])
    namespace = replica.namespace(client.title)
    assert namespace.get_with_metadata("k").expires_at == expires_at
    while True:
        before = replica.now_s()
        found = namespace.get("k")
        after = replica.now_s()
        if found is None:
            assert after >= expires_at
            break
        assert before < expires_at
    assert namespace.get("kept") == "v"

    async def hidden() -> bool:
        return (await client.get(pop, "k")).status == 404

    await until(hidden, "the node hides it as well")
    assert namespace.list(prefix="k").keys[0].name == "kept"


async def test_nothing_that_a_node_found_expired_is_read_beside_it(network, client, replica, pop):
    """Each time the node says that it is gone, it is gone for who reads beside it from then on."""
    namespace = replica.namespace(client.title)
    for number in range(5):
        written = await client.put("coordinator", f"k{number}?expiration_ttl=1", b"v")
        await client.get(pop, f"k{number}", KV_At_Least=str(written.version))

        async def gone(number=number) -> bool:
            return (await client.get(pop, f"k{number}")).status == 404

        await until(gone, "the node hides it")
        assert namespace.get(f"k{number}") is None


async def test_a_deleted_namespace_is_gone_when_the_node_says_so(network, client, replica, pop):
    await client.put("coordinator", "k", b"v")
    await client.agreed()
    namespace = replica.namespace(client.title)
    assert namespace.get("k") == "v"
    deleted = await client.ask("coordinator", "DELETE", client.base)
    assert deleted.status == 200
    await client.ask(pop, "GET", client.base, None, {"KV-At-Least": str(deleted.version)})
    with pytest.raises(RequestError, match="no namespace"):
        namespace.get("k")


async def test_a_replica_that_diverged_is_refused_and_read_again_once_it_is_made_anew(network, client, pop):
    await put_some(client, range(1))
    await client.agreed()
    network.kvnet("stop", pop)
    [file] = (network.folder.node_folder(pop) / "store").glob("replica-*/data.mdb")
    environment = lmdb.Environment(str(file.parent), max_dbs=20)
    meta = environment.open_db(b"meta", create=False)
    with environment.begin(meta, write=True, buffers=True) as txn:
        state = State.unpack(txn.get(STATE_KEY))
        txn.put(STATE_KEY, state._replace(digest=state.digest ^ 1).pack())
    environment.close()
    with product.open_replica(network.folder.node_folder(pop)) as replica:
        with Reading(replica.namespace(client.title), replica) as reading:
            await reading.goes_on()
            network.kvnet("start", pop)
            await put_some(client, range(1, 10))
            await reading.reaches(10)
        assert reading.refusals
        assert all("diverged" in told or "isn't whole" in told for told in reading.refusals), reading.refusals
    await client.agreed()
    assert (await client.status(pop))["driver"]["reports"]["diverged"] >= 1


async def test_a_network_that_is_wiped_takes_its_replicas_with_it(network, client, replica, pop):
    """The last test of this file."""
    await client.put("coordinator", "k", b"v")
    await client.agreed()
    namespace = replica.namespace(client.title)
    assert namespace.get("k") == "v"
    await asyncio.to_thread(network.kvnet, "down", "--wipe")

    async def told() -> bool:
        try:
            namespace.get("k")
        except StorageError as error:
            return "there is no replica in" in str(error)
        return False

    await until(told, "its readers are told")
