"""Token-bucket rate limits per account, address and username.

A bucket holds up to `burst` tokens and is refilled at `per_second`; each action takes one token.
The number of buckets is limited, and so is their memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

from msgspec import Struct
from twisted.internet.interfaces import IReactorTime

from chatd.errors import RateLimited
from chatd.rates import Rate
from chatd.runtime.networks import NETWORK_FACTORS, networks

TOTAL_FACTOR: Final = 100
"""How much more than one address all addresses together may do."""


class Rates(Struct, frozen=True):
    """The configured rates; the defaults are far above what a person needs."""

    registration: Rate = Rate(burst=50, per_second=0.2)
    """Accounts registered, per address; see `NetworkBuckets`."""
    log_in: Rate = Rate(burst=50, per_second=1.0)
    """Passwords checked, per address; see `NetworkBuckets`."""
    failed_log_in: Rate = Rate(burst=20, per_second=0.1)
    """Wrong passwords, per username and address together; see `NetworkBuckets`. A /48 has less
    than what locks the owner of the username out."""
    guessed_log_in: Rate = Rate(burst=500, per_second=1.0)
    """Wrong passwords, per username from any address, low enough that a distributed guessing attack
    does not get far. It locks nobody out of where they have logged in before, see `RateLimits`."""
    read: Rate = Rate(burst=10_000, per_second=1000.0)
    """Pages, polls, conversations and look-ups, per account; large answers count as several."""
    send: Rate = Rate(burst=200, per_second=50.0)
    """Messages sent, edited and deleted, and changes of blocks, per account."""


MAX_KNOWN_PLACES: Final = 50_000
"""Usernames and addresses that are remembered together."""


class TokenBuckets:
    """Token buckets of one rate; keeps the `max_keys` most recently used ones.

    A discarded bucket counts as full, so discarding the least recently used is nearly exact.
    """

    def __init__(self, what: str, rate: Rate, clock: IReactorTime, max_keys: int = 50_000) -> None:
        self._what = what
        self.rate = rate
        """What buckets hold at most, and are refilled at, from now on."""
        self._clock = clock
        self._max_keys = max_keys
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()
        self.refused = 0
        """How often `take` or `check` has raised."""

    def spend(self, key: Hashable) -> None:
        """Take one token from the bucket of `key` if there is one."""
        tokens, now = self._level(key)
        if tokens >= 1:
            self._set(key, tokens - 1, now)

    def take(self, key: Hashable) -> None:
        """Take one token from the bucket of `key`; raises `RateLimited` if it is empty."""
        tokens, now = self._level(key)
        if tokens < 1:
            self._refuse(tokens)
        self._set(key, tokens - 1, now)

    def charge(self, key: Hashable, tokens: float) -> None:
        """Take tokens that there may not be."""
        level, now = self._level(key)
        self._set(key, level - tokens, now)

    def check(self, key: Hashable) -> None:
        """Raise `RateLimited` if `take` would, without taking a token."""
        tokens, _ = self._level(key)
        if tokens < 1:
            self._refuse(tokens)

    def _level(self, key: Hashable) -> tuple[float, float]:
        now = self._clock.seconds()
        tokens, then = self._buckets.get(key, (self.rate.burst, now))
        return min(self.rate.burst, tokens + (now - then) * self.rate.per_second), now

    def _set(self, key: Hashable, tokens: float, now: float) -> None:
        self._buckets[key] = (tokens, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)

    def _refuse(self, tokens: float) -> None:
        self.refused += 1
        seconds = (1 - tokens) / self.rate.per_second
        raise RateLimited(f"too many {self._what}", seconds, self._what.replace(" ", "_"))


class NetworkBuckets:
    """Token buckets of a rate for each address, several times the rate for each larger IPv6
    network that it is in, and the rate `total`, by default `TOTAL_FACTOR` times the rate, for all
    addresses together.

    With a `subject`, such as a username, there are such buckets for each one.
    """

    def __init__(
        self, what: str, rate: Rate, clock: IReactorTime, total: Rate | None = None
    ) -> None:
        self._levels = [TokenBuckets(what, rate.times(factor), clock) for factor in NETWORK_FACTORS]
        self._all = TokenBuckets(what, total or rate.times(TOTAL_FACTOR), clock)

    def set_rates(self, rate: Rate, total: Rate | None = None) -> None:
        """Change the rates; what has been taken stays taken."""
        for each, factor in zip(self._levels, NETWORK_FACTORS, strict=True):
            each.rate = rate.times(factor)
        self._all.rate = total or rate.times(TOTAL_FACTOR)

    @property
    def refused(self) -> int:
        """How often an address or a network was refused."""
        return sum(each.refused for each in self._levels)

    @property
    def refused_to_all(self) -> int:
        """How often something was refused because all addresses together had asked too often."""
        return self._all.refused

    def check(self, address: str, subject: str = "", *, of_all: bool = True) -> None:
        """Raise `RateLimited` if a bucket of the address is empty, or that of all addresses."""
        buckets = self._of(address, subject)
        for each, key in buckets if of_all else buckets[:-1]:
            each.check(key)

    def take(self, address: str) -> None:
        """Take a token from each bucket of the address; raises `RateLimited` if one is empty."""
        self.check(address)
        for each, key in self._of(address, ""):
            each.take(key)

    def spend(self, address: str, subject: str) -> None:
        """Take a token from each bucket of the address that has one."""
        for each, key in self._of(address, subject):
            each.spend(key)

    def _of(self, address: str, subject: str) -> list[tuple[TokenBuckets, Hashable]]:
        levels = zip(self._levels, networks(address), strict=False)
        return [*((each, (subject, network)) for each, network in levels), (self._all, subject)]


class RateLimits:
    """All rate limits of one process; with `rates` None there are none.

    An address from which a user has given the right password lately is not refused because of
    wrong ones from others: a few dozen addresses could have locked the user out for good.
    """

    def __init__(self, rates: Rates | None, clock: IReactorTime) -> None:
        self.enabled = rates is not None
        rates = rates or Rates()
        self._registrations = NetworkBuckets("registrations", rates.registration, clock)
        self._log_ins = NetworkBuckets("log-ins", rates.log_in, clock)
        self._failed_log_ins = NetworkBuckets(
            "wrong passwords", rates.failed_log_in, clock, rates.guessed_log_in
        )
        # By username and the smallest network of the address, the latest last.
        self._known_places: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._reads = TokenBuckets("reads", rates.read, clock)
        self._sends = TokenBuckets("messages", rates.send, clock)

    def set_rates(self, rates: Rates | None) -> None:
        """Change the rates; with None there are no limits from now on."""
        self.enabled = rates is not None
        if rates is None:
            return
        self._registrations.set_rates(rates.registration)
        self._log_ins.set_rates(rates.log_in)
        self._failed_log_ins.set_rates(rates.failed_log_in, rates.guessed_log_in)
        self._reads.rate = rates.read
        self._sends.rate = rates.send

    def refused(self) -> dict[str, float]:
        """How often each limit has refused something."""
        return {
            "registration": self._registrations.refused + self._registrations.refused_to_all,
            "log_in": self._log_ins.refused + self._log_ins.refused_to_all,
            "failed_log_in": self._failed_log_ins.refused,
            "guessed_log_in": self._failed_log_ins.refused_to_all,
            "read": self._reads.refused,
            "send": self._sends.refused,
        }

    def count_registration(self, address: str) -> None:
        """Count a registration; raises `RateLimited`."""
        if self.enabled:
            self._registrations.take(address)

    def count_log_in(self, address: str, username: str) -> None:
        """Count an attempt to log in, before its password is checked; raises `RateLimited`."""
        if self.enabled:
            is_known = _place(address, username) in self._known_places
            self._failed_log_ins.check(address, username.lower(), of_all=not is_known)
            self._log_ins.take(address)

    def note_right_password(self, address: str, username: str) -> None:
        """Remember that a user has given the right password from an address."""
        if self.enabled:
            place = _place(address, username)
            self._known_places[place] = None
            self._known_places.move_to_end(place)
            if len(self._known_places) > MAX_KNOWN_PLACES:
                self._known_places.popitem(last=False)

    def count_failed_log_in(self, address: str, username: str) -> None:
        """Count a wrong password; never raises."""
        if self.enabled:
            # Attempts are checked concurrently, so that the bucket may be empty already.
            self._failed_log_ins.spend(address, username.lower())

    def count_read(self, user_id: int) -> None:
        """Count a read; raises `RateLimited`."""
        if self.enabled:
            self._reads.take(user_id)

    def charge_read(self, user_id: int, reads: int) -> None:
        """Count an answer as so many reads more; never raises."""
        if self.enabled:
            self._reads.charge(user_id, reads)

    def count_send(self, user_id: int) -> None:
        """Count a message sent or revised, or a change of blocks; raises `RateLimited`."""
        if self.enabled:
            self._sends.take(user_id)


def _place(address: str, username: str) -> tuple[str, str]:
    return username.lower(), networks(address)[0]
