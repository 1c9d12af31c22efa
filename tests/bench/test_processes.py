"""Server processes of the benchmark."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bench.processes import (
    Cores,
    ServerProcess,
    StartError,
    cpu_seconds,
    free_port,
    process_tree,
    resident_bytes,
)


def test_servers_and_generator_get_a_core_each_if_there_are_two() -> None:
    assert Cores([5, 3, 9]).pinned(["server"]) == ["taskset", "--cpu-list", "3", "server"]
    assert Cores([5, 3]).generator == 5
    assert Cores([0]).pinned(["server"]) == ["server"]


def test_usage_includes_child_processes() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        assert {os.getpid(), child.pid} <= set(process_tree(os.getpid()))
        child.kill()
    assert cpu_seconds(os.getpid()) > 0
    assert resident_bytes(os.getpid()) > 1 << 20


def test_a_server_that_does_not_listen_raises_with_its_output(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such option')"]
    with pytest.raises(StartError, match="no such option"):
        ServerProcess(command, ("127.0.0.1", free_port()), tmp_path)


def test_a_free_port_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_port(2)
    found = iter([first, first + 1, free_port()])
    monkeypatch.setattr("bench.processes.random.randrange", lambda *_: next(found))
    monkeypatch.setattr("bench.processes.PORT_TRIES", 3)
    script = f"import bench.processes; print(bench.processes._reserve({first}))"
    with pytest.raises(StartError):
        free_port()
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "False\n"


def test_free_ports_are_consecutive_and_not_ephemeral() -> None:
    first = free_port(3)
    listening = [socket.create_server(("127.0.0.1", first + offset)) for offset in range(3)]
    with socket.create_connection(listening[0].getsockname()) as outgoing:
        assert outgoing.getsockname()[1] > first + 2
    for each in listening:
        each.close()
