"""Server processes, as the benchmark looks at them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bench.processes import (
    Cores,
    ServerProcess,
    StartFailed,
    cpu_seconds,
    family,
    free_port,
    resident_bytes,
)


def test_server_and_generator_get_separate_cores() -> None:
    assert Cores([5, 3, 9]).pinned(["server"]) == ["taskset", "--cpu-list", "3", "server"]
    assert Cores([5, 3]).generator == 5
    assert Cores([0]).pinned(["server"]) == ["server"]


def test_a_process_is_measured_with_its_children() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        assert {os.getpid(), child.pid} <= set(family(os.getpid()))
        child.kill()
    assert cpu_seconds(os.getpid()) > 0
    assert resident_bytes(os.getpid()) > 1 << 20


def test_a_server_that_does_not_listen_reports_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such option')"]
    with pytest.raises(StartFailed, match="no such option"):
        ServerProcess(command, ("127.0.0.1", free_port()), tmp_path)


def test_free_ports_are_consecutive_and_outside_the_ephemeral_range() -> None:
    first = free_port(3)
    listening = [socket.create_server(("127.0.0.1", first + offset)) for offset in range(3)]
    with socket.create_connection(listening[0].getsockname()) as outgoing:
        assert outgoing.getsockname()[1] > first + 2
    for each in listening:
        each.close()
