"""Rate limits of accounts, addresses and usernames."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from chatd.domain import rate_limits
from chatd.domain.rate_limits import RateLimits, Rates
from chatd.errors import RateLimited
from chatd.rates import Rate

RATES = Rates(
    registration=Rate(2, 0.1), log_in=Rate(3, 0.1), failed_log_in=Rate(2, 0.1), send=Rate(4, 0.1)
)


def test_registrations_are_limited_by_address() -> None:
    limits = RateLimits(RATES, Clock())
    for _ in range(2):
        limits.count_registration("192.0.2.1")
    with pytest.raises(RateLimited, match="registrations"):
        limits.count_registration("192.0.2.1")
    limits.count_registration("192.0.2.2")


def test_log_ins_are_limited_by_address() -> None:
    limits = RateLimits(RATES, Clock())
    for name in ("ann", "bob", "cat"):
        limits.count_log_in("192.0.2.1", name)
    with pytest.raises(RateLimited, match="log-ins"):
        limits.count_log_in("192.0.2.1", "dan")
    limits.count_log_in("192.0.2.2", "dan")


def test_wrong_passwords_are_limited_by_case_insensitive_username_and_address() -> None:
    clock = Clock()
    limits = RateLimits(RATES, clock)
    limits.count_failed_log_in("192.0.2.1", "Ann")
    limits.count_log_in("192.0.2.1", "ann")
    limits.count_failed_log_in("192.0.2.1", "ANN")
    with pytest.raises(RateLimited, match="wrong passwords"):
        limits.count_log_in("192.0.2.1", "aNn")
    # The owner of the account, at another address, is not locked out.
    limits.count_log_in("192.0.2.2", "ann")
    # What was refused because of the username does not count for the address.
    for _ in range(2):
        limits.count_log_in("192.0.2.1", "bob")
    clock.advance(10.1)
    limits.count_log_in("192.0.2.1", "ann")


def test_wrong_passwords_from_many_addresses_are_limited_by_username() -> None:
    clock = Clock()
    limits = RateLimits(Rates(guessed_log_in=Rate(3, 0.1)), clock)
    for number in range(1, 4):
        limits.count_failed_log_in(f"192.0.2.{number}", "ann")
    with pytest.raises(RateLimited, match="wrong passwords"):
        limits.count_log_in("192.0.2.9", "Ann")
    limits.count_log_in("192.0.2.9", "bob")
    clock.advance(10.1)
    limits.count_log_in("192.0.2.9", "ann")


def test_wrong_passwords_from_elsewhere_lock_nobody_out_of_where_they_have_logged_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = RateLimits(Rates(guessed_log_in=Rate(3, 0.001)), Clock())
    limits.note_right_password("192.0.2.1", "Ann")
    limits.note_right_password("2001:db8::1", "ann")
    for number in range(3):
        limits.count_failed_log_in(f"198.51.100.{number}", "ann")
    for address in ("192.0.2.1", "2001:db8::2"):
        limits.count_log_in(address, "ANN")
    for address in ("192.0.2.2", "2001:db8:0:1::1"):
        with pytest.raises(RateLimited):
            limits.count_log_in(address, "ann")
    # What is wrong from there counts there.
    for _ in range(20):
        limits.count_failed_log_in("192.0.2.1", "ann")
    with pytest.raises(RateLimited):
        limits.count_log_in("192.0.2.1", "ann")
    # Only the latest places are remembered.
    monkeypatch.setattr(rate_limits, "MAX_KNOWN_PLACES", 2)
    limits.note_right_password("192.0.2.1", "bob")
    limits.note_right_password("2001:db8::1", "ann")
    limits.note_right_password("192.0.2.9", "cat")
    assert list(limits._known_places) == [
        ("ann", "2001:db8::/64"),
        ("cat", "192.0.2.9"),
    ]


def test_counting_wrong_passwords_never_raises() -> None:
    limits = RateLimits(RATES, Clock())
    for _ in range(9):
        limits.count_failed_log_in("192.0.2.1", "ann")


def test_sends_are_limited_by_account() -> None:
    limits = RateLimits(RATES, Clock())
    for _ in range(4):
        limits.count_send(1)
    with pytest.raises(RateLimited, match="messages"):
        limits.count_send(1)
    limits.count_send(2)


def test_texts_are_limited_by_account_and_by_the_bytes_of_an_address() -> None:
    clock = Clock()
    limits = RateLimits(Rates(send=Rate(3, 0.1), message_bytes=Rate(10, 1.0)), clock)
    limits.count_text(1, "192.0.2.1", 4)
    limits.count_text(2, "192.0.2.1", 6)
    with pytest.raises(RateLimited, match="message bytes"):
        limits.count_text(1, "192.0.2.1", 1)
    limits.count_text(1, "192.0.2.2", 1)
    # What an account is refused takes nothing from others of its address.
    for _ in range(9):
        with pytest.raises(RateLimited, match="messages"):
            limits.count_text(1, "192.0.2.2", 9)
    limits.count_text(2, "192.0.2.2", 1)
    clock.advance(1)
    limits.count_text(2, "192.0.2.1", 1)
    limits.set_rates(Rates(message_bytes=Rate(10, 5.0)))
    clock.advance(1)
    for _ in range(5):
        limits.count_text(3, "192.0.2.1", 1)
    with pytest.raises(RateLimited):
        limits.count_text(3, "192.0.2.1", 1)


def test_without_rates_nothing_is_limited() -> None:
    limits = RateLimits(None, Clock())
    for _ in range(1000):
        limits.count_registration("192.0.2.1")
        limits.count_log_in("192.0.2.1", "ann")
        limits.count_failed_log_in("192.0.2.1", "ann")
        limits.count_text(1, "192.0.2.1", 1 << 30)
        limits.count_send(1)


def test_the_default_rates_are_far_above_what_a_person_needs() -> None:
    clock = Clock()
    limits = RateLimits(Rates(), clock)
    for _ in range(600):
        clock.advance(10)
        limits.count_registration("192.0.2.1")
        limits.count_log_in("192.0.2.1", "ann")
        limits.count_failed_log_in("192.0.2.1", "ann")
        for _ in range(20):
            limits.count_send(1)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8:0:0:ffff::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("unix:/run/a", "unix:/run/a", True),
        ("unix:/run/a", "unix:/run/b", False),
        ("", "", True),
    ],
)
def test_ipv6_addresses_are_limited_by_network(one: str, other: str, same: bool) -> None:
    limits = RateLimits(Rates(registration=Rate(1, 0.1)), Clock())
    limits.count_registration(one)
    if same:
        with pytest.raises(RateLimited):
            limits.count_registration(other)
    else:
        limits.count_registration(other)


def test_larger_networks_have_a_few_times_the_rate_of_an_address() -> None:
    limits = RateLimits(Rates(registration=Rate(2, 0.1)), Clock())

    def register(networks: list[str]) -> int:
        """How many accounts these networks may register, two each, until one is refused."""
        done = 0
        for network in networks:
            for _ in range(2):
                try:
                    limits.count_registration(f"{network}::1")
                except RateLimited:
                    return done
                done += 1
        return done

    # The /64 networks of a /56, then those of a /48, then those of others.
    assert register([f"2001:db8:0:{number:x}" for number in range(99)]) == 4
    assert register([f"2001:db8:0:{number:x}00" for number in range(1, 99)]) == 4
    assert register([f"2001:db8:{number:x}:0" for number in range(1, 999)]) == 200 - 8


def test_all_addresses_together_have_many_times_the_rate_of_one() -> None:
    limits = RateLimits(Rates(log_in=Rate(1, 0.1)), Clock())
    for number in range(100):
        limits.count_log_in(f"192.0.2.{number}", "ann")
    with pytest.raises(RateLimited):
        limits.count_log_in("192.0.2.100", "ann")


def test_refusals_are_counted_by_limit() -> None:
    limits = RateLimits(Rates(failed_log_in=Rate(1, 0.1), send=Rate(1, 0.1)), Clock())
    for _ in range(3):
        limits.count_failed_log_in("192.0.2.1", "ann")
    assert set(limits.refused().values()) == {0}, "a wrong password was not refused"
    for _ in range(2):
        with pytest.raises(RateLimited):
            limits.count_log_in("192.0.2.1", "ann")
    limits.count_send(1)
    with pytest.raises(RateLimited):
        limits.count_send(1)
    assert limits.refused() == {
        "registration": 0,
        "log_in": 0,
        "failed_log_in": 2,
        "guessed_log_in": 0,
        "read": 0,
        "send": 1,
        "message_bytes": 0,
    }


def test_an_ipv6_network_cannot_lock_the_owner_of_an_account_out() -> None:
    clock = Clock()
    limits = RateLimits(Rates(), clock)
    # As fast as it goes, for ten minutes, from a new /64 of one /48 each time.
    refused = 0
    for number in range(6000):
        address = f"2001:db8:0:{number:x}::1"
        try:
            limits.count_log_in(address, "ann")
            limits.count_failed_log_in(address, "ann")
        except RateLimited:
            refused += 1
        clock.advance(0.1)
    limits.count_log_in("192.0.2.1", "ann")
    assert refused > 5000
