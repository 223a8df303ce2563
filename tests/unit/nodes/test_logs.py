from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from nodes.logs import rotate


def test_writer_goes_on_in_the_emptied_log(tmp_path):
    log = tmp_path / "log"
    writer = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(writer, b"a" * 100)
    assert rotate(log, bytes_max=99)
    os.write(writer, b"new\n")
    os.close(writer)
    assert log.read_bytes() == b"new\n"
    assert (tmp_path / "log.1").read_bytes() == b"a" * 100


def test_log_within_its_bounds_or_absent_is_left_alone(tmp_path):
    log = tmp_path / "log"
    assert not rotate(log)
    log.write_bytes(b"a")
    assert not rotate(log, bytes_max=1)
    assert not (tmp_path / "log.1").exists()


def test_output_and_errors_of_a_process_end_in_its_log(tmp_path):
    program = (
        "import os, sys; from pathlib import Path; from nodes.files import write_to_log;"
        "write_to_log(Path(sys.argv[1])); print('out'); print('err', file=sys.stderr); os._exit(0)"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "log")], check=True, cwd=Path(__file__).parents[3]
    )
    assert (tmp_path / "log").read_text().splitlines() == ["out", "err"]
