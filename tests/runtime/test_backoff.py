"""Delays between retries."""

from __future__ import annotations

import pytest

from chatd.runtime.backoff import Backoff


@pytest.mark.parametrize(("random", "factor"), [(0.0, 0.5), (0.5, 0.75), (0.999999, 1.0)])
def test_delays_double_up_to_the_longest_and_have_jitter(random: float, factor: float) -> None:
    backoff = Backoff(lambda: random, first=1, longest=5)
    delays = [backoff.next() for _ in range(5)]
    assert delays == pytest.approx([factor * each for each in (1, 2, 4, 5, 5)], rel=1e-5)
    backoff.reset()
    assert backoff.next() == pytest.approx(factor, rel=1e-5)
