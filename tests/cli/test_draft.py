"""`Draft`: editing and history."""

from collections.abc import Callable

import pytest

from chatd.cli.draft import KEYS, Draft

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
UP, DOWN, LEFT, RIGHT = (f"\x1b[{letter}" for letter in "ABDC")


def edited(*keys: str) -> Draft:
    """A draft after keys; the enter key accepts it, and what is no key is inserted."""
    draft = Draft()
    for key in keys:
        if key == "\r":
            draft.accept()
        else:
            KEYS.get(key, _insert(key))(draft)
    return draft


def _insert(text: str) -> Callable[[Draft], None]:
    return lambda draft: draft.insert(text)


def marked(*keys: str) -> str:
    """The text after keys, with | at the cursor."""
    draft = edited(*keys)
    return draft.text[: draft.cursor] + "|" + draft.text[draft.cursor :]


@pytest.mark.parametrize(
    ("keys", "result"),
    [
        (["ab", LEFT, LEFT, LEFT, RIGHT], "a|b"),
        (["e\u0301", LEFT], "|e\u0301"),
        (["e\u0301", "\x7f"], "|"),
        ([FAMILY, "\x7f"], "|"),
        (["你好", LEFT], "你|好"),
        (["你好", "\x01", "\x1b[3~"], "|好"),
        (["\x01", FAMILY, "!", "\x01", "\x04"], "|!"),
        (["one two", "\x1bb"], "one |two"),
        (["one, e\u0301te\u0301 ", "\x1b[1;5D"], "one, |e\u0301te\u0301 "),
        (["one two", "\x01", "\x1b[1;5C"], "one| two"),
        (["one two", "\x01", "\x1bf", "\x1bf", "\x1bf"], "one two|"),
        (["one two", "\x1bb", "\x1bd", "three"], "one three|"),
        (["one/two", "\x1b\x7f"], "one/|"),
        (["one/two  ", "\x17"], "|"),
        (["one two", "\x15", "\x15", "\x19", "!"], "one two!|"),
        (["one two", "\x1bb", "\x0b", "\x19", "\x19"], "one twotwo|"),
        (["one", "\x1b\r", "two"], "one\ntwo|"),
        (["one\ntwo", "\x01", "\x15"], "one\n|two"),
        (["one\ntwo", UP, "\x0b"], "one|two"),
        (["one\ntwo", UP], "one|\ntwo"),
        (["one\ntwo", UP, "\x01", DOWN], "one\n|two"),
        (["e\u0301\nab", LEFT, UP], "|e\u0301\nab"),
        (["ab\n", UP, "\x05", DOWN], "ab\n|"),
    ],
)
def test_keys_edit(keys: list[str], result: str) -> None:
    assert marked(*keys) == result


def test_up_and_down_recall_lines_and_return_to_the_draft() -> None:
    lines = ["one", "\r", "two", "\r", "draft"]
    assert marked(*lines, UP) == "two|"
    assert marked(*lines, UP, UP, UP) == "one|"
    assert marked(*lines, UP, UP, DOWN) == "two|"
    assert marked(*lines, UP, UP, DOWN, DOWN, DOWN) == "draft|"
    assert marked(*lines, "\x10", "\x10", "\x0e") == "two|"


def test_recalled_texts_of_several_lines_are_passed_line_by_line() -> None:
    lines = ["one", "\r", "two\nthree", "\r"]
    assert marked(*lines, UP) == "two\nthree|"
    assert marked(*lines, UP, UP, UP) == "one|"


def test_changes_of_recalled_lines_last_until_one_is_accepted() -> None:
    lines = ["one", "\r", UP, " more"]
    assert marked(*lines, DOWN, UP) == "one more|"
    assert marked(*lines, "\r", UP, UP) == "one|"


def test_blank_and_repeated_lines_are_not_remembered() -> None:
    assert marked("one", "\r", "one", "\r", " ", "\r", UP, UP) == "one|"
    assert marked("one", "\r", "one", "\r", "", "\r", UP, DOWN) == "|"


def test_clear_returns_from_the_history() -> None:
    draft = edited("one", "\r", "two", "\r", UP, UP)
    draft.clear()
    assert draft.text == ""
    draft.recall_previous()
    assert draft.text == "two"
