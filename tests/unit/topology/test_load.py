import pytest

from kvnet.errors import ConfigError
from kvnet.topology.load import SHIPPED, dump_yaml, generate, load, parse

PLAIN = """\
name: two
coordinator: {place: iad}
pops:
  - {code: iad, city: Ashburn, country: US, lat: 38.9, lon: -77.5, region: north-america}
  - {code: osl, city: Oslo, country: NO, lat: 60.2, lon: 11.1, region: europe}
"""

ONE_WAY = "wan: {profile: matrix, matrix: {iad: {osl: 90}}}"

BAD = {
    "empty": ("", "1: the file is empty; `kvnet topology gen` writes one to start from"),
    "not YAML": ("a: [", "2: not YAML (did not find expected node content); check indents, brackets and quotes"),
    "control character": (
        "a: \x01",
        (
            "1: not YAML (unacceptable character #x0001: control characters are not allowed); "
            "save the file as plain UTF-8 text"
        ),
    ),
    "bottomless": ("[" * 100_000, "1: nested deeper than 20 levels; close the brackets"),
    "two documents": (
        "a: 1\n---\nb: 2",
        "2: not YAML (but found another document); check indents, brackets and quotes",
    ),
    "a list": ("- a", "1: a list is not a mapping; write `name: value` pairs"),
    "key that is no name": ("{a: b}: 1", "1: a mapping is not a name; write `name: value` pairs"),
    "missing section": ("name: x", "1: coordinator: is missing; write {place: …}"),
    "unknown section": (PLAIN + "wam: {}", "6: wam: unknown field; did you mean wan?"),
    "unknown field": (
        PLAIN + "listen: {address: 127.0.0.1}",
        "6: listen.address: unknown field; the fields are host, port_base",
    ),
    "duplicate key": (PLAIN + "name: again", "6: name: is already on line 1; remove one"),
    "scalar for a mapping": (PLAIN + "wan: 3", "6: wan: 3 is not a mapping; write `name: value` pairs"),
    "mapping for a list": (
        "name: x\ncoordinator: {place: iad}\npops: {}",
        "3: pops: a mapping is not a list; write one `- ` line for each",
    ),
    "no PoPs": (
        "name: x\ncoordinator: {place: iad}\npops: []",
        "3: pops: is empty; write at least 1",
    ),
    "latitude": (
        PLAIN.replace("lat: 60.2", "lat: 123"),
        "5: pops[1].lat: 123.0 is not between -90 and 90; write degrees north",
    ),
    "missing latitude": (
        PLAIN.replace("lat: 60.2, ", ""),
        "5: pops[1].lat: is missing; write degrees north",
    ),
    "not a number": (
        PLAIN.replace("60.2", "north"),
        "5: pops[1].lat: 'north' is not a number; write degrees north",
    ),
    "list for a number": (
        PLAIN.replace("60.2", "[60.2]"),
        "5: pops[1].lat: a list is not a number; write degrees north",
    ),
    "quoted number": (
        PLAIN + "wan: {loss: '0.1'}",
        (
            "6: wan.loss: '0.1' is text, not a number; write the fraction of packets lost, such as 0.05 for 5 %, "
            "without quotes"
        ),
    ),
    "not finite": (
        PLAIN + "wan: {bandwidth_mbps: inf}",
        "6: wan.bandwidth_mbps: 'inf' is not a number; write megabits per second, or null for no limit",
    ),
    "no bandwidth": (
        PLAIN + "wan: {bandwidth_mbps: 0}",
        "6: wan.bandwidth_mbps: 0.0 is not above 0; write megabits per second, or null for no limit",
    ),
    "all packets lost": (
        PLAIN + "wan: {loss: 1}",
        "6: wan.loss: 1.0 is not at least 0 and below 1; write the fraction of packets lost, such as 0.05 for 5 %",
    ),
    "not whole": (
        PLAIN + "timers:\n  beacon_interval_ms: 1.5",
        "7: timers.beacon_interval_ms: 1.5 is not a whole number; write whole milliseconds",
    ),
    "number for text": (
        PLAIN.replace("Oslo", "1048"),
        "5: pops[1].city: 1048 is a number, not text; write the city's name, in quotes if it has only digits",
    ),
    "null for text": (PLAIN.replace("Oslo", "~"), "5: pops[1].city: null is not text; write the city's name"),
    "country": (
        PLAIN.replace("US", "usa"),
        "4: pops[0].country: 'usa' won't do; write the two capital letters of ISO 3166, such as DE",
    ),
    "upper-case code": (
        PLAIN.replace("code: osl", "code: OSL"),
        "5: pops[1].code: 'OSL' won't do; write a short lower-case code, such as the airport's: fra",
    ),
    "region": (
        PLAIN.replace("region: europe", "region: eurpoe"),
        (
            "5: pops[1].region: 'eurpoe' is none of the choices; did you mean europe? "
            "write one of africa, asia, europe, latin-america, middle-east, north-america, oceania"
        ),
    ),
    "profile": (
        PLAIN + "limits: {profile: x}",
        "6: limits.profile: 'x' is none of the choices; write one of workers-kv, workers-kv-2018",
    ),
    "assumed": (
        PLAIN.replace("europe}", "europe, assumed: maybe}"),
        "5: pops[1].assumed: 'maybe' is neither true nor false; write one of them, without quotes",
    ),
    "url with a path": (
        PLAIN.replace("europe}", "europe, url: 'http://osl/'}"),
        (
            "5: pops[1].url: 'http://osl/' won't do; write scheme, host and port without a path, "
            "such as http://10.0.0.7:21000"
        ),
    ),
    "duplicate code": (
        PLAIN.replace("osl", "iad"),
        "5: pops[1].code: 'iad' is already the code of pops[0]; give each PoP its own",
    ),
    "reserved code": (
        PLAIN.replace("osl", "monitor"),
        "5: pops[1].code: 'monitor' is the name of another node; give the PoP a code of its own",
    ),
    "coordinator nowhere": (
        PLAIN.replace("place: iad", "place: oslo"),
        "2: coordinator.place: no PoP is called 'oslo': did you mean osl?",
    ),
    "ports too high": (
        PLAIN + "listen: {port_base: 32760}",
        "6: listen.port_base: 2 PoPs don't fit from 32760; write 1024 to 32756",
    ),
    "colliding url": (
        PLAIN.replace("north-america}", "north-america, url: 'http://127.0.0.1:21011'}"),
        "4: pops[0].url: http://127.0.0.1:21011 is already the address of osl; give each node its own",
    ),
    "no matrix": (
        PLAIN + "wan: {profile: matrix}",
        "6: wan.matrix: is missing, and the profile is `matrix`; write the round trips, or take `internet`",
    ),
    "one direction only": (
        PLAIN + ONE_WAY,
        "6: wan.matrix.osl.iad: is missing; write the round trip from osl to iad in milliseconds",
    ),
    "unknown sender": (
        PLAIN + "wan:\n  matrix:\n    oslo: {iad: 90}",
        "8: wan.matrix.oslo: no PoP is called 'oslo': did you mean osl?",
    ),
    "unknown receiver": (
        PLAIN + "wan:\n  matrix:\n    iad: {oslo: 90}",
        "8: wan.matrix.iad.oslo: no PoP is called 'oslo': did you mean osl?",
    ),
    "negative round trip": (
        PLAIN + ONE_WAY.replace("90", "-1"),
        "6: wan.matrix.iad.osl: -1.0 is not between 0 and 60000; write the round trip in milliseconds",
    ),
    "limit out of range": (
        PLAIN + "limits:\n  key_bytes_max: 5000",
        "7: limits.key_bytes_max: limit key_bytes_max must be between 1 and 2048",
    ),
    "busy beacons slower": (
        PLAIN + "timers: {beacon_interval_busy_ms: 900}",
        "6: timers.beacon_interval_busy_ms: is above beacon_interval_ms; write 500 or less",
    ),
    "bound too short": (
        PLAIN + "timers: {bound_ms: 950}",
        "6: timers.bound_ms: 950 ends before a silent parent is noticed; write more than 1000",
    ),
    "wait beyond the bound": (
        PLAIN + "timers: {visibility_wait_ms: 10000}",
        "6: timers.visibility_wait_ms: 10000 is not below bound_ms; write less than 10000",
    ),
}


