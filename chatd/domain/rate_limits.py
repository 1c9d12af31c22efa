"""The rate limits of accounts, addresses and usernames."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from msgspec import Struct
from twisted.internet.interfaces import IReactorTime

from chatd.domain.token_buckets import NetworkAmounts, NetworkBuckets, TokenBuckets
from chatd.rates import Rate
from chatd.runtime.networks import networks


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
    """Messages sent, edited and deleted, removals, and changes of blocks, per account."""
    message_bytes: Rate = Rate(burst=64 << 20, per_second=1 << 20)
    """UTF-8 bytes of texts sent and of edits, per address; see `NetworkAmounts`. There is no limit
    for all addresses together: what they may do is up to the disk, and whoever reached such a limit
    would keep everybody from sending."""


MAX_KNOWN_PLACES: Final = 50_000
"""Usernames and addresses that are remembered together."""


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
        self._texts = NetworkAmounts("message bytes", rates.message_bytes, clock)

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
        self._texts.set_rate(rates.message_bytes)

    def refused(self) -> dict[str, float]:
        """How often each limit has refused something."""
        return {
            "registration": self._registrations.refused + self._registrations.refused_to_all,
            "log_in": self._log_ins.refused + self._log_ins.refused_to_all,
            "failed_log_in": self._failed_log_ins.refused,
            "guessed_log_in": self._failed_log_ins.refused_to_all,
            "read": self._reads.refused,
            "send": self._sends.refused,
            "message_bytes": self._texts.refused,
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
        """Count a deletion or removal of messages, or a change of blocks; raises `RateLimited`."""
        if self.enabled:
            self._sends.take(user_id)

    def count_text(self, user_id: int, address: str, size: int) -> None:
        """Count a text sent or an edit, of so many bytes; raises `RateLimited`."""
        if self.enabled:
            # In this order: what one account is refused takes nothing from others of its address.
            self._sends.take(user_id)
            self._texts.take(address, size)


def _place(address: str, username: str) -> tuple[str, str]:
    return username.lower(), networks(address)[0]
