"""The measurement of what a backup costs, on a small database."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import backup


def test_latencies_are_summed_up() -> None:
    latencies = [number / 1000 for number in range(1, 101)]
    found = backup.summary(latencies, 10)
    assert (found.p50, found.p99, found.most, found.rate) == (51, 100, 100, 10)


@pytest.mark.usefixtures("forked_servers")
def test_sends_are_measured_with_copies_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backup, "WARM_UP_SECONDS", 0.1)
    monkeypatch.setattr(backup, "MAX_GROWTH", 1000)
    arguments = ["--messages=200", "--rounds=1", "--seconds=0.3", f"--folder={tmp_path}"]
    monkeypatch.setattr("sys.argv", ["backup", *arguments])
    assert backup.main() == 0
    output = capsys.readouterr().out
    assert "p99 with copies: " in output
    assert "1 copies" in output
    assert list(tmp_path.iterdir()) == []
