"""A round of a soak: new accounts, load with faults, then quiet, and the check of its history.

Each round has accounts and a history of its own, so a soak needs no more memory after a day than
after a minute, and the daemons are the only ones that could.
"""

from __future__ import annotations

import random
import secrets
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from chatd.client import APIError, ChatClient, FollowTransport, Unreachable, User
from tests import history
from tests.history import ACKNOWLEDGED, UNKNOWN, Seen, Sent
from tests.recorded_clients import Account, Reader, Recorder
from tests.soak.deployment import Deployment
from tests.soak.faults import Faults

TRANSPORTS: Final[tuple[FollowTransport, ...]] = ("stream", "poll")
"""Each user follows the inbox in each of these ways."""
CALM_SECONDS: Final = (0.5, 3.0)
"""The pause between two faults."""
FIGURES: Final = ("sends", "acknowledged", "unknown", "stored", "deliveries", "pages", "events")
CATCH_UP_SECONDS: Final = 60.0
PAGE_EVERY: Final = 10
"""After so many sends, a sender reads a page."""


class Outcome(NamedTuple):
    """What a round found; `problems` is empty if all is well."""

    figures: Counter[str]
    problems: list[str]


class Round:
    """One round on one deployment; its history is written to `path` meanwhile."""

    def __init__(
        self,
        reactor: Any,
        deployment: Deployment,
        faults: Faults,
        dice: random.Random,
        path: Path,
        *,
        rate: float,
        users: int,
    ) -> None:
        self._reactor = reactor
        self._deployment = deployment
        self._faults = faults
        self._dice = dice
        self._path = path
        self._users = users
        self._pause = users / rate
        self._name = secrets.token_hex(4)
        self._stopping = False
        self._problems: list[str] = []

    async def run(self, seconds: float) -> Outcome:
        """Run it for that long, and until everybody has caught up."""
        with self._path.open("wb") as file:
            inboxes, complete = await self._record(seconds, Recorder(file))
        with self._path.open("rb") as file:
            events = history.read(file)
        self._problems += history.check(events, inboxes, complete)
        figures = figures_of(events)
        figures["stored"] = sum(map(len, inboxes.values()))
        return Outcome(figures, [f"{self._deployment.name}: {each}" for each in self._problems])

    async def _record(
        self, seconds: float, recorder: Recorder
    ) -> tuple[dict[int, list[history.Stored]], list[str]]:
        async with AsyncExitStack() as stack:
            accounts = [
                await self._account(number, recorder, stack) for number in range(self._users)
            ]
            readers = [
                await self._reader(number, account, transport, stack)
                for number, account in enumerate(accounts)
                for transport in TRANSPORTS
            ]
            sending = [Deferred.fromCoroutine(self._send(each, accounts)) for each in accounts]
            # Also of a round that is broken off.
            for sender in sending:
                stack.push_async_callback(self._end, sender)
            ends = time.monotonic() + seconds
            while time.monotonic() < ends:
                await deferLater(self._reactor, self._dice.uniform(*CALM_SECONDS))
                await self._faults.once()
            self._stopping = True
            for sender in sending:
                await sender
            inboxes = {account.user_id: await account.inbox() for account in accounts}
            ends = time.monotonic() + CATCH_UP_SECONDS
            for reader, account in zip(readers, each_reading(accounts), strict=True):
                left = ends - time.monotonic()
                await reader.until(len(inboxes[account.user_id]), left)
        return inboxes, [reader.name for reader in readers]

    async def _reader(
        self, number: int, account: Account, transport: FollowTransport, stack: AsyncExitStack
    ) -> Reader:
        # At different daemons, one of which is not the sender's.
        at = number + TRANSPORTS.index(transport)
        client = await self._client(at, account.client.token, stack)
        follow = client.follow("0", transport=transport)
        reader = account.follow(follow, f"{number} by {transport}")
        stack.push_async_callback(self._stop, reader)
        return reader

    async def _end(self, sender: Deferred[None]) -> None:
        self._stopping = True
        sender.cancel()
        with suppress(CancelledError):
            await sender

    async def _stop(self, reader: Reader) -> None:
        try:
            await reader.stop()
        except Exception as error:
            self._problems.append(f"failed: reader {reader.name}: {error!r}")

    async def _client(self, number: int, token: str | None, stack: AsyncExitStack) -> ChatClient:
        node = self._deployment.nodes[number % len(self._deployment.nodes)]
        return await stack.enter_async_context(ChatClient(node.url, token, reactor=self._reactor))

    async def _account(self, number: int, recorder: Recorder, stack: AsyncExitStack) -> Account:
        client = await self._client(number, None, stack)
        name = f"{self._name}-{number}"
        user = await self._register(client, name)
        await client.log_in(name, self._name)
        return Account(client, user.id, recorder)

    async def _register(self, client: ChatClient, name: str) -> User:
        ends = time.monotonic() + CATCH_UP_SECONDS
        while True:
            try:
                return await client.register(name, f"{name}@example.org", self._name)
            except APIError as error:
                # The disk was full at the end of the round before.
                if error.code != "insufficient_storage" or time.monotonic() >= ends:
                    raise
            await deferLater(self._reactor, 0.2)

    async def _send(self, account: Account, accounts: list[Account]) -> None:
        # With one process, a page that is read after a 201 counts it.
        counted = len(self._deployment.nodes) == 1
        number = 0
        while not self._stopping:
            number += 1
            to = self._dice.choice(accounts).user_id
            try:
                await account.send(to, f"{self._name} {account.user_id} {number}")
                if number % PAGE_EVERY == 0:
                    # The client may give up while the daemon is away again and again.
                    with suppress(Unreachable):
                        await account.page(counted=counted)
            except CancelledError:
                raise
            except Exception as error:
                self._problems.append(f"failed: sender {account.user_id}: {error!r}")
            await deferLater(self._reactor, self._dice.uniform(0, 2 * self._pause))


def each_reading(accounts: list[Account]) -> list[Account]:
    """The account of each reader."""
    return [account for account in accounts for _ in TRANSPORTS]


def figures_of(events: list[history.Event]) -> Counter[str]:
    """How many events of each kind there are."""
    figures = Counter(dict.fromkeys(FIGURES, 0))
    figures["events"] = len(events)
    for event in events:
        if isinstance(event, Sent):
            figures["sends"] += 1
            figures["acknowledged"] += event.outcome == ACKNOWLEDGED
            figures["unknown"] += event.outcome == UNKNOWN
        elif isinstance(event, Seen):
            figures["deliveries"] += len(event.messages) if event.reader else 0
            figures["pages"] += event.reader is None
    return figures
