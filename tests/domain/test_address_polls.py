"""How many polls and streams one address holds; more in tests/api/test_address_polls.py."""

from __future__ import annotations

import pytest

from chatd.domain.address_polls import AddressPolls
from chatd.errors import Overloaded


def test_each_place_has_a_share_that_may_change() -> None:
    most: list[int | None] = [1]
    polls = AddressPolls(lambda: most[0])
    polls.enter("192.0.2.1")
    polls.enter("192.0.2.2")
    with pytest.raises(Overloaded) as refused:
        polls.enter("192.0.2.1")
    assert refused.value.bound == "polls_of_address"
    most[0] = None
    polls.enter("192.0.2.1")
    polls.leave("192.0.2.1")
    most[0] = 1
    with pytest.raises(Overloaded):
        polls.enter("192.0.2.1")
    polls.leave("192.0.2.1")
    polls.enter("192.0.2.1")


def test_networks_of_one_subscriber_are_one_place() -> None:
    polls = AddressPolls(lambda: 1)
    assert polls.place("2001:db8::1") == polls.place("2001:db8:0:ff::2")
    assert polls.place("2001:db8::1") != polls.place("2001:db8:1::1")
    assert polls.place("192.0.2.1") != polls.place("192.0.2.2")
    assert polls.place("local") == "local"


def test_who_is_not_counted_has_no_share() -> None:
    polls = AddressPolls(lambda: 0)
    place = polls.place(None)
    polls.enter(place)
    polls.leave(place)
