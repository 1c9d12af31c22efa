"""`PromptView`: where the prompt and the draft are drawn."""

from hypothesis import given, settings
from hypothesis import strategies as st

from chatd.cli.prompt import PromptView
from tests.cli.screen import Screen
from tests.examples import examples


class View:
    """A view on a screen, with a draft."""

    def __init__(self, text: str = "", *, screen: Screen | None = None) -> None:
        self.screen = screen or Screen(20, 10)
        self.view = PromptView("me> ", write=self.screen.write, size=self.screen.size)
        self.view.draw_below("bob: hello", "", 0)
        self.draw(text)

    def draw(self, text: str, cursor: int | None = None) -> None:
        self.text, self.at = text, len(text) if cursor is None else cursor
        self.view.draw(self.text, self.at)

    def resize(self, columns: int, rows: int | None = None) -> None:
        self.screen.resize(columns, rows)
        self.view.redraw_resized(self.text, self.at)

    @property
    def rows(self) -> list[str]:
        return self.screen.text.split("\n")


def test_a_long_draft_takes_several_rows() -> None:
    view = View("abcdefghijklmnopqrst")
    assert view.rows == ["bob: hello", "me> abcdefghijklmno", "    pqrst"]
    assert view.screen.cursor == (0, 9)
    view.draw("abcdefghijklmnopqrst", 3)
    assert view.rows == ["bob: hello", "me> abcdefghijklmno", "    pqrst"]
    assert view.screen.cursor == (1, 7)
    view.draw("short")
    assert view.rows == ["bob: hello", "me> short"]


def test_line_breaks_are_shown() -> None:
    view = View("one\n\nthree\n")
    assert view.screen.text == "bob: hello\nme> one\n\n    three"
    assert view.screen.cursor == (0, 4)
    view.draw("one\n\nthree\n", 4)
    assert view.screen.cursor == (2, 4)


def test_wide_combining_and_control_characters_are_drawn_where_the_cursor_expects_them() -> None:
    text = "你好e\u0301\t\u202e!"
    view = View(text)
    assert view.rows[1:] == ["me> 你好e\u0301    \\u202e", "    !"]
    view.draw(text, 4)
    assert view.screen.cursor == (1, 9)


def test_a_wide_character_is_not_split_at_the_margin() -> None:
    view = View("abcdefghijklmn你", screen=Screen(20, 10))
    assert view.rows[1:] == ["me> abcdefghijklmn", "    你"]


def test_lines_are_printed_above_a_draft_of_several_rows() -> None:
    view = View("one\ntwo")
    view.draw("one\ntwo", 1)
    view.view.draw_below("bob: a\n     b", "one\ntwo", 1)
    assert view.rows == ["bob: hello", "bob: a", "     b", "me> one", "    two"]
    assert view.screen.cursor == (1, 5)


def test_a_draft_takes_half_of_the_screen_and_scrolls() -> None:
    text = "\n".join("abcdefgh")
    view = View(text, screen=Screen(20, 6))
    assert view.rows == ["bob: hello", "↑   f", "    g", "    h"]
    view.draw(text, 8)
    assert view.rows == ["bob: hello", "↑   d", "    e", "↓   f"]
    assert view.screen.cursor == (1, 4)
    view.draw(text, 0)
    assert view.rows == ["bob: hello", "me> a", "    b", "↓   c"]


def test_a_narrow_terminal_gets_a_short_prompt() -> None:
    assert View("abcdef", screen=Screen(6, 10)).rows[-2:] == ["> abc", "  def"]


def test_a_narrower_terminal_leaves_no_old_prompt_behind() -> None:
    text = "abcdefghijklmnopqrstuvwxyz"
    for cursor in (0, 13, 15, 20, 26):
        view = View()
        view.draw(text, cursor)
        view.resize(12)
        assert view.rows == ["bob: hello", "me> abcdefg", "    hijklmn", "    opqrstu", "    vwxyz"]
        view.resize(40)
        assert view.rows == ["bob: hello", f"me> {text}"]


@settings(max_examples=examples(100, deep=500), deadline=None)
@given(
    text=st.text("abc \n\t", max_size=60),
    at=st.integers(0, 60),
    widths=st.lists(st.integers(12, 70), min_size=1, max_size=5),
)
def test_after_any_resizes_the_screen_is_as_if_drawn_anew(
    text: str, at: int, widths: list[int]
) -> None:
    cursor = min(at, len(text))
    view = View(screen=Screen(40, 200))
    view.draw(text, cursor)
    for columns in widths:
        view.resize(columns)
    anew = View(screen=Screen(widths[-1], 200))
    anew.draw(text, cursor)
    assert view.screen.text == anew.screen.text
    assert view.screen.cursor == anew.screen.cursor


def test_joined_emoji_do_not_cost_the_row_above_a_resized_draft() -> None:
    view = View("\U0001f468\u200d\U0001f469\u200d\U0001f467" * 4)
    view.resize(18)
    assert view.rows[0] == "bob: hello"


def test_resizing_in_steps_ends_with_one_prompt() -> None:
    view = View("one two three\nfour five six seven")
    for columns in (19, 15, 11, 10, 14, 30, 60):
        view.resize(columns)
    assert view.rows == ["bob: hello", "me> one two three", "    four five six seven"]


def test_a_lower_terminal_shows_the_rows_around_the_cursor() -> None:
    view = View("one\ntwo\nthree\nfour")
    view.resize(20, 4)
    assert view.rows == ["bob: hello", "↑   three", "    four"]


def test_a_terminal_that_does_not_wrap_rows_keeps_what_is_above_a_short_draft() -> None:
    view = View("short", screen=Screen(20, 10, reflows=False))
    view.resize(12)
    assert view.rows == ["bob: hello", "me> short"]


def test_rows_stay_rows_where_the_terminal_thinks_characters_wider() -> None:
    view = View()
    view.draw("x" * 20)
    off, on = view.screen.written.rindex("\x1b[?7l"), view.screen.written.rindex("\x1b[?7h")
    assert off < view.screen.written.rindex("xxxxx") < on


def test_erase_leaves_only_what_is_above() -> None:
    view = View("one\ntwo")
    view.view.erase()
    assert view.rows == ["bob: hello"]


def test_the_screen_can_be_cleared() -> None:
    view = View("draft")
    view.view.redraw_screen("draft", 5)
    assert view.rows == ["me> draft"]
