"""What the client hands out, as far as it is more than values."""

from __future__ import annotations

import pytest

from chatd.client import Position


@pytest.mark.parametrize("text", ["epochepoch-5:7", "epochepoch-5", "0", "now"])
def test_a_position_survives_a_file(text: str) -> None:
    assert str(Position.parse(text)) == text


@pytest.mark.parametrize("text", ["a:b", "a:", "a:-1", "a:²"])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no position"):
        Position.parse(text)
