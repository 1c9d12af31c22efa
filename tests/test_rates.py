"""The text of rates."""

import pytest

from chatd.rates import Rate


@pytest.mark.parametrize("unit", ["s", "min", "h"])
@pytest.mark.parametrize("count", [1, 7, 11, 59, 60, 61, 3599, 999_999_999])
def test_a_rate_is_written_so_that_it_can_be_read(count: int, unit: str) -> None:
    rate = Rate.parse(f"{count}/{unit} burst 5")
    assert Rate.parse(str(rate)) == rate


def test_the_shortest_unit_is_written_that_is_exact() -> None:
    assert str(Rate.parse("60/min burst 50")) == "1/s burst 50"
    assert str(Rate.parse("61/min burst 50")) == "61/min burst 50"
