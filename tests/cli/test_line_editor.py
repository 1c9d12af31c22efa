"""`LineEditor`: keys and what the terminal shows."""

import pytest

from chatd.cli.line_editor import LineEditor


class Screen:
    """An editor on a terminal that records output and lines."""

    def __init__(self, width: int = 80) -> None:
        self.written = ""
        self.lines: list[str] = []
        self.exits = 0
        self.editor = LineEditor(
            "me> ",
            write=self.write,
            on_line=self.lines.append,
            on_exit=self.end,
            width=lambda: width,
        )

    def write(self, text: str) -> None:
        self.written += text

    def end(self) -> None:
        self.exits += 1

    def type(self, *keys: str) -> str:
        """Press keys; returns the line as last drawn."""
        for key in keys:
            self.editor.feed(key.encode())
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
    assert screen.lines == [entered]


def test_bytes_of_a_character_may_arrive_separately() -> None:
    screen = Screen()
    for byte in "é\x1b[D!".encode():
        screen.editor.feed(bytes([byte]))
    screen.type("\r")
    assert screen.lines == ["!é"]


def test_several_lines_can_be_pasted() -> None:
    screen = Screen()
    screen.type("one\rtwo\nthree")
    assert screen.lines == ["one", "two"]
    assert screen.type() == "me> three"


def test_ctrl_c_exits_and_ctrl_d_on_an_empty_line() -> None:
    screen = Screen()
    screen.type("\x04")
    assert screen.exits == 1
    screen.type("text", "\x03")
    assert screen.exits == 2
    assert screen.lines == []


def test_lines_are_printed_above_the_line_being_edited() -> None:
    screen = Screen()
    screen.type("half a sen")
    screen.written = ""
    screen.editor.print_above("12:00 bob: one\n           two")
    assert screen.written == ("\r\x1b[K12:00 bob: one\r\n           two\r\n\r\x1b[Kme> half a sen")


def test_a_long_line_scrolls() -> None:
    screen = Screen(width=20)
    assert screen.type("abcdefghijklmnopqrstuvwxyz") == "me> lmnopqrstuvwxyz"
    assert screen.type(HOME) == "me> abcdefghijklmno\x1b[15D"
    assert screen.type("你") == "me> 你abcdefghijklm\x1b[13D"


def test_a_narrow_terminal_gets_a_short_prompt() -> None:
    screen = Screen(width=6)
    assert screen.type("abcdef") == "> def"
    assert screen.type(HOME) == "> abc\x1b[3D"


def test_hide_clears_the_line() -> None:
    screen = Screen()
    screen.type("x")
    screen.editor.hide()
    assert screen.written.endswith("\r\x1b[K")
