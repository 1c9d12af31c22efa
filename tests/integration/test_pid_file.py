"""twistd's pid file and exit status when the daemon cannot start."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.daemon import ROOT, TWISTD, environment
from tests.fork_server import completed

TAC = str(ROOT / "chatd.tac")

BROKEN = "sqlite:/nonexistent/chatd.db"
"""A database that fails before the reactor runs."""
UNREACHABLE = "postgresql://nobody@127.0.0.1:1/chatd"
"""A database that fails while the reactor runs."""


def twistd(folder: Path, *arguments: str, db: str) -> subprocess.CompletedProcess[str]:
    """twistd with its default pid file, run to its end."""
    return completed(
        [str(TWISTD), *arguments],
        cwd=folder,
        env=environment(CHATD_DB=db, CHATD_LISTEN="tcp:0:interface=127.0.0.1"),
        merged=True,
    )


@pytest.mark.parametrize("db", [BROKEN, UNREACHABLE])
@pytest.mark.parametrize("how", [["--python", TAC], ["chatd"]], ids=["tac", "plugin"])
def test_a_start_that_fails_leaves_no_pid_file(tmp_path: Path, how: list[str], db: str) -> None:
    done = twistd(tmp_path, "--nodaemon", *how, db=db)
    assert done.returncode == 1
    assert done.stdout.count("chatd cannot start: ") == 1
    assert "Traceback" not in done.stdout
    assert not (tmp_path / "twistd.pid").exists()


def test_a_daemonized_start_that_fails_is_reported_to_the_shell(tmp_path: Path) -> None:
    done = twistd(tmp_path, "--python", TAC, db=BROKEN)
    assert done.returncode == 1
    assert "An error has occurred" in done.stdout
    assert "chatd cannot start: " in (tmp_path / "twistd.log").read_text()
    # The parent may exit a moment before the daemon has ended.
    ends = time.monotonic() + 10
    while (tmp_path / "twistd.pid").exists():
        assert time.monotonic() < ends
        time.sleep(0.05)
