import json
from collections import Counter

import pytest

from bench import convergence, network
from bench._support.load import WriteLoad
from bench._support.monitor_client import _all_heard
from kvnet.errors import ConfigError


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--writes", "0"], "at least 1"),
        (["--writes", "many"], "whole number"),
        (["--rate", "0"], "above 0"),
        (["--rate", "nan"], "above 0"),
        (["--loss", "1"], "below 1"),
        (["--loss", "lots"], "fraction"),
        (["--rate", "100", "--keys", "50"], "at least 200"),
        (["--json", "no/such/folder/x.json"], "create it first"),
        (["--attach"], "needs --data"),
        (["--attach", "--data", "run", "--pops", "5"], "leave out --pops"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_a_wrong_option_names_the_cure_and_exits_with_2(arguments, told, capsys):
    with pytest.raises(SystemExit) as end:
        convergence.parse(arguments)
    assert end.value.code == 2
    assert told in capsys.readouterr().err


def test_the_network_benchmark_refuses_wrong_options_too(capsys):
    with pytest.raises(SystemExit) as end:
        network.parse(["--seconds", "-1"])
    assert end.value.code == 2
    assert "above 0" in capsys.readouterr().err


def test_loss_is_a_fraction_or_a_percentage():
    assert convergence.parse(["--loss", "20%"]).loss == convergence.parse(["--loss", "0.2"]).loss == 0.2


def test_keys_are_enough_for_the_rate_unless_told_otherwise():
    assert convergence.parse(["--rate", "30"]).keys == 900
    assert convergence.parse(["--rate", "30", "--writes", "20", "--keys", "20"]).keys == 20


def test_attaching_to_a_folder_without_a_network_is_a_usage_error(tmp_path, capsys):
    assert convergence.main(["--attach", "--data", str(tmp_path)]) == 2
    assert "kvnet up" in capsys.readouterr().err


def test_a_plot_without_matplotlib_is_refused_before_anything_starts(monkeypatch, capsys):
    def missing():
        raise ConfigError("--plot needs matplotlib: pip install 'kvnet[bench]'")

    monkeypatch.setattr(convergence, "require_matplotlib", missing)
    assert convergence.main(["--plot", "x.svg"]) == 2
    assert "kvnet[bench]" in capsys.readouterr().err


@pytest.mark.parametrize("value_bytes", [1, 2, 9, 100])
def test_no_write_repeats_the_value_its_key_has(value_bytes):
    load = WriteLoad(writes=2000, rate=1.0, keys=3, value_bytes=value_bytes)
    held = {}
    for number in range(load.writes):
        key, value = load.key(number), load.value(number)
        assert len(value) == value_bytes
        assert held.get(key) != value
        held[key] = value
    assert len(held) == 3


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, 0),
        ({"violations": 1}, 3),
        ({"violations": 1, "failures": {"500": 1}}, 3),
        ({"failures": {"429": 2}}, 1),
        ({"pending": 4}, 1),
        ({"acknowledged": 11}, 1),
        ({"replicas_equal": 2}, 1),
    ],
)
def test_the_exit_code_tells_the_verdict(change, code):
    result = {"violations": 0, "failures": {}, "pending": 0, "writes": 10, "acknowledged": 10}
    result |= {"pops": 3, "replicas_equal": 3}
    assert convergence.exit_code(result | change) == code


def test_feeds_of_pops_that_are_down_are_not_waited_for():
    report = {
        "coordinator_heard_ms": 10.0,
        "per_pop": {
            "fra": {"connected_since_ms": 1.0, "heard_ms": 10.0},
            "nrt": {"connected_since_ms": None, "heard_ms": None},
        },
    }
    assert _all_heard(report, 9.0)
    assert not _all_heard(report, 10.0)


def test_the_result_is_json_and_a_table_whatever_was_measured(capsys):
    result = dict.fromkeys(convergence.REPORTED) | {
        "pops": 3,
        "writes": 0,
        "pending": 2,
        "bound_ms": 10_000,
        "loss": 0.05,
        "rate": 20.0,
        "violations": 2,
        "formed_ms": None,
        "failures": dict(Counter({"429 too [many] requests": 7})),
        "answer_p50_ms": None,
        "answer_p99_ms": None,
        "cpu_cores": {"all": 0.5},
        "replicas_equal": 2,
        "slowest": [["nrt", None]],
    }
    violation = {"write": "1-5", "writes": 1, "pop": "nrt", "lag_ms": 12_000.0, "why": "not arrived"}
    convergence.print_result(json.loads(json.dumps(result)), {"violations": [violation]})
    told = capsys.readouterr().out
    assert "7 writes failed: 429 too [many] requests" in told
    assert "2 writes were not at all PoPs" in told
    assert "1-5 at nrt: 12000 ms, not arrived" in told
