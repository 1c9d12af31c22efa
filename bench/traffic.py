"""Followers, subscribers and senders: the traffic of the workloads with deliveries."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from functools import partial

from bench.delivery_check import DeliveryCheck
from bench.load_client import LoadClient, now
from bench.protocols import (
    ChatProtocol,
    Follower,
    Sender,
    SendProtocol,
    Stream,
    StreamProtocol,
    UnexpectedResponse,
)

JOIN_SECONDS = 60.0
SETTLE_SECONDS = 0.5


class Followers:
    """Followers of the first users; each keeps a poll held from `start` on."""

    def __init__(
        self, client: LoadClient, protocol: ChatProtocol, count: int, check: DeliveryCheck
    ) -> None:
        self._followers = [protocol.follower(client, user) for user in range(count)]
        self._client = client
        self._check = check
        self._holding = 0

    def start(self) -> None:
        """Join all, a few at a time, and give the server time to hold their polls."""
        waiting = list(enumerate(self._followers))
        for _ in range(min(64, len(waiting))):
            self._join_next(waiting)
        wanted = len(self._followers)
        if not self._client.run_until(now() + JOIN_SECONDS, lambda: self._holding == wanted):
            raise UnexpectedResponse(f"only {self._holding} of {wanted} followers could join")
        self._client.run_until(now() + SETTLE_SECONDS)

    def _join_next(self, waiting: list[tuple[int, Follower]]) -> None:
        while waiting:
            number, follower = waiting.pop()
            request = follower.join()
            if request is not None:
                joined = partial(self._joined, waiting, number, follower)
                follower.connection.request(request, joined)
                break
            self._hold(number, follower)

    def _joined(
        self,
        waiting: list[tuple[int, Follower]],
        number: int,
        follower: Follower,
        status: int,
        head: bytes,
        body: bytes,
    ) -> None:
        follower.receive(status, head, body)
        self._hold(number, follower)
        self._join_next(waiting)

    def _hold(self, number: int, follower: Follower) -> None:
        self._holding += 1
        request, poll, receive, take = (
            follower.connection.request,
            follower.poll,
            follower.receive,
            self._check.receive,
        )

        def arrived(status: int, head: bytes, body: bytes) -> None:
            at = now()
            for received in receive(status, head, body):
                take(number, received, at)
            request(poll(), arrived)

        request(poll(), arrived)


class Subscribers:
    """Streams of the first users; each receives from `start` on."""

    def __init__(
        self, client: LoadClient, protocol: StreamProtocol, count: int, check: DeliveryCheck
    ) -> None:
        self._client = client
        self._protocol = protocol
        self._count = count
        self._check = check

    def start(self) -> None:
        """Open all, one after the other, and give the server time to come to rest."""
        for user in range(self._count):
            self._subscribe(user, self._protocol.stream(user))
        self._client.run_until(now() + SETTLE_SECONDS)

    def _subscribe(self, user: int, stream: Stream) -> None:
        receive, take = stream.receive, self._check.receive

        def arrived(data: bytes) -> None:
            at = now()
            for received in receive(data):
                take(user, received, at)

        self._client.subscribe(stream.socket, arrived)


class Senders:
    """Connections that send messages to followers, each one at a time."""

    def __init__(
        self,
        client: LoadClient,
        protocol: SendProtocol,
        count: int,
        recipients: int,
        check: DeliveryCheck,
    ) -> None:
        # In turns, because servers close connections that are not used.
        self._free: deque[Sender] = deque(
            protocol.sender(client, number) for number in range(count)
        )
        self._recipients = recipients
        self._check = check
        self._random = random.Random(1)
        self._stopped = False
        self._busy = 0
        self._overdue: list[float] = []
        self.acknowledged: list[tuple[float, float]] = []
        """For each send: when it was due, and the seconds until it was acknowledged."""

    @property
    def idle(self) -> bool:
        """Whether no send is in progress."""
        return not self._busy and not self._overdue

    def send(self, due: float) -> None:
        """Send one message, as soon as a connection is free."""
        if not self._free:
            self._overdue.append(due)
            return
        sender = self._free.popleft()
        self._send(sender, due, partial(self._next, sender))

    def repeat(self) -> None:
        """Send on every connection, one message after the other, until `stop`."""
        for sender in self._free:
            self._repeat_send(sender)

    def stop(self) -> None:
        """Start no more sends."""
        self._stopped = True

    def _repeat_send(self, sender: Sender) -> None:
        if not self._stopped:
            self._send(sender, now(), partial(self._repeat_send, sender))

    def _next(self, sender: Sender) -> None:
        self._free.append(sender)
        if self._overdue:
            self.send(self._overdue.pop(0))

    def _send(self, sender: Sender, due: float, done: Callable[[], None]) -> None:
        recipient = int(self._random.random() * self._recipients)
        number, text = self._check.send(recipient, due)
        connection = sender.connection
        self._busy += 1

        def on_response(status: int, head: bytes, body: bytes) -> None:
            follow_up = sender.acknowledge(status, head, body)
            if follow_up is not None:
                connection.request(follow_up, on_response)
                return
            self._busy -= 1
            self._check.acknowledge(number)
            self.acknowledged.append((due, now() - due))
            done()

        connection.request(sender.send(recipient, text), on_response)
