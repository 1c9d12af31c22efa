"""Grapheme clusters: what a reader takes for one character, for a cursor that moves by them.

A simplification of UAX #29 with what the standard library knows; Hangul written in conjoining
letters moves letter by letter.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from chatd.cli.printing import display_width, escape_controls, is_control

_ZERO_WIDTH_JOINER: Final = "\u200d"
_ELLIPSIS: Final = "…"


def split_graphemes(text: str) -> Iterator[str]:
    """The grapheme clusters of a text, in order."""
    cluster = ""
    for character in text:
        if cluster and not character.isascii() and _extends(cluster, character):
            cluster += character
        else:
            if cluster:
                yield cluster
            cluster = character
    if cluster:
        yield cluster


def _extends(cluster: str, character: str) -> bool:
    if is_control(character) or is_control(cluster[0]):
        return False
    if unicodedata.category(character) in ("Mn", "Me", "Mc", "Cf"):
        return True
    if "\U0001f3fb" <= character <= "\U0001f3ff":
        # A skin tone.
        return not cluster.isascii()
    if _is_regional_indicator(character):
        return len(cluster) == 1 and _is_regional_indicator(cluster)
    # Emoji such as families are several symbols, joined.
    return cluster[-1] == _ZERO_WIDTH_JOINER and unicodedata.category(character) == "So"


def _is_regional_indicator(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def grapheme_width(cluster: str) -> int:
    """The number of terminal columns of a grapheme cluster as `escape_controls` shows it."""
    if " " <= cluster <= "~" and len(cluster) == 1:
        return 1
    width = display_width(escape_controls(cluster))
    return width if is_control(cluster[0]) else min(width, 2)


def text_width(text: str) -> int:
    """The number of terminal columns of a text, with its grapheme clusters as terminals draw them.

    `display_width` does not know that a terminal draws several emoji as one.
    """
    return sum(map(grapheme_width, split_graphemes(text)))


def next_boundary(text: str, index: int) -> int:
    """The end of the grapheme cluster at `index`."""
    if text[index + 1 : index + 2].isascii():
        # ASCII extends nothing. This includes the end of the text.
        return min(index + 1, len(text))
    return next((end for end in _ends(text) if end > index), len(text))


def previous_boundary(text: str, index: int) -> int:
    """The start of the grapheme cluster that ends at `index`, or that `index` is inside of."""
    if text[index - 1 : index].isascii():
        return max(0, index - 1)
    before = 0
    for end in _ends(text):
        if end >= index:
            break
        before = end
    return before


def _ends(text: str) -> Iterator[int]:
    return accumulate(map(len, split_graphemes(text)))


def clip(text: str, width: int) -> str:
    """The text if it fits into `width` columns, else as much as fits with an ellipsis."""
    shown, columns, fitting = "", 0, ""
    for cluster in split_graphemes(text):
        columns += grapheme_width(cluster)
        if columns > width:
            return fitting + _ELLIPSIS
        shown += cluster
        if columns < width:
            fitting = shown
    return text
