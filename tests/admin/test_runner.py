"""How commands for administrators end."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from chatd.admin import runner
from chatd.admin.printing import print_json, print_table
from chatd.cli.parser import parser
from chatd.config import load
from chatd.maintenance import MaintenanceError
from tests.doubles import new_database, result_of


def run_failing(monkeypatch: pytest.MonkeyPatch, error: Exception, *arguments: str) -> SystemExit:
    """Run a command that fails in this way; returns how it ends."""

    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setitem(runner.COMMANDS, ("db", "status"), fail)
    args = parser().parse_args(["db", "status", *arguments])
    running = Deferred.fromCoroutine(runner._run(args, load({}, {})[0], None))
    with pytest.raises(SystemExit) as ends:
        result_of(running)
    return ends.value


@pytest.fixture
def output() -> Iterator[io.TextIOWrapper]:
    """A standard output with a descriptor, which cannot have all characters."""
    reading, writing = os.pipe()
    with open(reading, "rb"), open(writing, "w", encoding="ascii") as output:
        yield output


def test_a_full_disk_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, output: io.TextIOWrapper
) -> None:
    monkeypatch.setattr(sys, "stdout", output)
    ends = run_failing(monkeypatch, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert ends.args == (1,)
    assert capsys.readouterr().err == "chatd: [Errno 28] No space left on device\n"
    output.write("not lost twice")
    output.flush()


def test_the_settings_are_asked_for_if_none_were_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = MaintenanceError("there is no database chatd.db")
    for name in ("CHATD_CONFIG", "CHATD_DB"):
        monkeypatch.delenv(name, raising=False)
    run_failing(monkeypatch, error)
    hint = "; or name the daemon's settings by --config FILE or CHATD_CONFIG"
    assert capsys.readouterr().err == f"chatd: {error}{hint}\n"
    run_failing(monkeypatch, error, "--db", "sqlite:chatd.db")
    run_failing(monkeypatch, MaintenanceError("another"))
    monkeypatch.setenv("CHATD_CONFIG", "chatd.toml")
    run_failing(monkeypatch, error)
    assert hint not in capsys.readouterr().err


def test_a_command_that_is_terminated_undoes_what_it_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "chatd.db"
    database.write_bytes(new_database())
    monkeypatch.setattr("time.sleep", lambda _: signal.raise_signal(signal.SIGTERM))
    before = signal.signal(signal.SIGTERM, runner.terminate)
    try:
        target = tmp_path / "copy"
        args = parser().parse_args(["db", "backup", str(target)])
        settings, _ = load({"db": f"sqlite:{database}"}, {})
        with pytest.raises(SystemExit) as ends:
            result_of(Deferred.fromCoroutine(runner._run(args, settings, None)))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ends.value.code == 143
    assert {entry.name for entry in tmp_path.iterdir()} <= {"chatd.db", "chatd.db-wal"}


def test_what_the_locale_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    runner.escape_output()
    print_json({"email": "zo\u00eb@example.org"})
    print_table(["EMAIL"], [["zo\u00eb"]])
    sys.stdout.flush()
    assert written.getvalue() == b'{"email": "zo\\u00eb@example.org"}\nEMAIL\nzo\\xeb\n'
