"""The daemon's log: text for people or JSON lines for machines, on standard output or in a file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

from twisted.application.service import IService, MultiService
from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    eventAsText,
    formatEvent,
    formatEventAsClassicLogText,
)
from zope.interface import implementer

from chatd.process.log_limits import LogLimits

LEVELS: Final = {
    "debug": LogLevel.debug,
    "info": LogLevel.info,
    "warn": LogLevel.warn,
    "error": LogLevel.error,
}

Record = dict[str, Any]
"""A line of the JSON format: time, level, logger, message, and what else the event has."""

_log = Logger()


class LogOutput:
    """Standard output, or the file `path`, which is appended to."""

    def __init__(self, path: str | None) -> None:
        # twistd may change the working folder later.
        self._path = None if path is None else Path(path).absolute()
        self._file = self._open()

    def write(self, line: str) -> None:
        """Write a line, and a traceback after it, at once."""
        self._file.write(line)
        self._file.flush()

    def reopen(self) -> None:
        """Write to a new file from now on if the old one was moved away."""
        if self._path is not None:
            try:
                file = self._open()
            except OSError as problem:
                _log.error("the log cannot be reopened: {why}", why=problem)
            else:
                self._file.close()
                self._file = file

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _open(self) -> TextIO:
        # The descriptor is a copy, since twistd replaces `sys.stdout`.
        where = os.dup(1) if self._path is None else self._path
        return open(where, "a", encoding="utf-8", errors="backslashreplace")


@implementer(ILogObserver)
class DaemonLog:
    """A log observer with a level that can be changed.

    What libraries log below a warning, such as Twisted's "starting on 8080", is left out unless the
    level is `debug`. Many warnings or errors of one kind are counted instead, see `LogLimits`.
    """

    def __init__(self, output: LogOutput, *, level: str, as_json: bool) -> None:
        self.output = output
        self.set_level(level)
        self._limits = LogLimits()
        self._line: Callable[[LogEvent], str | None] = json_line if as_json else text_line

    def set_level(self, level: str) -> None:
        """Log events of this level and above: one of `LEVELS`."""
        self._least = LEVELS[level]

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info)
        if level < self._least:
            return
        if (
            self._least > LogLevel.debug
            and level < LogLevel.warn
            and not event.get("log_namespace", "").startswith("chatd.")
        ):
            return
        for summary in self._limits.left_out(event.get("log_time", 0.0)):
            self._write(summary)
        if self._limits.admits(event):
            self._write(event)

    def _write(self, event: LogEvent) -> None:
        line = self._line(event)
        if line is not None:
            self.output.write(line)


class LoggingService(MultiService):
    """Has the application that it is added to log by `observer`, instead of twistd's."""

    def __init__(self, service: IService, observer: DaemonLog) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._observer = observer
        service.setServiceParent(self)

    def setServiceParent(self, parent: Any) -> None:
        parent.setComponent(ILogObserver, self._observer)
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]


def text_line(event: LogEvent) -> str | None:
    """A line as twistd writes it; of a worker, with the worker's own time and level."""
    if "log_worker" in event:
        name = f"{event['log_namespace']}#{event['log_level'].name}, worker {event['log_worker']}"
        event = {**event, "log_system": name}
    return formatEventAsClassicLogText(event)


def json_line(event: LogEvent) -> str:
    """The event as one line of JSON."""
    return json.dumps(record_of(event), ensure_ascii=False, default=str) + "\n"


def record_of(event: LogEvent) -> Record:
    """The event as data; the parameters of the daemon's own messages are members of it."""
    time = datetime.fromtimestamp(event.get("log_time", 0.0), UTC)
    namespace = event.get("log_namespace", "")
    record: Record = {
        "time": time.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": event.get("log_level", LogLevel.info).name,
        "logger": namespace,
        "message": formatEvent(event),
    }
    if "log_worker" in event:
        record["worker"] = event["log_worker"]
    if event.get("log_failure") is not None:
        traceback = eventAsText(
            event, includeTraceback=True, includeTimestamp=False, includeSystem=False
        )
        record["traceback"] = traceback.removeprefix(record["message"]).strip()
    elif "log_traceback" in event:
        record["traceback"] = event["log_traceback"]
    if namespace.startswith("chatd."):
        for name, value in event.items():
            if not name.startswith("log_") and isinstance(value, str | int | float):
                record.setdefault(name, value)
    return record


def event_of(line: str, worker: int) -> LogEvent | None:
    """The event that a worker has written as a line of JSON; None if the line is something else."""
    try:
        record: Mapping[str, Any] = json.loads(line)
        level = LogLevel.lookupByName(record["level"])
        time = datetime.fromisoformat(record["time"]).timestamp()
        namespace, message = record["logger"], record["message"]
    except (ValueError, KeyError, TypeError, LookupError):
        return None
    event = {
        "log_level": level,
        "log_time": time,
        "log_namespace": namespace,
        "log_text": message,
        "log_format": "{log_text}",
        "log_worker": worker,
    }
    if "traceback" in record:
        event["log_traceback"] = record["traceback"]
        event["log_format"] = "{log_text}\n{log_traceback}"
    known = ("time", "level", "logger", "message", "traceback", "worker")
    return {**{name: value for name, value in record.items() if name not in known}, **event}
