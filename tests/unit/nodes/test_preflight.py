from __future__ import annotations

import os
import resource
import socket

import pytest
from msgspec.structs import replace

from kvnet.errors import ConfigError
from kvnet.topology.load import load
from kvnet.topology.schema import Topology
from nodes import preflight, procfs
from nodes.cluster import RunFolder
from nodes.preflight import (
    MIB,
    Finding,
    PortBlock,
    check_addresses,
    check_disk,
    check_files,
    check_memory,
    check_ports,
    check_room,
    require,
)


@pytest.fixture
def topology() -> Topology:
    return load("world-2018").with_pops(3).with_port_base(free_base())


def free_base() -> int:
    """A block that nobody has now; the claim of another test may still come first, and is then its test."""
    block = PortBlock.next_free(load("world-2018").with_pops(3).with_port_base(24_000))
    block.release()
    return block.topology.listen.port_base


def listen(port: int) -> socket.socket:
    ear = socket.socket()
    ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    ear.bind(("127.0.0.1", port))
    ear.listen()
    return ear


def test_taken_port_is_refused_naming_its_holder(topology):
    with listen(topology.port_of(topology.pops[1].code)) as ear:
        port = ear.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port} is taken by pid {os.getpid()} .*--port-base"):
            PortBlock.at(topology)
        assert not check_ports(topology).ok
    PortBlock.at(topology).release()


def test_next_free_block_passes_over_a_taken_one(topology):
    with listen(topology.port_of("coordinator")):
        block = PortBlock.next_free(topology)
    block.release()
    assert block.topology.listen.port_base >= topology.listen.port_base + preflight.BLOCK_STEP


def test_chosen_block_is_kept_from_other_launchers_before_a_node_listens(topology):
    block = PortBlock.at(topology)
    try:
        with pytest.raises(ConfigError, match="is taken"):
            PortBlock.at(topology)
    finally:
        block.release()


def test_block_of_a_running_network_is_refused_naming_its_node_and_not_its_claim(topology):
    block = PortBlock.at(topology)
    try:
        port = topology.port_of("coordinator")
        with listen(port), pytest.raises(ConfigError, match=rf"port {port} is taken by pid {os.getpid()}"):
            PortBlock.at(topology)
    finally:
        block.release()


def test_address_of_another_machine_is_refused(topology):
    with pytest.raises(ConfigError, match="not an address of this machine"):
        preflight.first_taken("192.0.2.1", [24_000])


def test_too_few_file_descriptors_name_the_number_needed(topology, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    finding = check_files(topology)
    assert not finding.ok
    assert "ulimit -n 110" in finding.detail


def test_machine_without_free_files_is_refused(topology, monkeypatch):
    monkeypatch.setattr(procfs, "files_free", lambda: 10)
    finding = check_files(topology)
    assert not finding.ok
    assert "fs.file-max" in finding.detail


def test_too_little_memory_and_disk_are_refused(topology, monkeypatch, tmp_path):
    monkeypatch.setattr(procfs, "memory_available_bytes", lambda: preflight.MIB)
    assert not check_memory(topology).ok
    assert check_disk(topology, tmp_path / "not" / "yet").ok
    monkeypatch.setattr(preflight, "DISK_PER_NODE_BYTES", 1 << 50)
    finding = check_disk(topology, tmp_path)
    assert not finding.ok
    assert "--data" in finding.detail


def put_data(folder, name, size):
    path = folder.node_folder(name) / "store" / "replica-1"
    path.mkdir(parents=True)
    (path / "data.mdb").write_bytes(b"x" * size)


def test_room_is_needed_for_every_pop_that_lacks_data_and_for_a_second_copy(topology, tmp_path):
    folder = RunFolder(tmp_path)
    assert check_room(topology, folder) is None
    put_data(folder, "coordinator", 8 * MIB)
    assert "32 MiB let" in check_room(topology, folder).detail  # three PoPs without any, and a copy
    put_data(folder, topology.pops[0].code, 2 * MIB)
    finding = check_room(topology, folder)
    assert finding.ok
    assert "12 MiB let" in finding.detail  # two PoPs with 2 MiB, and the coordinator's copy


def test_a_disk_without_room_for_the_replicas_names_the_cures(topology, tmp_path, monkeypatch):
    class Disk:
        free = MIB

    folder = RunFolder(tmp_path)
    put_data(folder, "coordinator", 8 * MIB)
    monkeypatch.setattr("shutil.disk_usage", lambda path: Disk)
    finding = check_room(topology, folder)
    assert not finding.ok
    assert "kvnet compact" in finding.detail


def test_maps_that_no_process_can_have_name_the_knob(topology):
    assert check_addresses(topology).ok
    huge = replace(topology, storage=replace(topology.storage, map_size_gib=1 << 20))
    finding = check_addresses(huge)
    assert not finding.ok
    assert "storage.map_size_gib" in finding.detail


def test_first_thing_missing_is_the_error():
    with pytest.raises(ConfigError, match="disk: full"):
        require([Finding("memory", ok=True, detail="fine"), Finding("disk", ok=False, detail="full")])


def test_process_is_measured():
    assert procfs.pss_bytes(os.getpid()) > 1024 * 1024
    assert procfs.cpu_seconds(os.getpid()) > 0
    assert procfs.memory_available_bytes() > 0
    assert procfs.pss_bytes(2**22 + 1) is None
    assert procfs.cpu_seconds(2**22 + 1) is None
