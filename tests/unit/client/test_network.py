from __future__ import annotations

import json

import pytest

import kvnet
from kvnet.errors import ConfigError
from tests.support.fake_edge import ACCOUNT, TOKEN


@pytest.mark.parametrize(
    ("near", "code"), [("Tokyo", "nrt"), ("KIX", "kix"), ("-33.9,18.4", "gru"), ((48.1, 11.6), "fra")]
)
async def test_place_decides_which_edge_is_first(cluster, near, code):
    async with kvnet.connect(cluster=cluster, near=near) as net:
        assert net.edge.code == code


async def test_without_a_place_an_edge_that_answers_is_first(cluster, edges):
    for code in ("nrt", "kix", "gru"):
        edges[code].refuses = True
    async with kvnet.connect(cluster=cluster) as net:
        assert net.edge.code == "fra"


async def test_pop_is_the_only_edge_asked(cluster, edges, store):
    store.create("settings")
    async with kvnet.connect(cluster=cluster, pop="GRU") as net:
        assert await net.namespace("settings").get("theme") is None
        edges["gru"].refuses = True
        with pytest.raises(kvnet.errors.RequestError):
            await net.namespace("settings").get("theme")
    assert not any(edges[code].requests for code in ("nrt", "kix", "fra"))


async def test_network_is_found_by_folder_file_and_addresses(cluster, edges, store, tmp_path):
    store.create("settings")
    (tmp_path / "cluster.json").write_text(json.dumps(cluster))
    by_address = {"urls": [f"{edges['nrt'].url}/client/v4/"], "token": TOKEN, "account_id": ACCOUNT}
    for arguments in ({"data": tmp_path}, {"cluster": tmp_path / "cluster.json"}, by_address):
        async with kvnet.connect(**arguments) as net:
            assert [found.title for found in await net.namespaces()] == ["settings"]


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        ({"data": "nowhere"}, "there is no network in nowhere: start one with `kvnet up"),
        ({"urls": []}, "at least one address"),
        ({"urls": ["http://127.0.0.1:1"]}, "give token= and account_id= too"),
        ({"urls": ["localhost:1"], "token": "t", "account_id": "a"}, "write http://host:port"),
        ({"urls": ["http://a:1"], "data": "b"}, "give one of them"),
        ({"cluster": {}}, "lacks 'pops'"),
        ({"cluster": {"account_id": "a", "tokens": {"write": "t"}, "pops": {}}}, "at least one"),
        ({"urls": ["http://a:1"], "token": "t", "account_id": "a", "near": "Tokyo"}, "leave near= out"),
    ],
)
def test_arguments_that_cannot_work_name_the_cure(arguments, cure):
    with pytest.raises(ConfigError, match=cure):
        kvnet.connect(**arguments)


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [({"near": "Tokio"}, "Tokyo"), ({"pop": "ntr"}, "did you mean nrt"), ({"pop": "a", "near": "b"}, "give one")],
)
async def test_unknown_place_or_pop_names_the_closest(cluster, arguments, cure):
    with pytest.raises(ConfigError, match=cure):
        kvnet.connect(cluster=cluster, **arguments)


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_broken_cluster_file_is_named(tmp_path, content):
    (tmp_path / "cluster.json").write_text(content)
    with pytest.raises(ConfigError, match=r"cluster\.json.*restart the network"):
        kvnet.connect(data=tmp_path)


def test_what_the_package_names_is_there():
    assert {getattr(kvnet, name) is not None for name in kvnet.__all__} == {True}
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        kvnet.nothing  # noqa: B018 - asked for to be refused
