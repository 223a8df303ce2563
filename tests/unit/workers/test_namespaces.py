from __future__ import annotations

from types import SimpleNamespace

import pytest

from kvnet.client import NamespaceInfo
from kvnet.errors import ConfigError, RequestError
from kvnet.workers.namespaces import read_binds, resolve
from kvnet.workers.project import KvBinding, Project

IDS = [f"{digit}" * 32 for digit in "abcdef"]
FRESH = "0" * 32


class FakeNetwork:
    """An account's namespaces, by title."""

    def __init__(self, **titles):
        self.titles = titles

    async def namespaces(self):
        return [NamespaceInfo(id=id_, title=title) for title, id_ in self.titles.items()]

    def namespace(self, name):
        async def info():
            for title, id_ in self.titles.items():
                if name in {title, id_}:
                    return NamespaceInfo(id=id_, title=title)
            raise RequestError(404, 10013, f"no namespace {name}")

        return SimpleNamespace(info=info)

    async def create_namespace(self, title, *, id=None):  # noqa: A002
        assert title not in self.titles
        self.titles[title] = id or FRESH

        async def own():
            return self.titles[title]

        return SimpleNamespace(id=own)


def project(tmp_path, *bindings):
    return Project(name="app", main=tmp_path / "app.js", folder=tmp_path, kv_namespaces=bindings)


async def test_bound_namespaces_are_looked_up_by_title_or_id(tmp_path):
    network = FakeNetwork(settings=IDS[0], other=IDS[1])
    ids, created = await resolve(network, project(tmp_path), {"A": "settings", "B": IDS[1]}, preview=False)
    assert ids == {"A": IDS[0], "B": IDS[1]}
    assert created == []


@pytest.mark.parametrize("name", ["settings", IDS[5]])
async def test_a_bound_namespace_is_never_created(tmp_path, name):
    network = FakeNetwork()
    with pytest.raises(RequestError):
        await resolve(network, project(tmp_path), {"A": name}, preview=False)
    assert network.titles == {}


async def test_a_configured_id_is_created_with_exactly_that_id(tmp_path):
    network = FakeNetwork(taken=IDS[0])
    wanted = project(tmp_path, KvBinding("taken", IDS[1]), KvBinding("KV", IDS[2]), KvBinding("OLD", IDS[0]))
    ids, created = await resolve(network, wanted, {}, preview=False)
    assert ids == {"taken": IDS[1], "KV": IDS[2], "OLD": IDS[0]}
    assert created == [IDS[1], IDS[2]]
    assert network.titles == {"taken": IDS[0], f"taken {IDS[1]}": IDS[1], "KV": IDS[2]}


async def test_without_an_id_the_bindings_name_is_the_title(tmp_path):
    network = FakeNetwork(OLD=IDS[0])
    ids, created = await resolve(network, project(tmp_path, KvBinding("OLD"), KvBinding("NEW")), {}, preview=False)
    assert ids == {"OLD": IDS[0], "NEW": FRESH}
    assert created == [FRESH]


async def test_the_preview_has_a_namespace_of_its_own(tmp_path):
    network = FakeNetwork()
    wanted = project(tmp_path, KvBinding("KV", IDS[0], IDS[1]))
    assert (await resolve(network, wanted, {}, preview=False))[0] == {"KV": IDS[0]}
    assert (await resolve(network, wanted, {}, preview=True))[0] == {"KV": IDS[1]}


async def test_what_is_bound_by_hand_goes_before_the_configuration(tmp_path):
    network = FakeNetwork(settings=IDS[0])
    wanted = project(tmp_path, KvBinding("KV", IDS[1]))
    ids, created = await resolve(network, wanted, {"KV": "settings"}, preview=False)
    assert ids == {"KV": IDS[0]}
    assert created == []


def test_binds_are_read_at_their_first_equals_sign():
    assert read_binds(["A=settings", "B=a=b"]) == {"A": "settings", "B": "a=b"}


@pytest.mark.parametrize("bind", ["A", "A=", "=x", "a-b=x"])
def test_a_bind_that_says_too_little_is_refused(bind):
    with pytest.raises(ConfigError, match="NAME=NAMESPACE"):
        read_binds([bind])


def test_a_variable_is_bound_once():
    with pytest.raises(ConfigError, match="twice"):
        read_binds(["A=x", "A=y"])