@pytest.mark.parametrize(("text", "complaint"), BAD.values(), ids=list(BAD))
def test_a_file_that_cannot_work_names_line_field_and_cure(text, complaint):
    with pytest.raises(ConfigError) as caught:
        parse(text, "topology.yaml")
    assert str(caught.value) == f"topology.yaml:{complaint}"


def test_norway_is_a_country_and_exponents_are_numbers():
    """YAML 1.1 reads `NO` as false and `1e-3` as text."""
    topology = parse(PLAIN + "wan: {loss: 1e-3}")
    assert topology.pop("osl").country == "NO"
    assert topology.wan.loss == 0.001


def test_a_missing_file_is_named_with_what_else_there_is(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: can't be read \(No such file.*world-2018, world-2026"):
        load(tmp_path / "none.yaml")


def test_a_folder_is_no_topology(tmp_path):
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "t.yaml").write_bytes(b"name: \xff")
    with pytest.raises(ConfigError, match=r"t\.yaml: not UTF-8 text \(byte 6\); save it as UTF-8"):
        load(tmp_path / "t.yaml")


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path):
    (tmp_path / "t.yaml").write_bytes(b"\xef\xbb\xbf" + PLAIN.encode())
    assert load(tmp_path / "t.yaml") == parse(PLAIN)


def test_without_a_name_the_working_folder_goes_before_the_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load().name == "world-2018"
    (tmp_path / "topology.yaml").write_text(PLAIN)
    assert load().name == "two"
    assert load("world-2018").name == "world-2018"


def test_the_wheels_copy_goes_before_the_checkouts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "topology.yaml").write_text(PLAIN)
    monkeypatch.setattr("kvnet.topology.load.DATA", tmp_path / "data")
    assert load().name == "two"


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_dumped_is_read_back(name):
    topology = load(name).with_loss(0.2).with_limits("workers-kv", {"ttl_seconds_min": 1})
    assert parse(dump_yaml(topology)) == topology


def test_a_dump_keeps_matrix_urls_and_timers():
    topology = parse(
        PLAIN.replace("europe}", "europe, url: 'https://osl.example', assumed: true}")
        + "wan: {profile: matrix, bandwidth_mbps: 10, matrix: {iad: {osl: 90}, osl: {iad: 95.5}}}\n"
        + "timers: {late_intervals: 3}\nmonitor: {url: 'http://10.0.0.1:80'}\n"
    )
    assert parse(dump_yaml(topology)) == topology


def test_a_dump_has_one_line_for_each_pop():
    lines = dump_yaml(load("world-2018")).splitlines()
    assert sum(line.startswith("  - {code: ") for line in lines) == 152


def test_a_generated_network_has_a_name_of_its_own():
    topology = generate(load("world-2018"), 20)
    assert topology.name == "world-2018-20"
    assert len(topology.pops) == 20
    assert parse(dump_yaml(topology)) == topology
