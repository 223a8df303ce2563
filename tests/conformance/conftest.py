from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import count, product
from pathlib import Path

import pytest

from tests.conformance.environments import (
    Node,
    find_node,
    have,
    npm_environment,
    python_environment,
)
from tests.conformance.places import Place, Route
from tests.conformance.sdk import CLIENTS, Process, Sdk
from tests.conformance.wrangler import Wrangler
from tests.support import network as networks
from tests.support.network import Network

pytest.register_assert_rewrite("tests.conformance.wrangler_stories")

Stories = dict[tuple[str, str], Future[None]]

HERE = Path(__file__).parent
INSTALL_S = 600
ROUTES = {"coordinator": ("coordinator", "per"), "edge": ("scl", "per")}
"""By what is written to: that node, and the one that is read, half a world away."""
NAMESPACES_AT_ONCE = 50


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(INSTALL_S))  # the first test of a client installs it


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        report.sections += [(f"network in {net.folder.path}", net.logs()) for net in networks.running]
    return report


@pytest.fixture(scope="session")
def network(tmp_path_factory) -> Iterator[Network]:
    """Eight PoPs over the real distances between them, with the limits of today's Workers KV."""
    with Network(tmp_path_factory.mktemp("network")) as network:
        network.up("--pops", 8, "--limits", "workers-kv")
        yield network


@pytest.fixture(scope="session")
def place(network) -> Callable[..., Place]:
    """Return a node of the network by its name, to be asked with the token of a scope."""
    cluster = network.folder.cluster()

    def place(name: str, scope: str = "write") -> Place:
        url = cluster[name]["url"] if name == "coordinator" else cluster["pops"][name]["url"]
        return Place(name, url, cluster["account_id"], cluster["tokens"][scope])

    return place


@pytest.fixture(scope="session")
def routes(place) -> dict[str, Route]:
    return {name: Route(place(write), place(read)) for name, (write, read) in ROUTES.items()}


@pytest.fixture(scope="session", params=ROUTES)
def route(request, routes) -> Route:
    return routes[request.param]


@pytest.fixture(scope="session")
def bare_variables(tmp_path_factory) -> dict[str, str]:
    """An environment in which no client finds settings of this host's user."""
    home = str(tmp_path_factory.mktemp("home"))
    return {"PATH": os.environ["PATH"], "HOME": home, "XDG_CONFIG_HOME": home, "LANG": "C.UTF-8"}


@pytest.fixture(scope="session")
def node() -> Node:
    return have("Node", find_node)


@pytest.fixture(scope="session")
def npm(node) -> Path:
    return have("npm packages", lambda: npm_environment(node))


@pytest.fixture(scope="session", params=["python-5.9.0", "python-4.3.1", "npm-7.3.0"])
def sdk_process(request, bare_variables) -> Iterator[tuple[str, Process]]:
    name = request.param
    variables = dict(bare_variables)
    command: list[str | Path]
    if name.startswith("python"):
        command = [have(name, lambda: python_environment(name)), CLIENTS / "python_sdk.py"]
    else:
        variables["KVNET_CLIENTS"] = str(request.getfixturevalue("npm"))
        command = [request.getfixturevalue("node").program, CLIENTS / "node_sdk.mjs"]
    with Process(command, variables) as process:
        yield name, process


@pytest.fixture(scope="session", autouse=True)
def installations_begin_early(request) -> Iterator[None]:
    """Make the SDKs' environments side by side while other tests run; who wants one waits for it."""
    calls = (item.callspec.params for item in request.session.items if hasattr(item, "callspec"))
    wanted = {params["sdk_process"] for params in calls if "sdk_process" in params}
    with ThreadPoolExecutor() as pool:
        for name in sorted(wanted):  # what is raised here is raised again for the tests
            if name.startswith("python"):
                pool.submit(python_environment, name)
            else:
                pool.submit(lambda: npm_environment(find_node()))
        yield


@pytest.fixture
def account(sdk_process, route) -> Sdk:
    """An SDK that hasn't been told of a namespace."""
    return Sdk(*sdk_process, route)


@pytest.fixture
def sdk(account, new_namespace) -> Sdk:
    """An SDK in a namespace of this test's own."""
    return account.in_namespace(new_namespace())


@pytest.fixture(scope="session")
def new_namespace(network, place) -> Callable[[], str]:
    """Return the id of a new namespace, known at every node; made by the dozen, so that each test is quick."""
    made: list[str] = []
    numbers = count()

    def new_namespace() -> str:
        coordinator = place("coordinator")
        if not made:
            with ThreadPoolExecutor(NAMESPACES_AT_ONCE) as pool:
                titles = [{"title": f"spare {next(numbers)}"} for _ in range(NAMESPACES_AT_ONCE)]
                made.extend(
                    answer.json["result"]["id"] for answer in pool.map(partial(coordinator.ask, ""), titles)
                )
            for pop in network.pops:
                place(pop).reach(coordinator.position())
        return made.pop()

    return new_namespace


@pytest.fixture(scope="session")
def wrangler_stories(routes, node, npm, bare_variables, new_namespace, tmp_path_factory) -> Iterator[Stories]:
    """The stories that are told at this moment, by their name and the name of what is written to."""
    from tests.conformance.wrangler_stories import STORIES, Setting

    folder = tmp_path_factory.mktemp("wrangler")
    wrangler = Wrangler(node, npm, folder, bare_variables)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        stories: Stories = {}
        for story, (name, route) in product(STORIES, routes.items()):
            own = folder / f"{story.__name__}-{name}"
            own.mkdir()
            stories[story.__name__, name] = pool.submit(story, Setting(wrangler, route, new_namespace(), own))
        yield stories
        for story in stories.values():
            story.cancel()


@pytest.fixture(scope="session", autouse=True)
def stories_begin_early(request):
    if any("wrangler_story" in item.fixturenames for item in request.session.items):
        with suppress(pytest.skip.Exception):  # the tests that want them will say so
            request.getfixturevalue("wrangler_stories")


@pytest.fixture(params=ROUTES)
def wrangler_story(request, wrangler_stories) -> Callable[[str], None]:
    """Wait for the end of a story, and raise what it raised."""

    def end(name: str) -> None:
        wrangler_stories[name, request.param].result()

    return end
