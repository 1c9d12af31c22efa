"""The text being written in the terminal, and the texts written before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import dropwhile
from typing import Final

from chatd.cli.graphemes import next_boundary, previous_boundary, split_graphemes


class Draft:
    """A text of one or more lines with a cursor, and a history of earlier texts.

    The history is edited as in shells: a recalled text may be changed, and changes are kept until
    a text is accepted; the newest entry is the text that was being written.
    """

    def __init__(self) -> None:
        self.text = ""
        self.cursor = 0
        """Index in `text`, always between two grapheme clusters."""
        self._accepted: list[str] = []
        self._recallable = [""]
        self._position = 0
        self._killed = ""

    def insert(self, text: str) -> None:
        """Insert a text before the cursor."""
        self._replace(self.cursor, self.cursor, text)

    def clear(self) -> None:
        """Delete all of it, and return from the history."""
        self._recallable = [*self._accepted, ""]
        self._position = len(self._accepted)
        self._set("")

    def accept(self) -> str:
        """Take the text away; the history remembers it, unless it is blank or repeated."""
        text = self.text
        if text.strip() and self._accepted[-1:] != [text]:
            self._accepted.append(text)
        self.clear()
        return text

    def move_left(self) -> None:
        self.cursor = previous_boundary(self.text, self.cursor)

    def move_right(self) -> None:
        self.cursor = next_boundary(self.text, self.cursor)

    def move_word_left(self) -> None:
        self.cursor = self._word_start()

    def move_word_right(self) -> None:
        self.cursor = self._word_end()

    def move_to_line_start(self) -> None:
        self.cursor = self._line_start()

    def move_to_line_end(self) -> None:
        self.cursor = self._line_end()

    def move_up(self) -> None:
        """Move to the line above; in the first line, recall the text before this one."""
        start = self._line_start()
        if start:
            column = self.cursor - start
            self.cursor = start - 1
            self._move_to_column(column)
        else:
            self.recall_previous()

    def move_down(self) -> None:
        """Move to the line below; in the last line, return to the text after this one."""
        end = self._line_end()
        if end < len(self.text):
            column = self.cursor - self._line_start()
            self.cursor = end + 1
            self._move_to_column(column)
        else:
            self.recall_next()

    def recall_previous(self) -> None:
        self._recall(self._position - 1)

    def recall_next(self) -> None:
        self._recall(self._position + 1)

    def delete_left(self) -> None:
        self._replace(previous_boundary(self.text, self.cursor), self.cursor)

    def delete_right(self) -> None:
        self._replace(self.cursor, next_boundary(self.text, self.cursor))

    def kill_to_line_start(self) -> None:
        self._kill(self._line_start(), self.cursor)

    def kill_to_line_end(self) -> None:
        """Delete the rest of the line, or the line break at its end."""
        end = self._line_end()
        self._kill(self.cursor, end if end > self.cursor else end + 1)

    def kill_word_left(self) -> None:
        self._kill(self._word_start(), self.cursor)

    def kill_word_right(self) -> None:
        self._kill(self.cursor, self._word_end())

    def kill_non_spaces_left(self) -> None:
        """Delete back to the white space before the word."""
        self._kill(self._non_spaces_start(), self.cursor)

    def yank(self) -> None:
        """Insert what was killed last."""
        self.insert(self._killed)

    def break_line(self) -> None:
        self.insert("\n")

    def _set(self, text: str) -> None:
        self.text, self.cursor = text, len(text)

    def _replace(self, start: int, end: int, text: str = "") -> None:
        self.text = self.text[:start] + text + self.text[end:]
        self.cursor = start + len(text)

    def _kill(self, start: int, end: int) -> None:
        self._killed = self.text[start:end] or self._killed
        self._replace(start, end)

    def _recall(self, position: int) -> None:
        if 0 <= position < len(self._recallable):
            self._recallable[self._position] = self.text
            self._position = position
            self._set(self._recallable[position])

    def _line_start(self) -> int:
        return self.text.rfind("\n", 0, self.cursor) + 1

    def _line_end(self) -> int:
        end = self.text.find("\n", self.cursor)
        return len(self.text) if end < 0 else end

    def _move_to_column(self, column: int) -> None:
        # The column may be inside of a grapheme cluster; then the cursor moves before it.
        index = min(self._line_start() + column, self._line_end())
        self.cursor = previous_boundary(self.text, index + 1)

    def _word_start(self) -> int:
        return self._start_of(_is_word)

    def _word_end(self) -> int:
        after = self.text[self.cursor :]
        return self.cursor + len(after) - _length_after(split_graphemes(after), _is_word)

    def _non_spaces_start(self) -> int:
        return self._start_of(lambda cluster: not cluster.isspace())

    def _start_of(self, belongs: Callable[[str], bool]) -> int:
        return _length_after(reversed([*split_graphemes(self.text[: self.cursor])]), belongs)


def _is_word(cluster: str) -> bool:
    return cluster[0].isalnum() or cluster[0] == "_"


def _length_after(clusters: Iterator[str], belongs: Callable[[str], bool]) -> int:
    """The length of what remains after the next run of clusters that belong together."""
    rest = dropwhile(belongs, dropwhile(lambda cluster: not belongs(cluster), clusters))
    return sum(map(len, rest))


KEYS: Final[dict[str, Callable[[Draft], None]]] = {
    key: action
    for action, keys in [
        (Draft.move_left, ["\x1b[D", "\x1bOD", "\x02"]),
        (Draft.move_right, ["\x1b[C", "\x1bOC", "\x06"]),
        (Draft.move_up, ["\x1b[A", "\x1bOA"]),
        (Draft.move_down, ["\x1b[B", "\x1bOB"]),
        (Draft.recall_previous, ["\x10"]),
        (Draft.recall_next, ["\x0e"]),
        (Draft.move_to_line_start, ["\x1b[H", "\x1bOH", "\x1b[1~", "\x1b[7~", "\x01"]),
        (Draft.move_to_line_end, ["\x1b[F", "\x1bOF", "\x1b[4~", "\x1b[8~", "\x05"]),
        (Draft.move_word_left, ["\x1bb", "\x1b[1;5D", "\x1b[1;3D", "\x1b[5D", "\x1bOd"]),
        (Draft.move_word_right, ["\x1bf", "\x1b[1;5C", "\x1b[1;3C", "\x1b[5C", "\x1bOc"]),
        (Draft.delete_left, ["\x7f", "\x08"]),
        (Draft.delete_right, ["\x1b[3~", "\x04"]),
        (Draft.kill_to_line_start, ["\x15"]),
        (Draft.kill_to_line_end, ["\x0b"]),
        (Draft.kill_non_spaces_left, ["\x17"]),
        (Draft.kill_word_left, ["\x1b\x7f", "\x1b\x08"]),
        (Draft.kill_word_right, ["\x1bd", "\x1b[3;5~"]),
        (Draft.yank, ["\x19"]),
        (Draft.break_line, ["\x1b\r", "\x1b\n"]),
    ]
    for key in keys
}
"""What keys do: those of xterm and its relatives, of rxvt, and of Emacs."""
