"""Whatever comes to a node's port, it stays whole, and answers as its OpenAPI document says.

The long runs are `python -m bench.fuzz_http` and `python -m bench.openapi_cases`.
"""

from __future__ import annotations

import aiohttp
import pytest

from bench import fuzz_http, openapi_cases
from bench._support.network import running
from kvnet.api.openapi import build
from kvnet.limits import Limits

SEED = 2018


async def test_nodes_stay_whole_whatever_bytes_come(network):
    run = await fuzz_http.fuzz(running(network.folder.path), network.folder, seed=SEED, first=0, total=3000)
    assert run.findings == [], f"python -m bench.fuzz_http --seed {SEED} --first N --requests 1 sends one again"
    assert run.sent == 3000
    assert max(run.memory_grown().values()) < 64 * fuzz_http.MIB
    assert {200, 400, 401, 404, 405, 413, 431} <= set(run.statuses)
    async with aiohttp.ClientSession() as session:
        for target in fuzz_http.targets_of(running(network.folder.path), network.folder):
            async with session.get(f"http://{target.host}:{target.port}/healthz") as answer:
                assert (await answer.json())["ready"] is True


def test_answers_are_those_of_the_document(network):
    outcome = openapi_cases.check(running(network.folder.path), seed=SEED, total=250)
    assert outcome.found == {}
    assert {200, 400, 401, 403, 404} <= set(outcome.statuses)
    described = {f"{method.upper()} {path}" for path, item in build(Limits())["paths"].items() for method in item}
    assert set(outcome.by_operation) == {
        name for name in described if name.split()[0] not in {"SERVERS", "PARAMETERS"}
    }


@pytest.mark.parametrize(
    ("forget", "told"),
    [
        (lambda answers: answers.pop("200"), "GET /accounts: Undocumented status code (200)"),
        (
            lambda answers: answers["200"]["content"]["application/json"]["schema"]["required"].append("gone"),
            "GET /accounts: Response violates schema (200)",
        ),
    ],
    ids=["status", "schema"],
)
def test_answers_that_are_not_in_the_document_are_found(network, forget, told):
    document = build(Limits())
    item = document["paths"]["/accounts"]["get"]
    forget(item["responses"])
    document["paths"] = {"/accounts": {"get": item}}
    outcome = openapi_cases.check(running(network.folder.path), seed=SEED, total=60, document=document)
    assert told in {found.what for found in outcome.found.values()}
