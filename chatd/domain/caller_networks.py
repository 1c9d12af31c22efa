"""From which network each account is used, so that networks can take turns, not only accounts.

An address may register hundreds of accounts. If only accounts took turns, whoever has one would
wait for all of those.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

from chatd.runtime.networks import network

MAX_ACCOUNTS: Final = 100_000
"""Accounts that are remembered: those from which something has come lately."""


class CallerNetworks:
    """Remembers the network from which each account was last used: an IPv4 address, or an IPv6 /48.

    An account that is used from several networks waits among those of the last one.
    """

    def __init__(self) -> None:
        # The latest last.
        self._networks: OrderedDict[int, str] = OrderedDict()

    def note(self, user_id: int, address: str) -> None:
        """An account is used by a client of this address."""
        known = self._networks
        known[user_id] = network(address)
        known.move_to_end(user_id)
        if len(known) > MAX_ACCOUNTS:
            known.popitem(last=False)

    def of(self, user_id: int) -> Hashable:
        """The network of an account; one that is not known is a network of its own."""
        return self._networks.get(user_id, user_id)
