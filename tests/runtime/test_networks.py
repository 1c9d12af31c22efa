"""Networks that one subscriber controls, and amounts of them."""

from __future__ import annotations

from math import inf

import pytest

from chatd.runtime.networks import NetworkCounts, network, networks


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("192.0.2.1", ("192.0.2.1",)),
        ("::ffff:192.0.2.1", ("192.0.2.1",)),
        ("64:ff9b::192.0.2.1", ("192.0.2.1",)),
        ("local", ("local",)),
        (
            "2001:db8:1:203:4::5",
            ("2001:db8:1:203::/64", "2001:db8:1:200::/56", "2001:db8:1::/48"),
        ),
    ],
)
def test_networks(address: str, found: tuple[str, ...]) -> None:
    assert networks(address) == found
    assert network(address) == found[-1]


def test_amounts_count_in_all_networks_of_an_address() -> None:
    counts = NetworkCounts()
    one, other = networks("2001:db8::1"), networks("2001:db8:0:1::1")
    counts.add(one, 3)
    counts.add(other, 4)
    assert [counts.of(each) for each in (one, other, networks("192.0.2.1"), ())] == [3, 4, 0, 0]
    # The /64 has 3 of 10, the others 7 of 20 and of 40.
    assert counts.excess(one, 10) == -7
    assert counts.excess(one, 3) == 1
    assert counts.excess(one, 100, most=6) == 1
    assert counts.excess((), 0) == -inf
    counts.add(one, -3)
    counts.add(other, -4)
    assert not counts
    counts.add(one, 1)
    counts.clear()
    assert not counts
