"""The string form of cursors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatd.errors import InvalidCursor
from chatd.model import BEGINNING, MAX_INTEGER, ChangesPosition, Cursor
from chatd.store.epoch import new_epoch

EPOCHS = st.from_regex(r"[a-z2-7]{8,32}", fullmatch=True)


NUMBERS = st.integers(0, MAX_INTEGER)
POSITIONS = st.builds(ChangesPosition, NUMBERS, st.none() | st.tuples(NUMBERS, NUMBERS))


@given(EPOCHS, NUMBERS, st.none() | NUMBERS, st.none() | POSITIONS)
def test_a_cursor_is_parsed_from_its_string(
    epoch: str, seq: int, stamp: int | None, changes: ChangesPosition | None
) -> None:
    cursor = Cursor(epoch, seq, stamp, changes)
    assert Cursor.parse(str(cursor)) == cursor


def test_a_cursor_of_a_new_epoch_is_parsed_from_its_string() -> None:
    cursor = Cursor(new_epoch(), 7)
    assert Cursor.parse(str(cursor)) == cursor


@given(st.text())
def test_only_the_strings_of_cursors_are_parsed(text: str) -> None:
    try:
        cursor = Cursor.parse(text)
    except InvalidCursor:
        return
    assert str(cursor) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "now",
        "-",
        "abcdefgh",
        "abcdefgh-",
        "abcdefg-1",
        "a" * 33 + "-1",
        "abcdefgh-01",
        "abcdefgh-+1",
        "abcdefgh--1",
        "abcdefgh-1_0",
        "abcdefgh- 1",
        "abcdefgh-1 ",
        "abcdefgh-1\n",
        "abcdefgh-1.",
        "abcdefgh-1.00",
        "abcdefgh-1.0.1",
        "abcdefgh-1.0.1.2.3",
        "abcdefgh-\u0661",
        "ABCDEFGH-1",
        "abcdefg1-1",
        "abcdefgé-1",
        f"abcdefgh-{MAX_INTEGER + 1}",
        "abcdefgh-" + "9" * 16,
        "abcdefgh-" + "9" * 5000,
        "abcdefgh-1-",
        "abcdefgh-1-01",
        "abcdefgh-1-1-1",
        "abcdefgh-1-F",
        f"abcdefgh-1-{MAX_INTEGER + 1:x}",
    ],
)
def test_other_strings_are_refused(text: str) -> None:
    with pytest.raises(InvalidCursor):
        Cursor.parse(text)


def test_the_beginning_has_no_epoch() -> None:
    assert Cursor("", 0) == BEGINNING
    with pytest.raises(InvalidCursor):
        Cursor.parse(str(BEGINNING))
