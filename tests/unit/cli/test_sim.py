"""`kvnet sim`: small networks, in this process unless a test is about processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import kvnet.simulator.run
import kvnet.simulator.watched
from kvnet.cli.pool import in_order
from kvnet.cli.sim import sim
from kvnet.cli.sim_results import Results
from kvnet.errors import ConfigError, KvnetError
from kvnet.simulator.liveness import Deliveries
from kvnet.simulator.scripted import ScriptedRun
from kvnet.simulator.story import shortened, touches

app = typer.Typer()
app.command()(sim)

QUICK = ("--pops", "4", "--writes", "5", "--warm-up", "1")
SWARM = ("--swarm", "--mode", "safety", "--jobs", "1")
DOCUMENT = Path(__file__).parents[3] / "docs" / "simulator.md"


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def told(*arguments, code=0):
    return json.loads(run(*arguments, "--json", code=code).stdout)


@pytest.fixture
def strict(monkeypatch):
    """A planted fault of the network: everything must be everywhere within 60 ms."""

    class Strict(Deliveries):
        def __init__(self, world, disturbances):
            super().__init__(world, disturbances, bound_ms=60)

    monkeypatch.setattr(kvnet.simulator.watched, "Deliveries", Strict)


# -- measuring -----------------------------------------------------------------------------------------------


def test_json_tells_what_was_measured():
    measured = told(*QUICK, "--loss", "5%", "--seed", 3)
    assert (
        measured.items()
        >= {"pops": 4, "writes": 5, "rate": 20.0, "loss": 0.05, "seed": 3, "violations": 0}.items()
    )
    assert 0 < measured["converge_p50_ms"] <= measured["converge_p99_ms"] <= measured["converge_max_ms"]
    for name in ("floor_ms", "stretch_p50", "stretch_p99", "redundancy", "coordinator_copies", "formed_ms"):
        assert measured[name] > 0


def test_table_names_places_and_judges():
    table = run(*QUICK).stdout
    assert "world-2018: 4 PoPs, internet, no packets lost, coordinator in Ashburn, seed 1" in table
    assert "Perth (per)" in table
    assert table.splitlines()[-1] == "KEPT: each of 5 writes was in all 4 connected PoPs within 10 s"


def test_broken_bound_is_exit_code_3_and_what_never_came_is_null(tmp_path):
    strict = tmp_path / "strict.yaml"
    shipped = Path(__file__).parents[3] / "topology.yaml"
    strict.write_text(shipped.read_text().replace("bound_ms: 10000", "bound_ms: 1300"))
    measured = told("--topology", strict, *QUICK, "--loss", "0.5", "--writes", 40, code=3)
    assert measured["violations"] > 0
    assert measured["converge_max_ms"] is None or measured["converge_max_ms"] > 1300


def test_several_seeds_are_a_row_each_and_the_same_with_more_processes():
    arguments = ("--seeds", 3, "--from", 5, *QUICK)
    one, two = (told(*arguments, "--jobs", jobs) for jobs in (1, 2))
    assert [measured["seed"] for measured in one["runs"]] == [5, 6, 7]
    for measured in (*one["runs"], *two["runs"]):
        del measured["seconds"]
    assert one == two
    assert "median" in run(*arguments).stdout


def test_crashed_and_cut_pops_are_not_judged():
    assert "in all 3 connected PoPs" in run(*QUICK, "--cut", "25%").stdout
    assert "in all 3 connected PoPs" in run(*QUICK, "--crash", "0.25").stdout


# -- traces --------------------------------------------------------------------------------------------------


def test_trace_is_the_product_and_the_table_is_not():
    result = run(*QUICK, "--trace", "--only", "IAD")
    lines = result.stdout.splitlines()
    assert len(lines) > 20
    assert all(line.split()[1] == "iad" for line in lines)
    assert "KEPT" in result.stderr


def test_trace_of_a_swarms_run_is_the_same_each_time():
    arguments = ("--swarm", "--seed", 2, "--mode", "torture", "--pops", 5, "--trace")
    first, second = run(*arguments), run(*arguments)
    assert "** " in first.stdout
    assert first.stdout == second.stdout
    assert "HELD" in first.stderr


def test_reader_that_leaves_ends_it_quietly():
    program = "from kvnet.cli.main import main; main()"
    command = [sys.executable, "-c", program, "sim", "--trace", "--pops", "6", "--writes", "400"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


# -- swarms --------------------------------------------------------------------------------------------------


def test_swarm_runs_every_seed_in_all_modes_unless_told():
    swarm = told("--swarm", "--seeds", 2, "--pops", 4, "--jobs", 1)
    assert swarm["modes"] == {"safety": 2, "liveness": 2, "torture": 2}
    assert (swarm["failed"], swarm["unexplained"], swarm["story"]) == (0, 0, None)
    assert sum(swarm["faults"].values()) > 0
    assert told(*SWARM, "--seeds", 2, "--from", 7, "--pops", 4)["runs"] == 2


def test_processes_change_nothing_but_the_time():
    arguments = ("--swarm", "--seeds", 2, "--pops", 4)
    assert told(*arguments, "--jobs", 1) == told(*arguments, "--jobs", 2)


def test_failure_is_told_with_its_story_and_what_replays_it(strict):
    arguments = (*SWARM, "--pops", "5", "--loss", "1%")
    report = run(*arguments, "--seeds", 3, code=1).stdout
    replays = [line.strip() for line in report.splitlines() if line.startswith("  kvnet sim")]
    assert "FAILED: 3 of 3 runs" in report
    command = replays[0].split()
    assert command == ["kvnet", "sim", "--swarm", "--seed", "1", "--mode", "safety", "--pops", "5", "--loss", "1%"]
    again = run(*command[2:], code=1).stdout
    for heading in ("did last", "knew then", "in truth", "durable at", "neighbour"):
        assert heading in report
    assert (
        report[report.index("did last") : report.index("replay")]
        == again[again.index("did last") : again.index("replay")]
    )
    assert "deterministic" not in report


def test_json_of_a_failure_has_its_replay_and_its_story(strict):
    swarm = told(*SWARM, "--pops", 5, "--seeds", 2, code=1)
    first = swarm["failures"][0]
    assert first["failed"].startswith("delivered in time: ")
    assert first["replay"] == "kvnet sim --swarm --seed 1 --mode safety --pops 5"
    assert swarm["story"]["node"] == first["node"]
    assert swarm["story"]["same"]
    assert len(swarm["story"]["lines"]) <= 25


def test_exception_in_a_run_is_a_failure_of_its_seed(monkeypatch):
    def broken(run, lost):
        raise KeyError("planted")

    monkeypatch.setattr(kvnet.simulator.run.Run, "converge", broken)
    swarm = told(*SWARM, "--pops", 4, "--seeds", 1, code=1)
    assert swarm["failures"][0]["failed"].startswith("raised: KeyError at test_sim.py:")


def test_resumed_swarm_runs_only_what_is_missing(tmp_path, monkeypatch):
    file = tmp_path / "results"
    arguments = (*SWARM, "--pops", 4, "--resume", file)
    run(*arguments, "--seeds", 2)
    whole = file.read_bytes()
    assert len(whole.splitlines()) == 2
    file.write_bytes(whole[:-20])  # killed while it wrote
    result = run(*arguments, "--seeds", 2)
    assert "1 of 2 runs are in" in result.stderr
    assert file.read_bytes() == whole
    monkeypatch.setattr(kvnet.simulator.run.Run, "run", None)  # nothing is run
    assert "HELD: every property held in all 2 runs" in run(*arguments, "--seeds", 2).stdout


def test_results_of_another_network_are_left_alone(tmp_path):
    file = tmp_path / "results"
    run(*SWARM, "--pops", 4, "--seeds", 1, "--resume", file)
    result = run(*SWARM, "--pops", 5, "--seeds", 1, "--resume", file)
    assert "0 of 1 runs are in" in result.stderr
    assert "1 of another version or network" in result.stderr
    assert len(file.read_bytes().splitlines()) == 2


@pytest.mark.parametrize("content", [b"hello", b"hello\n", b"{}\n", b'{"results_of":"x"}\n', b"\xff\n"])
def test_file_of_another_kind_is_refused_and_not_touched(tmp_path, content):
    file = tmp_path / "precious"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="not a result of a swarm"):
        Results(file, "world")
    assert file.read_bytes() == content


# -- schedules -----------------------------------------------------------------------------------------------


@pytest.fixture
def schedule(tmp_path):
    """Write a schedule; return its file."""

    def write(content):
        file = tmp_path / "faults.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return file

    return write


CRASH = {"fault": "crash", "at_ms": 100, "lasts_ms": 500, "nodes": ["per"]}


def test_schedule_takes_effect_while_everything_is_watched(schedule):
    cut = {"fault": "cut", "at_ms": 0, "lasts_ms": 300, "senders": ["africa", "iad"]}
    checked = told(*QUICK, "--faults", schedule([CRASH, cut]), "--seed", 4)
    assert checked["faults"] == {"crash": 1, "cut": 1}
    assert (checked["failed"], checked["modes"]) == (0, {"safety": 1})
    assert checked["converged_max_ms"] is not None


def test_node_that_stays_broken_need_not_converge(schedule):
    checked = told(*QUICK, "--faults", schedule([CRASH | {"lasts_ms": 86_400_000}]))
    assert (checked["failed"], checked["modes"]) == (0, {"liveness": 1})


def test_schedule_that_breaks_the_bound_is_exit_code_3_with_a_command(schedule, monkeypatch):
    def late(run, lost):
        run.deliveries.fail("per lacks a write", node="per", seq=1)

    monkeypatch.setattr(ScriptedRun, "converge", late)
    file = schedule([CRASH])
    report = run(*QUICK, "--faults", file, code=3).stdout
    assert f"kvnet sim --seed 1 --faults {file} --writes 5 --warm-up 1.0 --pops 4" in report
    assert "** crash lasts_ms=500.0 nodes=per" in report


def test_example_in_the_documents_can_be_run(schedule):
    example = DOCUMENT.read_text().partition("```json\n")[2].partition("```")[0]
    assert told("--pops", 12, "--writes", 20, "--warm-up", "1", "--faults", schedule(example))["failed"] == 0


@pytest.mark.parametrize(
    ("content", "cure"),
    [
        ("{", "not a schedule"),
        ([], "without --faults"),
        ([CRASH | {"fault": "crush"}], "crush"),
        ([CRASH | {"nodes": ["atlantis"]}], "atlantis"),
        ([CRASH | {"at_ms": -1}], "at_ms"),
        ([CRASH | {"at_ms": "soon"}], "at_ms"),
        ([CRASH | {"colour": "red"}], "colour"),
        ([CRASH | {"disk_from_ms": 101}], "disk_from_ms"),
    ],
)
def test_schedule_that_cannot_work_is_one_line(schedule, content, cure):
    result = CliRunner().invoke(app, [*QUICK, "--faults", str(schedule(content))])
    assert isinstance(result.exception, ConfigError)
    assert cure in str(result.exception)
    assert "\n" not in str(result.exception)


# -- what can't be meant -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        ("--seed 1 --seeds 3", "--seeds N"),
        ("--seed 1 --from 3", "--seeds N"),
        ("--from 3", "--seeds N"),
        ("--trace --seeds 3", "--seed S"),
        ("--trace --json", "stdout"),
        ("--trace --swarm", "--seed S"),
        ("--trace --swarm --seed 1", "--mode safety"),
        ("--only iad", "add --trace"),
        ("--trace --only atlantis", "atlantis"),
        ("--trace --only ,", "--only coordinator,fra"),
        ("--swarm --rate 3", "--rate"),
        ("--swarm --faults x", "--faults"),
        ("--mode safety", "add --swarm"),
        ("--resume x", "add --swarm"),
        ("--swarm --seed 1 --resume x", "--resume"),
        ("--faults x --crash 0.1", "schedule"),
        ("--faults /nowhere", "can't be read"),
        ("--pops 1", "give 2 to 10000"),
        ("--pops 10001", "give 2 to 10000"),
        ("--loss 1.5", "0.2"),
        ("--loss much", "0.2"),
        ("--loss nan", "0.2"),
        ("--swarm --loss 1.5", "0.2"),
        ("--jitter 3", "0 to 2"),
        ("--rate 0", "0.01 to"),
        ("--rate nan", "0.01 to"),
        ("--size 1", "8 to"),
        ("--warm-up -1", "0 to"),
        ("--crash 0", "above 0"),
        ("--crash half", "20%"),
        ("--pops 3 --crash 0.5 --cut 0.3", "left to judge"),
        ("--topology /nowhere", "can't be read"),
        ("--swarm --resume /nowhere/file", "can be written"),
    ],
)
def test_what_cannot_be_meant_is_one_line_with_its_cure(arguments, cure):
    result = CliRunner().invoke(app, arguments.split())
    assert isinstance(result.exception, ConfigError), result.output
    assert result.stdout == ""
    assert cure in str(result.exception)
    assert "\n" not in str(result.exception)


@pytest.mark.parametrize("arguments", ["--seed x", "--seeds 0", "--jobs 0", "--writes 0", "--mode chaos"])
def test_option_that_is_no_such_value_is_a_usage_error(arguments):
    run("--swarm", *arguments.split(), code=2)


def test_topology_of_one_pop_is_refused_with_the_cure(tmp_path):
    file = tmp_path / "one.yaml"
    pop = "{code: fra, city: Frankfurt, country: DE, lat: 50.03, lon: 8.57, region: europe}"
    file.write_text(f"name: one\ncoordinator: {{place: fra}}\npops:\n  - {pop}\n")
    result = CliRunner().invoke(app, ["--topology", str(file)])
    assert "give --pops N" in str(result.exception)
    assert told("--topology", file, *QUICK)["pops"] == 4


# -- parts ---------------------------------------------------------------------------------------------------


def test_work_comes_back_in_order_and_a_lost_process_is_named():
    assert list(in_order(abs, [-1, 2, -3], 2)) == [1, 2, 3]
    with pytest.raises(KvnetError, match="--jobs 1"):
        list(in_order(os._exit, [1, 1], 2))


def test_story_tells_of_the_faults_that_touch_its_node():
    known = {"fra", "nrt", "europe", "coordinator"}
    assert touches("** crash nodes=nrt,fra", ["fra", "europe"], known)
    assert touches("** cut senders=europe", ["fra", "europe"], known)
    assert touches("** loss loss=0.2", ["fra"], known)
    assert not touches("** crash nodes=nrt", ["fra", "europe"], known)
    names = ",".join(f"p{number}" for number in range(10))
    assert shortened(f"** crash nodes={names},fra", ["fra"]) == "** crash nodes=fra,p0,p1,p2,p3,p4,…5 more"
