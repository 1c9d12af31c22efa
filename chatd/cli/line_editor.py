"""One editable line at the bottom of a terminal, while other lines appear above it."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from typing import Final

from chatd.cli.printing import columns, plain

_SEQUENCE: Final = re.compile(r"\x1b(?:\[[0-9;]*[~A-Za-z]|O[A-Za-z]|.)?", re.DOTALL)
_UNFINISHED: Final = re.compile(r"\x1b(\[[0-9;]*|O)?\Z")
_LEFT, _RIGHT = ("\x1b[D", "\x1bOD", "\x02"), ("\x1b[C", "\x1bOC", "\x06")
_HOME, _END = ("\x1b[H", "\x1bOH", "\x1b[1~", "\x01"), ("\x1b[F", "\x1bOF", "\x1b[4~", "\x05")
_DELETE: Final = "\x1b[3~"
_CLEAR: Final = "\r\x1b[K"


class LineEditor:
    """Takes the bytes of a keyboard and writes what the terminal shows.

    `write` gets text for the terminal; `entered` each line that Return ends; `ended` is called at
    Ctrl-C, and at Ctrl-D in an empty line. `width` tells the columns of the terminal.
    """

    def __init__(
        self,
        prompt: str,
        *,
        write: Callable[[str], object],
        entered: Callable[[str], object],
        ended: Callable[[], object],
        width: Callable[[], int],
    ) -> None:
        self._prompt = prompt
        self._write = write
        self._entered = entered
        self._ended = ended
        self._width = width
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._unread = ""
        self._text = ""
        self._at = 0

    def show(self) -> None:
        """Draw the line. What does not fit is scrolled out to the left."""
        room = max(8, self._width() - columns(self._prompt) - 1)
        start = 0
        while columns(self._text[start : self._at]) > room:
            start += 1
        shown = ""
        for character in self._text[start:]:
            if columns(shown) + columns(character) > room:
                break
            shown += character
        behind = columns(shown) - columns(self._text[start : self._at])
        back = f"\x1b[{behind}D" if behind > 0 else ""
        self._write(_CLEAR + self._prompt + shown + back)

    def above(self, text: str) -> None:
        """Put lines above the one that is being typed."""
        self._write(_CLEAR + text.replace("\n", "\r\n") + "\r\n")
        self.show()

    def hide(self) -> None:
        """Leave the terminal at the beginning of an empty line."""
        self._write(_CLEAR)

    def keys(self, data: bytes) -> None:
        """What was typed."""
        self._unread += self._decoder.decode(data)
        while self._unread and _UNFINISHED.match(self._unread) is None:
            match = _SEQUENCE.match(self._unread)
            key = match[0] if match else self._unread[0]
            self._unread = self._unread[len(key) :]
            if self._key(key):
                return
        self.show()

    def _key(self, key: str) -> bool:
        """Do what a key stands for; True when that was the end."""
        if key == "\x03" or (key == "\x04" and not self._text):
            self._ended()
            return True
        if key in ("\r", "\n"):
            text, self._text, self._at = self._text, "", 0
            self._write(_CLEAR)
            self._entered(text)
        elif key in ("\x7f", "\x08"):
            self._cut(self._at - 1, self._at)
        elif key in (_DELETE, "\x04"):
            self._cut(self._at, self._at + 1)
        elif key == "\x15":
            self._cut(0, self._at)
        elif key == "\x0b":
            self._cut(self._at, len(self._text))
        elif key == "\x17":
            kept = self._text[: self._at].rstrip().rpartition(" ")
            self._cut(len(kept[0] + kept[1]), self._at)
        else:
            self._move_or_insert(key)
        return False

    def _move_or_insert(self, key: str) -> None:
        if key in _LEFT:
            self._at = max(0, self._at - 1)
        elif key in _RIGHT:
            self._at = min(len(self._text), self._at + 1)
        elif key in _HOME:
            self._at = 0
        elif key in _END:
            self._at = len(self._text)
        elif plain(key) == key and key != "\n":
            self._text = self._text[: self._at] + key + self._text[self._at :]
            self._at += len(key)

    def _cut(self, start: int, end: int) -> None:
        start = max(0, start)
        self._text = self._text[:start] + self._text[end:]
        self._at = start
