"""What a terminal is given to print."""

from datetime import UTC, datetime

import pytest

from chatd.cli.printing import columns, line, plain
from chatd.client import Message


def message(text: str) -> Message:
    at = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
    return Message(seq=1, sent_by=2, text=text, sent_at=at, received_by=1)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("hé שלום 你好", "hé שלום 你好"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb", "a\\x0db"),
        ("a\r\nb\n", "a\nb\n"),
        ("a\tb", "a    b"),
        ("\u202etxt.exe", "\\u202etxt.exe"),
        ("a\u2028b", "a\\u2028b"),
        ("\x7f", "\\x7f"),
    ],
)
def test_nothing_that_was_written_moves_the_cursor(text: str, shown: str) -> None:
    assert plain(text) == shown


@pytest.mark.parametrize(
    ("text", "width"), [("", 0), ("abc", 3), ("你好", 4), ("e\u0301", 1), ("a\u200db", 2)]
)
def test_columns_are_those_of_the_terminal(text: str, width: int) -> None:
    assert columns(text) == width


def test_further_lines_stand_below_the_first() -> None:
    shown = line(message("one\ntwo"), "bob")
    first, second = shown.split("\n")
    assert first.endswith("bob: one")
    assert second == " " * (len(first) - 3) + "two"


def test_a_hostile_name_is_plain_too() -> None:
    assert "\x1b" not in line(message("x"), "\x1b[31mbob")
