"""`Transcript`: messages separated by days."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from chatd.cli.style import PLAIN, Style
from chatd.cli.transcript import Transcript
from chatd.client import Message

EVENING = datetime(2026, 11, 26, 22, 30, tzinfo=UTC)


def message(sent_at: datetime, sent_by: int = 2) -> Message:
    return Message(seq=1, sent_by=sent_by, text="hello", sent_at=sent_at, received_by=1)


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A local time one hour before UTC."""
    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("berlin")
def test_local_days_are_separated() -> None:
    transcript = Transcript(PLAIN, own_id=1)
    shown = [
        transcript.format(message(EVENING + timedelta(minutes=minutes)), "bob")
        for minutes in (0, 29, 30, 60)
    ]
    assert shown == [
        "— Thursday, 26 November 2026 —\n23:30 bob: hello",
        "23:59 bob: hello",
        "— Friday, 27 November 2026 —\n00:00 bob: hello",
        "00:30 bob: hello",
    ]


def test_days_times_and_names_are_coloured() -> None:
    style = Style(colours=True)
    transcript = Transcript(style, own_id=1)
    separator, line = transcript.format(message(EVENING), "bob").split("\n")
    assert separator.startswith("\x1b[2m—")
    assert separator.endswith("—\x1b[0m")
    assert line.startswith("\x1b[2m")
    assert line.endswith(f" {style.name('bob', 2)}: hello")
    assert style.own_name("ann") in transcript.format(message(EVENING, sent_by=1), "ann")
