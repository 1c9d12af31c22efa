"""The list of sessions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from chatd.cli.sessions import table
from chatd.client import Token

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
EVERYTHING = ("read", "send", "account")
PLAIN = Token(3, None, EVERYTHING, NOON, None, None, False)


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Any:
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_sessions_are_aligned_and_what_is_special_is_told() -> None:
    tokens = [
        replace(PLAIN, id=12, label="chatd on laptop", last_used_at=NOON, current=True),
        replace(PLAIN, label="Löwe 🦁", scopes=("read", "send"), expires_at=NOON.replace(hour=13)),
        PLAIN,
    ]
    assert table(tokens) == [
        "ID  LABEL            CREATED           LAST USED",
        "12  chatd on laptop  2026-11-22 12:00  2026-11-22 12:00  this one",
        "3   Löwe 🦁          2026-11-22 12:00  never             "
        "only read, send; until 2026-11-22 13:00",
        "3   -                2026-11-22 12:00  never",
    ]


def test_labels_cannot_control_the_terminal() -> None:
    [_, line] = table([replace(PLAIN, label="a\x1b[31m\nb\u202e")])
    assert "a\\x1b[31m\\x0ab\\u202e" in line
    assert line.isprintable()
