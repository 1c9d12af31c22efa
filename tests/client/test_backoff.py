"""Retry delays."""

import pytest

from chatd.client.backoff import MAX_RETRY_AFTER_SECONDS, Backoff, parse_retry_after

NOON = 1_800_000_000.0  # 2027-01-15T08:00:00Z


def test_delays_double_up_to_the_cap() -> None:
    backoff = Backoff(lambda: 1.0)
    assert [backoff.delay() for _ in range(9)] == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]


def test_the_whole_delay_is_random() -> None:
    assert Backoff(lambda: 0.0).delay() == 0.0


def test_many_failures_do_not_overflow() -> None:
    backoff = Backoff(lambda: 1.0)
    assert [backoff.delay() for _ in range(2000)][-1] == 30.0


def test_reset_starts_over() -> None:
    backoff = Backoff(lambda: 1.0)
    backoff.delay()
    backoff.delay()
    backoff.reset()
    assert backoff.delay() == 0.25


def test_a_delay_is_never_shorter_than_retry_after() -> None:
    assert Backoff(lambda: 0.0).delay(7.0) == 7.0
    assert Backoff(lambda: 1.0).delay(7.0) == 7.25


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("999999999999999999999", MAX_RETRY_AFTER_SECONDS),
        ("Fri, 15 Jan 2027 08:00:09 GMT", 9.0),
        ("Fri, 15 Jan 2027 08:00:09", 9.0),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("", None),
    ],
)
def test_both_forms_of_retry_after_are_understood(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, lambda: NOON) == seconds
