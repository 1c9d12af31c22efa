"""Splits what a terminal sends into keys and pasted texts."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

# A control sequence (ECMA-48, and the function keys of the Linux console), a key of the application
# keypad, or a key pressed with Alt.
_SEQUENCE: Final = re.compile(r"\x1b(?:\[\[.|\[[0-?]*[ -/]*[@-Z\\-~]|O[ -~]|\[|[^\[O])", re.DOTALL)
_UNFINISHED: Final = re.compile(r"\x1b(?:\[\[?|\[[0-?]+[ -/]*|O)?\Z")
_PASTE_START: Final = "\x1b[200~"
_PASTE_END: Final = "\x1b[201~"


@dataclass(frozen=True, slots=True)
class Paste:
    """A text that was pasted, with line feeds at the ends of lines."""

    text: str


class KeyReader:
    """Turns bytes from a terminal into keys (a character or an escape sequence) and pastes.

    Pastes are recognized in terminals that support bracketed paste; it has to be switched on.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = ""
        self._pasting = False

    def feed(self, data: bytes) -> Iterator[str | Paste]:
        """The keys and pastes that these bytes complete."""
        scanned = max(0, len(self._pending) - len(_PASTE_END))
        self._pending += self._decoder.decode(data)
        while self._pending:
            if self._pasting:
                end = self._pending.find(_PASTE_END, scanned)
                if end < 0:
                    return
                text, self._pending = self._pending[:end], self._pending[end + len(_PASTE_END) :]
                self._pasting = False
                yield Paste(text.replace("\r\n", "\n").replace("\r", "\n"))
            elif _UNFINISHED.match(self._pending):
                return
            else:
                match = _SEQUENCE.match(self._pending)
                key = match[0] if match else self._pending[0]
                self._pending = self._pending[len(key) :]
                if key == _PASTE_START:
                    self._pasting = True
                else:
                    yield key
            scanned = 0
