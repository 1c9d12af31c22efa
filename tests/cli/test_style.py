"""`Style`: colours, where the terminal has them."""

from io import StringIO

import pytest

from chatd.cli.style import PLAIN, Style, style_for


class FakeTerminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [
        ({"TERM": "xterm-256color"}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_colours_depend_on_the_terminal_and_the_user(
    environment: dict[str, str], coloured: bool
) -> None:
    style = style_for(FakeTerminal(), environment)
    assert (style.error("x") != "x") == coloured
    assert style_for(StringIO(), environment).error("x") == "x"


def test_everything_is_plain_without_colours() -> None:
    assert PLAIN.time("x") == PLAIN.note("x") == PLAIN.own_name("x") == PLAIN.name("x", 1) == "x"


def test_users_differ_from_each_other_and_from_oneself() -> None:
    style = Style(colours=True)
    names = {style.name("x", 1), style.name("x", 2), style.own_name("x")}
    assert len(names) == 3
    assert style.name("x", 1) == "\x1b[1;35mx\x1b[0m"
