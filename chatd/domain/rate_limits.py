"""Rate limits: token buckets, one for each key, bounded in memory.

A bucket holds up to `burst` tokens and gains `per_second`; each action takes one.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Hashable
from contextlib import suppress

from msgspec import Struct
from twisted.internet.interfaces import IReactorTime

from chatd.errors import RateLimited


class Rate(Struct, frozen=True):
    """How many at once, and how many a second in the long run."""

    burst: int
    per_second: float


class Rates(Struct, frozen=True):
    """The limits of the daemon; the defaults are far above what a person does."""

    registration: Rate = Rate(burst=50, per_second=0.2)
    """Accounts made, for each address."""
    log_in: Rate = Rate(burst=50, per_second=1.0)
    """Passwords checked, for each address."""
    failed_log_in: Rate = Rate(burst=20, per_second=0.1)
    """Wrong passwords, for each account name and address together."""
    guessed_log_in: Rate = Rate(burst=500, per_second=1.0)
    """Wrong passwords, for each account name from anywhere: so many that keeping its owner out
    takes many addresses, so few that guessing by many does not get far."""
    send: Rate = Rate(burst=200, per_second=50.0)
    """Messages sent, for each account."""


class Buckets:
    """Token buckets of one rate; the `largest` most recently used ones are remembered.

    A forgotten bucket is a full one, so forgetting the longest unused is nearly exact.
    """

    def __init__(self, what: str, rate: Rate, clock: IReactorTime, largest: int = 50_000) -> None:
        self._what = what
        self._rate = rate
        self._clock = clock
        self._largest = largest
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, key: Hashable) -> None:
        """Take one token from the bucket of `key`; raises `RateLimited` if it has none."""
        tokens, now = self._level(key)
        if tokens < 1:
            self._refuse(tokens)
        self._buckets[key] = (tokens - 1, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._largest:
            self._buckets.popitem(last=False)

    def check(self, key: Hashable) -> None:
        """Raise as `take` would, but take nothing."""
        tokens, _ = self._level(key)
        if tokens < 1:
            self._refuse(tokens)

    def _level(self, key: Hashable) -> tuple[float, float]:
        now = self._clock.seconds()
        tokens, then = self._buckets.get(key, (self._rate.burst, now))
        return min(self._rate.burst, tokens + (now - then) * self._rate.per_second), now

    def _refuse(self, tokens: float) -> None:
        raise RateLimited(f"too many {self._what}", (1 - tokens) / self._rate.per_second)


class RateLimits:
    """The rate limits of one process; with `rates` None nothing is refused."""

    def __init__(self, rates: Rates | None, clock: IReactorTime) -> None:
        self._on = rates is not None
        rates = rates or Rates()
        self._registrations = Buckets("registrations", rates.registration, clock)
        self._log_ins = Buckets("log-ins", rates.log_in, clock)
        self._failures = Buckets("wrong passwords", rates.failed_log_in, clock)
        self._guesses = Buckets("wrong passwords", rates.guessed_log_in, clock)
        self._sends = Buckets("messages", rates.send, clock)

    def registration(self, address: str) -> None:
        """Someone at `address` registers."""
        if self._on:
            self._registrations.take(_network(address))

    def log_in(self, address: str, username: str) -> None:
        """Someone at `address` is going to try a password of `username`."""
        if self._on:
            self._failures.check((username.lower(), _network(address)))
            self._guesses.check(username.lower())
            self._log_ins.take(_network(address))

    def failed_log_in(self, address: str, username: str) -> None:
        """It was the wrong password; refuses nothing itself."""
        if self._on:
            # Several wrong ones may have been checked at once, and a bucket be empty already.
            with suppress(RateLimited):
                self._failures.take((username.lower(), _network(address)))
            with suppress(RateLimited):
                self._guesses.take(username.lower())

    def send(self, user_id: int) -> None:
        """The account sends a message."""
        if self._on:
            self._sends.take(user_id)


def _network(address: str) -> str:
    """What one subscriber usually has: an IPv4 address, or an IPv6 network of 64 bits."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if ip.version == 4:
        return address
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))
