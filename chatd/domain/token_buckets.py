"""Token buckets: one for each account, address or username.

A bucket holds up to `burst` tokens and is refilled at `per_second`; each action takes one token.
The number of buckets is limited, and so is their memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

from twisted.internet.interfaces import IReactorTime

from chatd.errors import RateLimited
from chatd.rates import Rate
from chatd.runtime.networks import NETWORK_FACTORS, networks

TOTAL_FACTOR: Final = 100
"""How much more than one address all addresses together may do."""


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

    def take(self, key: Hashable, tokens: int = 1) -> None:
        """Take tokens from the bucket of `key`, also some that there are not yet; raises
        `RateLimited` if it is empty."""
        level, now = self._level(key)
        if level < 1:
            self._refuse(level)
        self._set(key, level - tokens, now)

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
        rate = self.rate
        bucket = self._buckets.get(key)
        if bucket is None:
            return rate.burst, now
        tokens, then = bucket
        tokens += (now - then) * rate.per_second
        return tokens if tokens < rate.burst else rate.burst, now

    def _set(self, key: Hashable, tokens: float, now: float) -> None:
        self._buckets[key] = (tokens, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)

    def _refuse(self, tokens: float) -> None:
        self.refused += 1
        seconds = (1 - tokens) / self.rate.per_second
        raise RateLimited(f"too many {self._what}", seconds, self._what.replace(" ", "_"))


class NetworkAmounts:
    """Token buckets for actions that take many tokens each, such as one for each byte: for each
    address, and several times the rate for each larger IPv6 network that it is in.

    An action is permitted if no bucket is empty, and takes all its tokens, also those that there
    are not yet. So one that takes more than the burst is not refused for ever.
    """

    def __init__(self, what: str, rate: Rate, clock: IReactorTime) -> None:
        self.buckets = [TokenBuckets(what, rate.times(factor), clock) for factor in NETWORK_FACTORS]
        """Of the address, and of each larger network."""

    def set_rate(self, rate: Rate) -> None:
        """Change the rate; what has been taken stays taken."""
        for each, factor in zip(self.buckets, NETWORK_FACTORS, strict=True):
            each.rate = rate.times(factor)

    @property
    def refused(self) -> int:
        """How often an address or a network was refused."""
        return sum(each.refused for each in self.buckets)

    def take(self, address: str, tokens: int) -> None:
        """Take tokens from each bucket of the address; raises `RateLimited` if one is empty."""
        names = networks(address)
        if len(names) == 1:
            # Every send from an IPv4 address comes here.
            self.buckets[0].take(names[0], tokens)
            return
        for each, network in zip(self.buckets, names, strict=True):
            each.check(network)
        for each, network in zip(self.buckets, names, strict=True):
            each.take(network, tokens)


class NetworkBuckets:
    """Token buckets of a rate for each address, several times the rate for each larger IPv6
    network that it is in, and the rate `total`, by default `TOTAL_FACTOR` times the rate, for all
    addresses together.

    With a `subject`, such as a username, there are such buckets for each one.
    """

    def __init__(
        self, what: str, rate: Rate, clock: IReactorTime, total: Rate | None = None
    ) -> None:
        self._levels = NetworkAmounts(what, rate, clock)
        self._all = TokenBuckets(what, total or rate.times(TOTAL_FACTOR), clock)

    def set_rates(self, rate: Rate, total: Rate | None = None) -> None:
        """Change the rates; what has been taken stays taken."""
        self._levels.set_rate(rate)
        self._all.rate = total or rate.times(TOTAL_FACTOR)

    @property
    def refused(self) -> int:
        """How often an address or a network was refused."""
        return self._levels.refused

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
        levels = zip(self._levels.buckets, networks(address), strict=False)
        return [*((each, (subject, network)) for each, network in levels), (self._all, subject)]
