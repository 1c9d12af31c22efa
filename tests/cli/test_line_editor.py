"""`LineEditor`: what keys and pastes do, and what the terminal shows."""

import pytest

from chatd.cli.line_editor import LineEditor
from tests.cli.screen import Screen

UP, DOWN = "\x1b[A", "\x1b[B"
INTERRUPT, END_OF_INPUT = "\x03", "\x04"


class Editor:
    """An editor on a screen that records what was entered."""

    def __init__(self) -> None:
        self.screen = Screen(20, 10)
        self.lines: list[str] = []
        self.interrupts = 0
        self.ends = 0
        self.editor = LineEditor(
            "me> ",
            write=self.screen.write,
            size=self.screen.size,
            on_line=self._enter,
            on_interrupt=self._interrupt,
            on_end=self._end,
        )
        self.editor.show()

    def type(self, *keys: str) -> str:
        """Press keys; returns what the screen shows."""
        for key in keys:
            self.editor.feed(key.encode())
        return self.screen.text

    def _enter(self, text: str) -> None:
        self.lines.append(text)
        if text == "close":
            self.editor.close()

    def _interrupt(self) -> None:
        self.interrupts += 1

    def _end(self) -> None:
        self.ends += 1


def paste(text: str) -> str:
    """What a terminal sends for a pasted text."""
    return f"\x1b[200~{text}\x1b[201~"


@pytest.mark.parametrize(
    ("keys", "entered"),
    [
        (["hello"], "hello"),
        (["h", "é", "你"], "hé你"),
        (["helo\x1b[Dl"], "hello"),
        (["a\x1b[99;5Xb"], "ab"),
        (["a\x00\x07b"], "ab"),
        (["a", END_OF_INPUT, "b"], "ab"),
        (["\x7f", "a"], "a"),
    ],
)
def test_enter_completes_what_was_typed(keys: list[str], entered: str) -> None:
    editor = Editor()
    assert editor.type(*keys, "\r") == "me>"
    assert editor.lines == [entered]


def test_bytes_of_a_character_may_arrive_separately() -> None:
    editor = Editor()
    for byte in "é\x1b[D!".encode():
        editor.editor.feed(bytes([byte]))
    editor.type("\r")
    assert editor.lines == ["!é"]


def test_earlier_lines_are_recalled() -> None:
    editor = Editor()
    assert editor.type("one\r", "two\r", "draft", UP, UP) == "me> one"
    assert editor.type(DOWN, DOWN) == "me> draft"
    editor.type(UP, "!\r")
    assert editor.lines == ["one", "two", "two!"]


def test_a_paste_of_several_lines_is_one_draft() -> None:
    editor = Editor()
    assert editor.type("see: ", paste("one\r\rthree\r")) == "me> see: one\n\n    three"
    assert editor.lines == []
    editor.type("\r")
    assert editor.lines == ["see: one\n\nthree\n"]


def test_a_paste_may_come_in_pieces() -> None:
    editor = Editor()
    whole = paste("one\rtwo\x1b[A")
    for start in range(0, len(whole), 3):
        editor.type(whole[start : start + 3])
    editor.type("\r")
    assert editor.lines == ["one\ntwo[A"]


def test_control_characters_are_not_pasted() -> None:
    editor = Editor()
    editor.type(paste("a\x03\x04\x1b[31m\tb\u200fc"), "\r")
    assert editor.lines == ["a[31m\tb\u200fc"]
    assert editor.interrupts == editor.ends == 0


def test_where_pastes_are_not_marked_lines_are_entered_one_by_one() -> None:
    editor = Editor()
    assert editor.type("one\rtwo\nthree") == "me> three"
    assert editor.lines == ["one", "two"]


def test_ctrl_c_clears_the_draft_first() -> None:
    editor = Editor()
    assert editor.type("one\rdraft", INTERRUPT) == "me>"
    assert editor.interrupts == 0
    editor.type(INTERRUPT)
    assert editor.interrupts == 1
    assert editor.lines == ["one"]


def test_ctrl_d_ends_an_empty_line_only() -> None:
    editor = Editor()
    editor.type("x", END_OF_INPUT)
    assert editor.ends == 0
    editor.type("\x7f", END_OF_INPUT)
    assert editor.ends == 1


def test_lines_are_printed_above_the_draft() -> None:
    editor = Editor()
    editor.type("half a sen")
    editor.editor.print_above("bob: one\n     two")
    assert editor.screen.text == "bob: one\n     two\nme> half a sen"


def test_the_draft_is_drawn_again_after_a_resize() -> None:
    editor = Editor()
    editor.type("a draft longer than a line")
    editor.screen.resize(12)
    editor.editor.resize()
    assert editor.screen.text == "me> a draft\n     longer\n     than a\n     line"


def test_ctrl_l_clears_the_screen() -> None:
    editor = Editor()
    editor.editor.print_above("bob: one")
    assert editor.type("draft", "\x0c") == "me> draft"


def test_a_closed_editor_shows_nothing_and_ignores_keys() -> None:
    editor = Editor()
    editor.type("x")
    editor.editor.close()
    assert editor.type("y\r" + INTERRUPT) == ""
    assert editor.lines == []
    assert editor.interrupts == 0


def test_an_entered_line_may_close_the_editor() -> None:
    editor = Editor()
    assert editor.type("close\rmore\r") == ""
    assert editor.lines == ["close"]
