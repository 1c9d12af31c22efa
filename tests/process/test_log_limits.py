"""How many lines of one kind are logged."""

from __future__ import annotations

from typing import Any

from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure

from chatd.process.log_limits import MAX_KINDS, MAX_LINES, WINDOW_SECONDS, LogLimits

NOW = 1_767_225_600.0


def event(time: float = 0.0, level: str = "warn", **given: Any) -> LogEvent:
    return {
        "log_time": NOW + time,
        "log_level": LogLevel.levelWithName(level),
        "log_namespace": "chatd.x",
        "log_format": "number {number}",
        **given,
    }


def failed(error: Exception, format: str = "it failed") -> LogEvent:
    try:
        raise error
    except Exception:
        return event(level="critical", log_format=format, log_failure=Failure())


def admitted(limits: LogLimits, events: list[LogEvent]) -> int:
    return sum(limits.admits(each) for each in events)


def summaries(limits: LogLimits, time: float) -> list[str]:
    return [formatEvent(each) for each in limits.left_out(NOW + time)]


def test_lines_of_one_kind_are_limited_and_the_rest_is_counted() -> None:
    limits = LogLimits()
    flood = [event(number=number) for number in range(1000)]
    assert admitted(limits, flood) == MAX_LINES
    assert admitted(limits, [event(log_format="another kind")]) == 1
    assert summaries(limits, WINDOW_SECONDS - 1) == []
    [summary] = limits.left_out(NOW + WINDOW_SECONDS)
    expected = f"{1000 - MAX_LINES} more lines were left out of chatd.x: number {{number}}"
    assert formatEvent(summary) == expected
    assert (summary["log_level"], summary["count"]) == (LogLevel.warn, 1000 - MAX_LINES)
    assert admitted(limits, flood) == MAX_LINES


def test_nothing_is_said_of_kinds_that_were_logged_completely() -> None:
    limits = LogLimits()
    assert admitted(limits, [event()] * MAX_LINES) == MAX_LINES
    assert summaries(limits, WINDOW_SECONDS) == []


def test_failures_are_of_one_kind_if_they_are_of_one_type_and_place() -> None:
    limits = LogLimits()
    assert admitted(limits, [failed(ValueError(f"{n}")) for n in range(100)]) == MAX_LINES
    assert limits.admits(failed(KeyError("x")))
    assert limits.admits(failed(ValueError("x"), "something else failed"))
    try:
        raise ValueError("at another place")
    except ValueError:
        assert limits.admits({**failed(ValueError("x")), "log_failure": Failure()})


def test_a_failure_without_a_text_is_named_by_its_type() -> None:
    limits = LogLimits()
    admitted(limits, [failed(ValueError("x"), "")] * (MAX_LINES + 1))
    limits.admits(event(log_format="other", log_failure=Failure(ValueError("without frames"))))
    [summary] = summaries(limits, WINDOW_SECONDS)
    assert summary == "1 more lines were left out of chatd.x: ValueError"


def test_what_the_daemon_reports_of_its_work_is_not_limited() -> None:
    limits = LogLimits()
    for each in (event(level="info"), event(log_worker=1)):
        assert admitted(limits, [each] * 100) == 100
    library = event(level="info", log_namespace="twisted.internet.tcp")
    assert admitted(limits, [library] * 100) == MAX_LINES


def test_a_clock_that_is_set_back_silences_nothing() -> None:
    limits = LogLimits()
    admitted(limits, [event()] * (MAX_LINES + 1))
    assert len(summaries(limits, -3600)) == 1
    assert limits.admits(event(-3600))


def test_kinds_are_bounded() -> None:
    limits = LogLimits()
    admitted(limits, [event()] * (MAX_LINES + 2))
    for number in range(MAX_KINDS):
        limits.admits(event(log_format=f"{number}"))
    assert summaries(limits, 0) == ["2 more lines were left out of chatd.x: number {number}"]
    assert summaries(limits, 0) == []
