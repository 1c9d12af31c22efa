"""A one-line editor for terminals that keeps its line below other output."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from typing import Final

from chatd.cli.printing import display_width, escape_controls

_SEQUENCE: Final = re.compile(r"\x1b(?:\[[0-9;]*[~A-Za-z]|O[A-Za-z]|.)?", re.DOTALL)
_UNFINISHED: Final = re.compile(r"\x1b(\[[0-9;]*|O)?\Z")
_LEFT, _RIGHT = ("\x1b[D", "\x1bOD", "\x02"), ("\x1b[C", "\x1bOC", "\x06")
_HOME, _END = ("\x1b[H", "\x1bOH", "\x1b[1~", "\x01"), ("\x1b[F", "\x1bOF", "\x1b[4~", "\x05")
_DELETE: Final = "\x1b[3~"
_CLEAR: Final = "\r\x1b[K"
_SHORT_PROMPT: Final = "> "


class LineEditor:
    """Turns keyboard input into lines and draws the line being edited.

    `write` writes to the terminal. `on_line` is called with each line that Return completes,
    `on_exit` on Ctrl-C, and on Ctrl-D in an empty line. `width` returns the terminal's columns.
    """

    def __init__(
        self,
        prompt: str,
        *,
        write: Callable[[str], object],
        on_line: Callable[[str], object],
        on_exit: Callable[[], object],
        width: Callable[[], int],
    ) -> None:
        self._prompt = prompt
        self._write = write
        self._on_line = on_line
        self._on_exit = on_exit
        self._width = width
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = ""
        self._text = ""
        self._cursor = 0

    def show(self) -> None:
        """Draw the line; a long one is scrolled so that the cursor stays visible."""
        width = self._width()
        prompt = self._prompt if 2 * display_width(self._prompt) <= width else _SHORT_PROMPT
        room = max(1, width - display_width(prompt) - 1)
        start = 0
        while display_width(self._text[start : self._cursor]) > room:
            start += 1
        shown = ""
        for character in self._text[start:]:
            if display_width(shown) + display_width(character) > room:
                break
            shown += character
        behind = display_width(shown) - display_width(self._text[start : self._cursor])
        back = f"\x1b[{behind}D" if behind > 0 else ""
        self._write(_CLEAR + prompt + shown + back)

    def print_above(self, text: str) -> None:
        """Print lines above the line being edited."""
        self._write(_CLEAR + text.replace("\n", "\r\n") + "\r\n")
        self.show()

    def hide(self) -> None:
        """Clear the line."""
        self._write(_CLEAR)

    def feed(self, data: bytes) -> None:
        """Process bytes from the keyboard."""
        self._pending += self._decoder.decode(data)
        while self._pending and _UNFINISHED.match(self._pending) is None:
            match = _SEQUENCE.match(self._pending)
            key = match[0] if match else self._pending[0]
            self._pending = self._pending[len(key) :]
            if self._handle_key(key):
                return
        self.show()

    def _handle_key(self, key: str) -> bool:
        """Handle a key; True if it ends the session."""
        if key == "\x03" or (key == "\x04" and not self._text):
            self._on_exit()
            return True
        if key in ("\r", "\n"):
            text, self._text, self._cursor = self._text, "", 0
            self._write(_CLEAR)
            self._on_line(text)
        elif key in ("\x7f", "\x08"):
            self._delete(self._cursor - 1, self._cursor)
        elif key in (_DELETE, "\x04"):
            self._delete(self._cursor, self._cursor + 1)
        elif key == "\x15":
            self._delete(0, self._cursor)
        elif key == "\x0b":
            self._delete(self._cursor, len(self._text))
        elif key == "\x17":
            rest = self._text[: self._cursor].rstrip().rpartition(" ")
            self._delete(len(rest[0] + rest[1]), self._cursor)
        else:
            self._move_or_insert(key)
        return False

    def _move_or_insert(self, key: str) -> None:
        if key in _LEFT:
            self._cursor = max(0, self._cursor - 1)
        elif key in _RIGHT:
            self._cursor = min(len(self._text), self._cursor + 1)
        elif key in _HOME:
            self._cursor = 0
        elif key in _END:
            self._cursor = len(self._text)
        elif escape_controls(key) == key and key != "\n":
            self._text = self._text[: self._cursor] + key + self._text[self._cursor :]
            self._cursor += len(key)

    def _delete(self, start: int, end: int) -> None:
        start = max(0, start)
        self._text = self._text[:start] + self._text[end:]
        self._cursor = start
