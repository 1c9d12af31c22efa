"""What the text of a message may be."""

from __future__ import annotations

import re
from typing import Final

from chatd.errors import InvalidBody, MessageTooLarge

# White_Space of the Unicode Character Database; `str.isspace` includes U+001C..U+001F as well.
_BLANK: Final = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*")


def encode_text(text: str, max_bytes: int) -> bytes:
    """The text of a message in UTF-8; raises `InvalidBody` or `MessageTooLarge`."""
    if _BLANK.fullmatch(text):
        raise InvalidBody("message: empty, or nothing but white space")
    if "\0" in text:
        raise InvalidBody("message: U+0000 cannot be stored")
    try:
        encoded = text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidBody("message: a lone surrogate is not text") from None
    if len(encoded) > max_bytes:
        raise MessageTooLarge(f"message: {len(encoded)} bytes of UTF-8, {max_bytes} are allowed")
    return encoded
