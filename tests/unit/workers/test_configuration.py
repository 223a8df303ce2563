from __future__ import annotations

import json
import re
from datetime import date

import pytest

from kvnet.client.directory import PlacedEdge
from kvnet.errors import ConfigError
from kvnet.workers.configuration import Site, Worker, quoted, render
from kvnet.workers.modules import read_code
from kvnet.workers.preface import place_of

ID = "0123456789abcdef0123456789abcdef"
TOKYO = PlacedEdge("nrt", "http://127.0.0.1:21010", "Tokyo", "JP", (35.7647, 140.3863))
SAO_PAULO = PlacedEdge("gru", "https://gru.example", "São Paulo", "BR", (-23.4356, -46.4731))
SITES = [Site(TOKYO, 26_200), Site(SAO_PAULO, 26_201)]


def rendered(write, source="export default {}", **settings):
    worker = Worker(code=read_code(write("app.js", source)), compatibility_date="2026-11-01", **settings)
    return render(worker, SITES, "the-token")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("plain", '"plain"'),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("line\nnext\r\tend", '"line\\nnext\\r\\tend"'),
        ("\x00\x1b\x7f", '"\\x00\\x1b\\x7f"'),
        ("São Paulo 東京 💡", '"São Paulo 東京 💡"'),
        ("", '""'),
    ],
)
def test_text_is_written_so_that_it_comes_back(text, written):
    assert quoted(text) == written


def test_text_that_is_not_unicode_is_refused():
    with pytest.raises(ConfigError, match="UTF-8"):
        quoted("\udcff")


def test_each_pop_has_a_socket_a_worker_and_its_own_edge(write):
    text = rendered(write, namespaces={"KV": ID})
    for code, port, edge in (("nrt", 26_200, "127.0.0.1:21010"), ("gru", 26_201, "gru.example:443")):
        socket = f'(name = "{code}", address = "127.0.0.1:{port}", service = "{code}"'
        assert text.count(socket) == 1
        assert text.count(f'(name = "{code}", worker = (') == 1
        assert text.count(f'(name = "KV", kvNamespace = "{code}/KV")') == 1
        service = re.search(rf'\(name = "{code}/KV", external = .*\n', text)
        assert service
        assert f'address = "{edge}"' in service[0]
        assert f'(name = "KV-Namespace", value = "{ID}")' in service[0]
        assert '(name = "Authorization", value = "Bearer the-token")' in service[0]
        assert ("tlsOptions" in service[0]) == (code == "gru")


def test_text_variables_stay_text_and_all_others_are_json(write):
    text = rendered(write, variables={"A": 'x"y', "B": {"ü": [1, None]}, "C": 5, "D": date(2026, 11, 1)})
    assert text.count('(name = "A", text = "x\\"y")') == 2
    assert text.count('(name = "B", json = "{\\"ü\\": [1, null]}")') == 2
    assert text.count('(name = "C", json = "5")') == 2
    assert text.count('(name = "D", json = "\\"2026-11-01\\"")') == 2


def test_date_and_flags_are_the_projects(write):
    text = rendered(write, compatibility_flags=["nodejs_compat", "b"])
    assert text.count('compatibilityDate = "2026-11-01"') == 2
    assert text.count('compatibilityFlags = ["nodejs_compat", "b"]') == 2


def test_a_worker_may_fetch_from_this_host_too(write):
    text = rendered(write)
    assert text.count('globalOutbound = "outside"') == 2
    assert '(name = "outside", network = (allow = ["public", "private"]' in text


def test_modules_are_embedded_by_absolute_path(write, tmp_path):
    write("lib/x.js")
    text = rendered(write, source='import "./lib/x.js"; export default {}')
    assert text.count(f'(name = "app.js", esModule = embed "{tmp_path}/app.js")') == 2
    assert text.count(f'(name = "lib/x.js", esModule = embed "{tmp_path}/lib/x.js")') == 2
    assert text.index('"kvnet-preface.js"') < text.index('(name = "app.js"')  # the first module is the main one


def test_the_older_form_of_a_worker_is_bound_to_its_preface(write, tmp_path):
    text = rendered(write, source='addEventListener("fetch", () => {})', namespaces={"KV": ID})
    assert text.count(f'serviceWorkerScript = embed "{tmp_path}/app.js"') == 2
    assert text.count('(name = "WORKER", service = "nrt/script")') == 1
    assert text.count('kvNamespace = "gru/KV"') == 1


def test_a_place_is_told_as_cloudflare_tells_it():
    place = place_of(SAO_PAULO)
    assert place == {
        "colo": "GRU",
        "country": "BR",
        "city": "São Paulo",
        "latitude": "-23.43560",
        "longitude": "-46.47310",
    }
    assert json.loads(json.dumps(place)) == place
