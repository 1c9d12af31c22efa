"""Token buckets."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from chatd.domain.token_buckets import NetworkAmounts, TokenBuckets
from chatd.errors import RateLimited
from chatd.rates import Rate


def take_all(buckets: TokenBuckets, key: object) -> int:
    """Empty a bucket; returns how many tokens it had."""
    for number in range(1000):
        try:
            buckets.take(key)
        except RateLimited:
            return number
    raise AssertionError("no limit")


def test_a_bucket_starts_full() -> None:
    buckets = TokenBuckets("letters", Rate(5, 1.0), Clock())
    assert take_all(buckets, "ann") == 5
    assert take_all(buckets, "ann") == 0
    assert take_all(buckets, "bob") == 5


def test_a_bucket_is_refilled_up_to_its_burst() -> None:
    clock = Clock()
    buckets = TokenBuckets("letters", Rate(5, 2.0), clock)
    assert take_all(buckets, "ann") == 5
    clock.advance(0.49)
    assert take_all(buckets, "ann") == 0
    clock.advance(0.02)
    assert take_all(buckets, "ann") == 1
    clock.advance(1.0)
    assert take_all(buckets, "ann") == 2
    clock.advance(1000)
    assert take_all(buckets, "ann") == 5


def test_an_error_tells_when_to_retry() -> None:
    clock = Clock()
    buckets = TokenBuckets("letters", Rate(1, 0.1), clock)
    buckets.take("ann")
    clock.advance(4)
    with pytest.raises(RateLimited, match="too many letters") as error:
        buckets.take("ann")
    assert error.value.retry_after == pytest.approx(6)
    clock.advance(error.value.retry_after + 0.001)
    buckets.take("ann")


def test_a_refused_attempt_takes_no_token() -> None:
    clock = Clock()
    buckets = TokenBuckets("letters", Rate(1, 1.0), clock)
    buckets.take("ann")
    for _ in range(9):
        clock.advance(0.1)
        with pytest.raises(RateLimited):
            buckets.take("ann")
    clock.advance(0.11)
    buckets.take("ann")


def test_a_check_takes_no_token() -> None:
    buckets = TokenBuckets("letters", Rate(2, 1.0), Clock())
    for _ in range(9):
        buckets.check("ann")
    assert take_all(buckets, "ann") == 2
    with pytest.raises(RateLimited) as error:
        buckets.check("ann")
    assert error.value.retry_after == pytest.approx(1)


def test_the_least_recently_used_bucket_is_discarded_first() -> None:
    buckets = TokenBuckets("letters", Rate(2, 0.001), Clock(), max_keys=3)
    for key in ("ann", "bob", "cat"):
        assert take_all(buckets, key) == 2
    # A new bucket replaces that of ann, which then counts as full.
    buckets.take("dan")
    assert len(buckets._buckets) == 3
    assert take_all(buckets, "bob") == take_all(buckets, "cat") == 0
    assert take_all(buckets, "ann") == 2
    assert len(buckets._buckets) == 3


def test_a_used_bucket_is_kept() -> None:
    buckets = TokenBuckets("letters", Rate(3, 0.001), Clock(), max_keys=2)
    buckets.take("ann")
    buckets.take("bob")
    buckets.take("ann")
    buckets.take("cat")
    assert take_all(buckets, "ann") == 1


def test_what_takes_more_than_the_burst_is_refused_until_the_bucket_is_full_again() -> None:
    clock = Clock()
    amounts = NetworkAmounts("letters", Rate(10, 2.0), clock)
    amounts.take("192.0.2.1", 25)
    with pytest.raises(RateLimited, match="too many letters") as error:
        amounts.take("192.0.2.1", 1)
    assert error.value.retry_after == pytest.approx(8)
    amounts.take("192.0.2.2", 1)
    clock.advance(8)
    amounts.take("192.0.2.1", 1)
    assert amounts.refused == 1


def test_amounts_of_larger_networks_are_a_few_times_those_of_an_address() -> None:
    amounts = NetworkAmounts("letters", Rate(10, 0.001), Clock())

    def take(networks: list[str]) -> int:
        """How many of these networks may take ten."""
        for done, network in enumerate(networks):
            try:
                amounts.take(f"{network}::1", 10)
            except RateLimited:
                return done
        return len(networks)

    # The /64 networks of a /56, those of its /48, and those of others.
    assert take([f"2001:db8:0:{number:x}" for number in range(9)]) == 2
    assert take([f"2001:db8:0:{number:x}00" for number in range(1, 9)]) == 2
    assert take([f"2001:db8:{number:x}:0" for number in range(1, 999)]) == 998
