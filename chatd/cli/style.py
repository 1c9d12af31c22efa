"""Colours of the terminal, where it has them and the user wants them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Final

_BOLD, _DIM, _RED = "1", "2", "31"
# Readable on dark and on light backgrounds, and different from errors.
_NAMES: Final = ("1;36", "1;35", "1;32", "1;34")


class Style:
    """Colours the parts of the output; with `colours` off it returns them as they are."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours

    def time(self, text: str) -> str:
        """A time, or a line that separates days."""
        return self._set(_DIM, text)

    def name(self, text: str, user_id: int) -> str:
        """The name of a user; each has a colour of their own."""
        return self._set(_NAMES[user_id % len(_NAMES)], text)

    def own_name(self, text: str) -> str:
        """The name of the user who is logged in."""
        return self._set(_BOLD, text)

    def note(self, text: str) -> str:
        """What the command itself has to say."""
        return self._set(_DIM, text)

    def error(self, text: str) -> str:
        return self._set(_RED, text)

    def _set(self, attributes: str, text: str) -> str:
        return f"\x1b[{attributes}m{text}\x1b[0m" if self._colours else text


PLAIN: Final = Style(colours=False)
"""Without colours."""


def style_for(stream: IO[str], environment: Mapping[str, str]) -> Style:
    """The style for output to `stream`: coloured on terminals that can, unless NO_COLOR is set."""
    capable = environment.get("TERM", "dumb") != "dumb" and not environment.get("NO_COLOR")
    return Style(colours=capable and stream.isatty())
