"""Formatting of messages for a terminal."""

import json
from datetime import UTC, datetime

import msgspec
import pytest

from chatd.cli.printing import display_width, escape_controls, format_message, to_json
from chatd.cli.style import Style
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
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert escape_controls(text) == shown


@pytest.mark.parametrize(
    ("text", "width"), [("", 0), ("abc", 3), ("你好", 4), ("e\u0301", 1), ("a\u200db", 2)]
)
def test_wide_and_combining_characters_are_measured(text: str, width: int) -> None:
    assert display_width(text) == width


def test_further_lines_are_indented() -> None:
    shown = format_message(message("one\ntwo"), "bob")
    first, second = shown.split("\n")
    assert first.endswith("bob: one")
    assert second == " " * (len(first) - 3) + "two"


def test_edited_and_deleted_messages_are_marked() -> None:
    later = datetime(2026, 11, 22, 12, 5, tzinfo=UTC)
    edited = msgspec.structs.replace(message("one\ntwo"), edited_at=later)
    assert format_message(edited, "bob").endswith("two (edited)")
    deleted = msgspec.structs.replace(edited, text="", deleted_at=later)
    assert format_message(deleted, "bob").endswith(" bob: (deleted)")


def test_colours_do_not_move_further_lines() -> None:
    shown = format_message(message("one\ntwo"), "bob", Style(colours=True))
    assert shown.split("\n")[1] == " " * len("00:00 bob: ") + "two"


def test_names_are_escaped() -> None:
    assert "\x1b" not in format_message(message("x"), "\x1b[31mbob")


def test_nothing_in_json_acts_on_a_terminal() -> None:
    text = "\x1b[2J \x7f \x9b2J \u202e \u2067 \u200f \u2028 ü\n"
    printed = to_json({"message": text})
    assert json.loads(printed) == {"message": text}
    assert printed.isprintable()
    assert "ü" in printed
