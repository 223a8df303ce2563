"""Whatever a file holds, the loader answers with a topology or with one line that names the file."""

import re

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kvnet.errors import ConfigError
from kvnet.timers import Timers
from kvnet.topology.geography import find_place
from kvnet.topology.load import dump_yaml, load, parse

WORLD = load("world-2018")
FILE = dump_yaml(
    replace(
        WORLD.with_pops(3),
        wan=replace(WORLD.wan, matrix={"iad": {"per": 1.5}}, bandwidth_mbps=8.0),
        timers=Timers(late_intervals=3.0),
    )
)
yaml_text = st.text("abc: -[]{}&*!|>'\"%@`#,?~0123.\n\t\ufeff\u00e9<", max_size=80)
places = st.integers(0, len(FILE))


def read(text: str) -> None:
    complaint = ""
    try:
        topology = parse(text, "t.yaml")
    except ConfigError as error:
        complaint = str(error)
    if complaint:
        assert re.fullmatch(r"t\.yaml:\d+: [^\n]+", complaint), complaint
    else:
        assert parse(dump_yaml(topology)) == topology


@given(yaml_text)
def test_any_text_is_answered(text):
    read(text)


@given(places, places, yaml_text)
def test_any_damage_to_a_file_is_answered(start, end, inserted):
    start, end = sorted((start, end))
    read(FILE[:start] + inserted + FILE[end:])


@given(places, st.sampled_from(["null", "[]", "{}", "NO", "1e999", "-1", "'x'", "&a", "*a", "!!set", "<<: "]))
def test_any_foreign_word_in_a_file_is_answered(start, word):
    boundary = FILE.find(" ", start) + 1
    end = FILE.find(",", boundary)
    read(FILE[:boundary] + word + (FILE[end:] if end >= 0 else ""))


@given(st.text(max_size=30))
def test_any_place_is_answered(text):
    complaint, lat, lon = "", 0.0, 0.0
    try:
        lat, lon = find_place(text, WORLD.pops)
    except ConfigError as error:
        complaint = str(error)
    assert len(complaint.splitlines()) <= 1
    assert -90 <= lat <= 90
    assert -180 <= lon <= 180


@given(st.sampled_from(WORLD.pops))
def test_every_pop_is_found_by_its_city_and_its_code(pop):
    assert find_place(pop.code.upper(), WORLD.pops) == pop.place
    assert find_place(pop.city, WORLD.pops) == pop.place


@given(st.integers(1, 152))
def test_any_part_of_the_world_is_a_working_file(count):
    part = WORLD.with_pops(count)
    assert len(part.pops) == count
    assert part.coordinator.place in {pop.code for pop in part.pops}
    assert parse(dump_yaml(part)) == part
