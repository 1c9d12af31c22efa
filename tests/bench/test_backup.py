"""The measurement of what a backup costs, on a small database."""

from __future__ import annotations

import math
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest

from bench import backup
from tests.daemon import environment
from tests.fork_server import ForkedProcess


def test_latencies_are_summed_up() -> None:
    latencies = [number / 1000 for number in range(1, 101)]
    found = backup.summary(latencies, 10)
    assert (found.p50, found.p99, found.most, found.rate) == (51, 100, 100, 10)


@pytest.mark.usefixtures("forked_servers")
def test_sends_are_measured_with_copies_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backup, "WARM_UP_SECONDS", 0.1)
    monkeypatch.setattr(backup, "MAX_GROWTH", math.inf)
    monkeypatch.setattr(backup, "SENDERS", 2)
    arguments = ["--messages=200", "--rounds=1", "--seconds=0.3", f"--folder={tmp_path}"]
    monkeypatch.setattr("sys.argv", ["backup", *arguments])

    def copy(command: Sequence[str], stdout: IO[bytes]) -> ForkedProcess:
        return ForkedProcess(command[1:], cwd=tmp_path, env=environment(), stdout=stdout)

    with open(os.devnull, "wb") as nothing:
        names = {**vars(subprocess), "Popen": copy, "DEVNULL": nothing}
        monkeypatch.setattr(backup, "subprocess", SimpleNamespace(**names))
        assert backup.main() == 0
    output = capsys.readouterr().out
    assert "p99 with copies: " in output
    assert re.search(r"^[1-9][0-9]* copies$", output, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []
