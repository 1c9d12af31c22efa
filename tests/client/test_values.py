"""`Position` as a string."""

from __future__ import annotations

import pytest

from chatd.client import Position


@pytest.mark.parametrize("text", ["epochepoch-5:7", "epochepoch-5", "0", "now"])
def test_a_position_can_be_stored_as_text(text: str) -> None:
    assert str(Position.parse(text)) == text


@pytest.mark.parametrize("text", ["a:b", "a:", "a:-1", "a:²"])
def test_other_text_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="not a position"):
        Position.parse(text)
