"""The line at the bottom of a conversation, as keys change it."""

import pytest

from chatd.cli.line_editor import LineEditor


class Screen:
    """An editor, what it wrote, and what was entered."""

    def __init__(self, width: int = 80) -> None:
        self.written = ""
        self.entered: list[str] = []
        self.ended = 0
        self.editor = LineEditor(
            "me> ",
            write=self.write,
            entered=self.entered.append,
            ended=self.end,
            width=lambda: width,
        )

    def write(self, text: str) -> None:
        self.written += text

    def end(self) -> None:
        self.ended += 1

    def type(self, *keys: str) -> str:
        """Press keys; the line as it was drawn last."""
        for key in keys:
            self.editor.keys(key.encode())
        return self.written.rpartition("\r\x1b[K")[2]


LEFT, RIGHT, HOME, END, DELETE = "\x1b[D", "\x1b[C", "\x1b[H", "\x1b[F", "\x1b[3~"


@pytest.mark.parametrize(
    ("keys", "entered"),
    [
        (["hello"], "hello"),
        (["h", "é", "你"], "hé你"),
        (["helo", LEFT, "l"], "hello"),
        (["helxlo", LEFT, LEFT, "\x7f"], "hello"),
        (["xhello", HOME, DELETE], "hello"),
        (["ello", "\x01", "h", "\x05", "!"], "hello!"),
        (["one two  ", "\x17", "three"], "one three"),
        (["gone", "\x15", "kept"], "kept"),
        (["kept gone", *[LEFT] * 5, "\x0b"], "kept"),
        (["ab", LEFT, LEFT, LEFT, RIGHT, "x"], "axb"),
        (["ab", END, RIGHT, "\x1bOD", "x"], "axb"),
        (["a\x1b[99;5Xb"], "ab"),
        (["a\x00\x07b"], "ab"),
        (["a", "\x04", "b"], "ab"),
        (["\x7f", "a"], "a"),
    ],
)
def test_keys_edit_the_line(keys: list[str], entered: str) -> None:
    screen = Screen()
    screen.type(*keys, "\r")
    assert screen.entered == [entered]


def test_a_character_may_come_in_pieces() -> None:
    screen = Screen()
    for byte in "é\x1b[D!".encode():
        screen.editor.keys(bytes([byte]))
    screen.type("\r")
    assert screen.entered == ["!é"]


def test_many_lines_may_be_pasted() -> None:
    screen = Screen()
    screen.type("one\rtwo\nthree")
    assert screen.entered == ["one", "two"]
    assert screen.type() == "me> three"


def test_ctrl_c_ends_and_ctrl_d_in_an_empty_line() -> None:
    screen = Screen()
    screen.type("\x04")
    assert screen.ended == 1
    screen.type("text", "\x03")
    assert screen.ended == 2
    assert screen.entered == []


def test_lines_appear_above_what_is_typed() -> None:
    screen = Screen()
    screen.type("half a sen")
    screen.written = ""
    screen.editor.above("12:00 bob: one\n           two")
    assert screen.written == ("\r\x1b[K12:00 bob: one\r\n           two\r\n\r\x1b[Kme> half a sen")


def test_a_long_line_scrolls_under_its_end() -> None:
    screen = Screen(width=20)
    assert screen.type("abcdefghijklmnopqrstuvwxyz") == "me> lmnopqrstuvwxyz"
    assert screen.type(HOME) == "me> abcdefghijklmno\x1b[15D"
    assert screen.type("你") == "me> 你abcdefghijklm\x1b[13D"


def test_hiding_leaves_an_empty_line() -> None:
    screen = Screen()
    screen.type("x")
    screen.editor.hide()
    assert screen.written.endswith("\r\x1b[K")
