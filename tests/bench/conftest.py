"""Fixtures of the tests of benchmarks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest

from bench import processes
from tests.daemon import TWISTD
from tests.fork_server import ForkedProcess


@pytest.fixture
def forked_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that are Python programs come from the fork server, which starts them sooner."""

    def start(
        command: Sequence[str],
        *,
        cwd: Path,
        stdin: int,
        stdout: IO[bytes],
        stderr: IO[bytes],
        env: Mapping[str, str],
    ) -> subprocess.Popen[bytes] | ForkedProcess:
        if command[0] not in (sys.executable, str(TWISTD)):
            return subprocess.Popen(
                command, cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr, env=env
            )
        program = command[1:] if command[0] == sys.executable else command
        return ForkedProcess(program, cwd=cwd, env=env, stdout=stdout, stderr=stderr)

    names = {**vars(subprocess), "Popen": start}
    monkeypatch.setattr(processes, "subprocess", SimpleNamespace(**names))
