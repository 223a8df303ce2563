"""Sessions: what was written and seen is seen again, wherever it is read."""

from __future__ import annotations

import pytest

import kvnet
from kvnet.client import trail
from kvnet.client.session import Freshness, Session
from kvnet.core.versions import Version
from kvnet.errors import ConfigError
from tests.support.fake_edge import ACCOUNT, TOKEN


@pytest.fixture
def id_(store):
    return store.create("settings")


@pytest.fixture
async def net(cluster, id_):
    async with kvnet.connect(cluster=cluster, near="Tokyo") as net:
        yield net


async def test_read_after_a_write_sees_it_at_whatever_edge(net, id_, edges):
    settings = net.namespace(id_)
    edges["nrt"].position = 0
    version = await settings.put("theme", "dark")
    assert net.version == version
    assert await settings.get("theme") == "dark"
    assert (await settings.get_with_metadata("theme")).pop == "kix"
    assert await settings.get(["theme"]) == {"theme": "dark"}
    assert [key.name async for key in settings.keys(prefix="t")] == ["theme"]
    assert edges["nrt"].headers_seen[-1]["KV-At-Least"] == str(version)


async def test_eventual_reads_ask_for_nothing(cluster, id_, edges):
    async with kvnet.connect(cluster=cluster, near="Tokyo", consistency="eventual") as net:
        edges["nrt"].position = 0
        await net.namespace(id_).put("theme", "dark")
        assert await net.namespace(id_).get("theme") is None
        assert net.version is None
        session = net.session()
        version = await session.namespace(id_).put("theme", "light")
        assert await session.namespace(id_).get("theme") == "light"
        assert session.version == version


async def test_what_was_seen_is_not_unseen_at_the_next_edge(net, id_, edges):
    async with kvnet.connect(cluster=_other(edges), near="Osaka") as other:
        await other.namespace(id_).put("theme", "dark")
    assert await net.namespace(id_).get("theme") == "dark"
    edges["nrt"].refuses = True
    edges["kix"].position = 0
    found = await net.namespace(id_).get_with_metadata("theme")
    assert (found.value, found.pop) == ("dark", "fra")


async def test_what_was_gone_stays_gone_at_the_next_edge(net, id_, edges, store):
    store.pairs[id_]["theme"] = (b"dark", None, None, 1)
    store.seq = 2
    del store.pairs[id_]["theme"]
    assert await net.namespace(id_).get("theme") is None
    assert net.version == Version(1, 2)


async def test_found_value_asks_for_no_more_than_its_version(net, id_, store):
    """A replica that has that version has this value or a later one: nobody waits for the writes behind it."""
    store.pairs[id_]["theme"] = (b"dark", None, None, 3)
    store.seq = 90
    await net.namespace(id_).get("theme")
    assert net.version == Version(1, 3)
    await net.namespace(id_).list()
    assert net.version == Version(1, 90)


async def test_namespace_just_made_is_known_at_an_edge_that_was_behind(net, edges):
    edges["nrt"].position = 0
    await net.create_namespace("sessions")
    await net.namespace("sessions").put("a", "1")
    assert {each.title for each in await net.namespaces()} == {"sessions", "settings"}
    assert edges["kix"].requests


async def test_sessions_of_one_network_do_not_wait_for_each_other(net, id_, edges):
    ada, bob = net.session(), net.session()
    version = await ada.namespace(id_).put("theme", "dark")
    assert (ada.version, bob.version, net.version) == (version, None, None)
    await bob.namespace(id_).get("theme")
    assert "KV-At-Least" not in edges["nrt"].headers_seen[-1]
    edges["nrt"].position = 0
    await bob.namespace(id_).get("theme")  # tells how far the edge is
    edges["nrt"].position = None
    continued = net.session(ada.version)
    await continued.namespace(id_).get("theme")
    assert edges["nrt"].headers_seen[-1]["KV-At-Least"] == str(version)


async def test_edge_that_is_known_to_have_it_need_not_be_told(net, id_, edges):
    """An edge answers plain reads faster than those that ask for something."""
    await net.namespace(id_).put("theme", "dark")
    assert await net.namespace(id_).get("theme") == "dark"
    assert "KV-At-Least" not in edges["nrt"].headers_seen[-1]


async def test_edge_that_went_back_unnoticed_is_asked_again_and_told(net, id_, edges):
    """Its disk was wiped, say, and the next request found it up again, with an older copy."""
    settings = net.namespace(id_)
    await settings.put("theme", "dark")
    edges["nrt"].position = 0
    with trail() as calls:
        assert (await settings.get_with_metadata("theme")).pop == "kix"
    assert [(each.edge.code, each.outcome) for each in calls[0].attempts] == [
        ("nrt", "refused"),
        ("nrt", "refused"),
        ("kix", "answered"),
    ]
    assert edges["nrt"].headers_seen[-1]["KV-At-Least"] == str(net.version)
    assert net.edge.code == "nrt"


async def test_each_read_may_say_how_new_it_has_to_be(net, id_, edges):
    settings = net.namespace(id_)
    wish = {"at_least": Version(1, 0), "max_staleness_ms": 700, "wait_timeout_ms": 20}
    await settings.get("theme", **wish)
    await settings.get_with_metadata("theme", **wish)
    await settings.get(["theme"], **wish)
    await settings.list(**wish)
    assert [key async for key in settings.keys(**wish)] == []
    assert len(edges["nrt"].headers_seen) == 5
    for seen in edges["nrt"].headers_seen:
        assert (seen["KV-Max-Staleness-Ms"], seen["KV-Wait-Timeout-Ms"]) == ("700", "20")
        assert seen["KV-At-Least"].startswith("1-")


def test_the_newer_of_wish_and_session_counts():
    assert Freshness(at_least=Version(1, 5)).headers(Version(1, 9)) == {"KV-At-Least": "1-9"}
    assert Freshness(at_least=Version(2, 5)).headers(Version(1, 9)) == {"KV-At-Least": "2-5"}
    assert Freshness().headers(None) == {}


def test_session_goes_forward_only_and_minds_no_nonsense():
    session = Session(Version(1, 5))
    for headers in ({"KV-Version": "1-4"}, {"KV-Position": "next"}, {}):
        session.saw(headers)
    assert session.version == Version(1, 5)
    session.saw({"KV-Version": "1-6", "KV-Position": "1-9"})
    assert session.version == Version(1, 6)


def test_another_consistency_is_refused(cluster):
    with pytest.raises(ConfigError, match="'session' or 'eventual'"):
        kvnet.connect(cluster=cluster, consistency="strong")


def _other(edges):
    """The cluster.json of the same network, of which one client knows a single edge."""
    place = {"city": "Osaka", "country": "JP", "lat": 34.43, "lon": 135.24}
    return {
        "account_id": ACCOUNT,
        "tokens": {"write": TOKEN},
        "pops": {"kix": {"url": edges["kix"].url, **place}},
    }
