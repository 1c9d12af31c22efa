"""Texts above the prompt that are replaced: in how many rows they are."""

from __future__ import annotations

import pytest

from chatd.cli.printed import MAX_TEXTS, PrintedTexts


def printed(*texts: str) -> PrintedTexts:
    """Texts with the keys 0, 1 ..."""
    found = PrintedTexts()
    for key, text in enumerate(texts):
        found.add(text, key)
    return found


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("", 1),
        ("x" * 20, 1),
        ("x" * 21, 2),
        ("x" * 41 + "\n\nx", 5),
        ("\x1b[2m" + "x" * 20 + "\x1b[0m", 1),
        ("é" * 20, 1),
        ("“" + "x" * 20, 2),
        # Certainly one row, however wide the terminal takes them for.
        ("你好", 1),
        ("🦁" * 10, 1),
        ("🦁" * 11, None),
        ("e\u0301" * 11, None),
    ],
)
def test_rows_are_counted_where_terminals_agree(text: str, rows: int | None) -> None:
    replaced = printed(text, "below").replace(0, "new", 20, 24)
    assert replaced == (None if rows is None else (rows + 1, ["new", "below"]))


def test_only_what_is_in_view_is_replaced() -> None:
    texts = printed(*"abcde")
    assert texts.replace(0, "new", 20, 4) is None
    assert texts.replace(1, "new", 20, 4) == (4, ["new", "c", "d", "e"])
    assert texts.replace(1, "newer", 20, 4) == (4, ["newer", "c", "d", "e"])
    assert texts.replace("unknown", "new", 20, 24) is None
    texts.clear()
    assert texts.replace(1, "new", 20, 24) is None


def test_old_texts_are_forgotten() -> None:
    texts = printed(*["x"] * (MAX_TEXTS + 1))
    assert texts.replace(0, "new", 80, 1000) is None
    assert texts.replace(1, "new", 80, 1000) is not None
