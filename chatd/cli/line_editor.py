"""An editor for drafts in a terminal that keeps its prompt below other output."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Hashable
from typing import Final

from chatd.cli.draft import KEYS, Draft
from chatd.cli.keys import KeyReader, Paste
from chatd.cli.printing import escape_controls
from chatd.cli.prompt import PromptView, Size

_INTERRUPT, _END_OF_INPUT, _CLEAR_SCREEN = "\x03", "\x04", "\x0c"
_ENTER: Final = ("\r", "\n")


class LineEditor:
    """Turns keyboard input into texts and draws the one being edited.

    `write` writes to the terminal, `size` returns its columns and rows. `on_line` is called with
    each text that Enter completes, which has several lines if it was pasted so. `on_interrupt` is
    called on Ctrl-C and `on_end` on Ctrl-D, if the draft is empty.
    """

    def __init__(
        self,
        prompt: str,
        *,
        write: Callable[[str], object],
        size: Callable[[], Size],
        on_line: Callable[[str], object],
        on_interrupt: Callable[[], object],
        on_end: Callable[[], object],
    ) -> None:
        self._view = PromptView(prompt, write=write, size=size)
        self._on_line = on_line
        self._on_interrupt = on_interrupt
        self._on_end = on_end
        self._keys = KeyReader()
        self._draft = Draft()
        self._closed = False

    def show(self) -> None:
        """Draw the prompt and the draft."""
        self._view.draw(self._draft.text, self._draft.cursor)

    def set_prompt(self, prompt: str) -> None:
        """Draw the draft behind another prompt."""
        self._view.set_prompt(prompt)
        if not self._closed:
            self.show()

    def print_above(self, text: str, key: Hashable | None = None) -> None:
        """Print lines above the prompt; `key` is for `replace`."""
        self._view.draw_below(text, self._draft.text, self._draft.cursor, key)

    def replace(self, key: Hashable, text: str) -> bool:
        """Replace what was printed with a key; False if it is not in view any more."""
        return self._view.replace(key, text, self._draft.text, self._draft.cursor)

    def resize(self) -> None:
        """Draw again after the size of the terminal has changed."""
        self._view.redraw_resized(self._draft.text, self._draft.cursor)

    def close(self) -> None:
        """Erase the prompt and the draft, and ignore the keyboard from then on."""
        self._closed = True
        self._view.erase()

    def feed(self, data: bytes) -> None:
        """Process bytes from the keyboard."""
        for key in self._keys.feed(data):
            if self._closed:
                return
            if isinstance(key, Paste):
                self._draft.insert(_without_controls(key.text))
            elif key == _INTERRUPT and self._draft.text:
                self._draft.clear()
            elif key == _INTERRUPT:
                self._on_interrupt()
            elif key == _END_OF_INPUT and not self._draft.text:
                self._on_end()
            elif key in _ENTER:
                self._enter()
            elif key == _CLEAR_SCREEN:
                self._view.redraw_screen(self._draft.text, self._draft.cursor)
            elif key in KEYS:
                KEYS[key](self._draft)
            elif escape_controls(key) == key:
                self._draft.insert(key)
        if not self._closed:
            self.show()

    def _enter(self) -> None:
        text = self._draft.accept()
        self._view.erase()
        self._on_line(text)


def _without_controls(text: str) -> str:
    """The text without control characters but tabs and line feeds."""
    return "".join(c for c in text if c in "\t\n" or unicodedata.category(c) != "Cc")
