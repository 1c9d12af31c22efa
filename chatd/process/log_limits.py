"""How many lines of one kind are logged, so that a flood of errors does not fill the disk.

A client that has every accept, or every call of a broken database, fail would write megabytes in
seconds. What is left out is counted, and the count is logged.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Final

from msgspec import Struct
from twisted.logger import LogEvent, LogLevel

MAX_LINES: Final = 20
"""Lines of one kind that are logged in `WINDOW_SECONDS`, which begin with the first of them."""
WINDOW_SECONDS: Final = 60.0
MAX_KINDS: Final = 1000
"""Kinds that are counted at once."""

Kind = tuple[Any, ...]


class _Window(Struct):
    """The lines of one kind since a time; `event` is the last one that was left out."""

    since: float
    lines: int = 0
    event: LogEvent | None = None


class LogLimits:
    """Counts events by kind and their own times.

    Warnings and errors are limited, and whatever libraries log. The daemon's own information is
    not, such as the access log and what administrators do; nor are events of workers, which were
    counted where they come from.
    """

    def __init__(self) -> None:
        self._windows: OrderedDict[Kind, _Window] = OrderedDict()

    def admits(self, event: LogEvent) -> bool:
        """Count an event; returns whether it is to be logged."""
        if not _is_limited(event):
            return True
        kind = _kind(event)
        window = self._windows.get(kind)
        if window is None:
            window = self._windows[kind] = _Window(event.get("log_time", 0.0))
        window.lines += 1
        if window.lines <= MAX_LINES:
            return True
        window.event = event
        return False

    def left_out(self, now: float) -> Iterator[LogEvent]:
        """Events that say how many lines were left out, of the kinds whose time is over."""
        windows = self._windows
        while windows:
            kind, window = next(iter(windows.items()))
            # The clock may have been set back.
            if 0 <= now - window.since < WINDOW_SECONDS and len(windows) <= MAX_KINDS:
                return
            del windows[kind]
            if window.event is not None:
                yield _summary(window.event, window.lines - MAX_LINES, now)


def _is_limited(event: LogEvent) -> bool:
    if "log_worker" in event:
        return False
    is_own = event.get("log_namespace", "").startswith("chatd.")
    return not is_own or event.get("log_level", LogLevel.info) >= LogLevel.warn


def _kind(event: LogEvent) -> Kind:
    """What events have in common that differ in their parameters only."""
    where: tuple[Any, ...] = ()
    failure = event.get("log_failure")
    if failure is not None:
        frames = failure.frames
        where = (failure.type, *(frames[-1][1:3] if frames else ()))
    return (event.get("log_namespace"), event.get("log_level"), event.get("log_format"), *where)


def _summary(event: LogEvent, count: int, now: float) -> LogEvent:
    failure = event.get("log_failure")
    return {
        "log_time": now,
        "log_level": event.get("log_level", LogLevel.info),
        "log_namespace": __name__,
        "log_format": "{count} more lines were left out of {logger}: {kind}",
        "count": count,
        "logger": event.get("log_namespace", ""),
        "kind": event.get("log_format") or (failure and failure.type.__name__) or "",
    }
