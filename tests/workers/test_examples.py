"""The four example applications on workerd, at three PoPs far apart, each watched by its own program."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.network import DEADLINE_S, ROOT, free_port_base

EXAMPLES = ROOT / "examples"
BOUND_MS = 10_000


@pytest.fixture
def run(network, dev):
    """Run an example: its Worker at every PoP, then its program; return what that tells."""

    def run(name: str, *arguments: Any, project: Path | None = None) -> dict[str, Any]:
        dev("--config", project or EXAMPLES / name / "wrangler.jsonc").ready()
        ended = subprocess.run(
            [
                sys.executable,
                "-m",
                f"examples.{name}",
                "--data",
                network.folder.path,
                "--json",
                *map(str, arguments),
            ],
            cwd=ROOT,
            env=os.environ,
            capture_output=True,
            text=True,
            timeout=4 * DEADLINE_S,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    return run


def is_everywhere(sightings: list[dict[str, Any]], pops: list[str]) -> bool:
    """Whether each PoP saw the change within the bound and stayed with it."""
    assert [each["pop"] for each in sightings] == pops
    for each in sightings:
        assert 0 < each["new_since_ms"] < BOUND_MS, each
        assert not each["went_back"], each
    return True


def test_a_token_passes_everywhere_and_once_revoked_nowhere(run, network):
    told = run("gateway", "--times", 3)
    assert is_everywhere(told["login"], network.pops)
    assert is_everywhere(told["revocation"], network.pops)
    assert told["revocations"] == 3
    assert any(each["old_until_ms"] for each in told["revocation"]), "somebody was still let in"
    assert told["refused_everywhere_max_ms"] > told["floor_ms"] * 0.5, "no way is that short"


def test_a_page_speaks_each_countrys_language_and_changes_without_a_deployment(run, network):
    told = run("translations")
    assert is_everywhere(told["translated"], network.pops)
    assert is_everywhere(told["changed"], network.pops)
    countries = {pop["country"] for pop in network.folder.cluster()["pops"].values()}
    assert {page["country"] for page in told["pages"]} == countries
    for page in told["pages"]:
        assert "Welcome</h1>" not in page["html"]


def test_a_feature_is_on_and_a_device_banned_at_every_pop(run, network):
    told = run("configuration")
    assert is_everywhere(told["feature"], network.pops)
    assert is_everywhere(told["ban"], network.pops)
    assert told["others_are_served"]
    assert told["every_pop_says_the_same"]


def test_orders_are_delivered_once_though_two_pops_carry_them(run, network, tmp_path):
    base = free_port_base()
    folder = tmp_path / "orders"
    shutil.copytree(EXAMPLES / "orders", folder)
    project = folder / "wrangler.jsonc"
    text = project.read_text()
    assert "28701" in text
    project.write_text(text.replace("28701", str(base)).replace("28702", str(base + 1)))
    told = run("orders", "--project", project, project=project)
    assert is_everywhere(told["seen"], network.pops)
    assert told["first"] != told["second"]
    assert (told["carried_by_first"], told["delivered"]) == (3, 3)
    assert told["sent"] == 3 + told["carried_again_by_second"]
    assert told["carried_when_all_is_known"] == 0


def test_an_example_without_its_worker_says_what_to_start(network):
    ended = subprocess.run(
        [sys.executable, "-m", "examples.gateway", "--data", network.folder.path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "kvnet workers dev" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
