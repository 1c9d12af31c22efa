"""What the text of a message may be."""

from __future__ import annotations

import pytest

from chatd.domain.texts import encode_text
from chatd.errors import InvalidBody, MessageTooLarge


@pytest.mark.parametrize("text", ["x", "é" * 5, "\U0001f600" * 2, " x\n", "\x1c", "\ufeff"])
def test_texts_are_encoded(text: str) -> None:
    assert encode_text(text, 10) == text.encode()


@pytest.mark.parametrize(
    "text", ["", " ", "\t\n\r\x85\xa0\u2003\u3000", "a\0", "\ud800", "a\udfffb"]
)
def test_what_is_no_message_is_refused(text: str) -> None:
    with pytest.raises(InvalidBody):
        encode_text(text, 10)


@pytest.mark.parametrize("text", ["x" * 11, "é" * 6, "\U0001f600" * 3])
def test_the_size_in_bytes_is_limited(text: str) -> None:
    with pytest.raises(MessageTooLarge, match="10 are allowed"):
        encode_text(text, 10)
