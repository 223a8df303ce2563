from __future__ import annotations

import socket

import pytest

from kvnet.errors import ConfigError
from kvnet.workers.sockets import PORT_BASE, PORT_LIMIT, close, listen

OFFSETS = {"iad": 0, "nrt": 3}


def port_of(listener):
    return listener.getsockname()[1]


def test_each_pop_has_its_place_in_the_block():
    first = listen(OFFSETS, None)
    second = listen(OFFSETS, None)
    try:
        for found in (first, second):
            assert port_of(found["nrt"]) - port_of(found["iad"]) == 3
            assert PORT_BASE <= port_of(found["iad"]) < PORT_LIMIT
        assert port_of(first["iad"]) != port_of(second["iad"])
        with socket.create_connection(("127.0.0.1", port_of(second["nrt"]))):
            pass
    finally:
        close(first)
        close(second)


def test_a_port_that_is_taken_is_named_and_the_others_are_let_go():
    found = listen(OFFSETS, None)
    base = port_of(found["iad"])
    close({"iad": found.pop("iad")})
    try:
        with pytest.raises(ConfigError, match=f"port {base + 3} is taken by pid .*--port-base"):
            listen(OFFSETS, base)
        close(listen({"iad": 0}, base))
    finally:
        close(found)


@pytest.mark.parametrize("base", [0, -5, 65_533])
def test_a_block_that_does_not_exist_is_refused(base):
    with pytest.raises(ConfigError, match="--port-base"):
        listen(OFFSETS, base)
