"""The formats of the log, its levels, and its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import LogEvent, LogLevel
from twisted.python.failure import Failure

from chatd.process.log_limits import MAX_LINES, WINDOW_SECONDS
from chatd.process.logs import LEVELS, DaemonLog, LogOutput, event_of, json_line, text_line
from tests.doubles import logged


def event(level: str = "info", namespace: str = "chatd.x", **given: Any) -> LogEvent:
    return {
        "log_time": 1_767_225_600.5,
        "log_level": LogLevel.levelWithName(level),
        "log_namespace": namespace,
        "log_format": "{what} happened",
        "what": "it",
        **given,
    }


class Lines:
    """An output that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.write = self.lines.append


def log(level: str, as_json: bool = False) -> tuple[DaemonLog, list[str]]:
    output: Any = Lines()
    return DaemonLog(output, level=level, as_json=as_json), output.lines


def test_a_line_of_text_is_as_twistd_writes_it() -> None:
    line = text_line(event())
    assert line is not None
    assert line.endswith(" [chatd.x#info] it happened\n")


def test_a_line_of_json_has_the_parameters_of_the_message() -> None:
    line = json_line(event(number=7, day=object(), time="never", log_source=object()))
    assert line.endswith("}\n")
    assert json.loads(line) == {
        "time": "2026-01-01T00:00:00.500000Z",
        "level": "info",
        "logger": "chatd.x",
        "message": "it happened",
        "what": "it",
        "number": 7,
    }


def test_what_libraries_log_has_no_members_of_its_own() -> None:
    assert "what" not in json.loads(json_line(event(namespace="twisted.x")))


def test_a_traceback_is_a_member_of_its_line() -> None:
    try:
        raise ZeroDivisionError("oops")
    except ZeroDivisionError:
        line = json_line(event("critical", log_failure=Failure()))
    record = json.loads(line)
    assert record["message"] == "it happened"
    assert record["traceback"].startswith("Traceback")
    assert record["traceback"].endswith("ZeroDivisionError: oops")


def test_a_flood_of_one_kind_is_counted_in_a_line() -> None:
    observer, lines = log("info")
    for _ in range(MAX_LINES + 5):
        observer(event("error"))
    assert len(lines) == MAX_LINES
    observer(event("info", log_time=1_767_225_600.5 + WINDOW_SECONDS))
    assert len(lines) == MAX_LINES + 2
    assert "5 more lines were left out of chatd.x: {what} happened" in lines[-2]


@pytest.mark.parametrize("least", LEVELS)
def test_events_below_the_level_are_left_out(least: str) -> None:
    observer, lines = log(least)
    for level in LEVELS:
        observer(event(level))
    assert len(lines) == len(LEVELS) - list(LEVELS).index(least)
    observer.set_level("error")
    observer(event("warn"))
    observer(event("critical"))
    assert len(lines) == len(LEVELS) - list(LEVELS).index(least) + 1


def test_libraries_are_heard_from_warnings_on_or_at_debug() -> None:
    noise = "Server starting on 8080"
    for level, expected in (("info", 0), ("debug", 1)):
        observer, lines = log(level)
        observer(event(namespace="log_legacy", log_format=noise))
        assert len(lines) == expected
        observer(event("warn", namespace="log_legacy"))
        assert len(lines) == expected + 1


def test_an_event_without_level_or_text_does_no_harm() -> None:
    observer, lines = log("info")
    observer({"log_namespace": "chatd.x"})
    observer({})
    assert lines == []
    json.loads(json_line({}))


@pytest.mark.parametrize("failed", [False, True])
def test_the_event_of_a_worker_survives_its_line(failed: bool) -> None:
    given = event("error", number=7)
    if failed:
        given["log_failure"] = Failure(OSError("no"))
    passed = event_of(json_line(given), 3)
    assert passed is not None
    assert (passed["log_time"], passed["log_level"]) == (given["log_time"], LogLevel.error)
    record = json.loads(json_line(passed))
    assert record.pop("worker") == 3
    assert record == json.loads(json_line(given)) | {"message": record["message"]}
    assert record["message"].startswith("it happened")
    text = text_line(passed)
    assert text is not None
    assert "[chatd.x#error, worker 3] it happened" in text
    assert ("OSError: no" in text) is failed


@pytest.mark.parametrize("line", ["", "x", "{}", "1", '{"level": "x", "time": "y"}', "null"])
def test_other_lines_are_no_events(line: str) -> None:
    assert event_of(line, 1) is None


def test_a_file_that_was_moved_away_is_reopened(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    output = LogOutput(str(path))
    output.write("one\n")
    path.rename(tmp_path / "old")
    output.write("two\n")
    output.reopen()
    output.write("three \udcff\n")
    output.close()
    assert (tmp_path / "old").read_text() == "before\none\ntwo\n"
    assert path.read_text() == "three \\udcff\n"


def test_a_file_that_cannot_be_reopened_is_written_to_further(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    output = LogOutput(str(folder / "log"))
    folder.rename(tmp_path / "moved")
    [line] = logged(output.reopen)
    assert line.startswith("the log cannot be reopened: ")
    output.write("still\n")
    output.close()
    assert (tmp_path / "moved" / "log").read_text() == "still\n"


def test_standard_output_is_not_reopened(capfd: pytest.CaptureFixture[str]) -> None:
    output = LogOutput(None)
    output.reopen()
    output.write("hai\n")
    output.close()
    assert capfd.readouterr().out == "hai\n"
