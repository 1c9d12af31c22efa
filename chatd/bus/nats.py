"""Bus between processes over NATS, each of which receives the events of its own users only.

The store announces what it has committed (`chatd.bus.announcer`). NATS delivers at most once, so
everything that may have been lost is looked for: all waiters are woken after this process, or
another one, has connected again or died, or if a heartbeat or a revocation is missing; newly
subscribed users are checked a second later, because the servers of a cluster tell each other of
subscriptions after they have confirmed them. A single message that is lost without any of that is
found by the sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from zope.interface import implementer

from chatd.bus.announcer import NatsAnnouncer, Subjects
from chatd.bus.interest import Interest
from chatd.bus.nats_link import NatsLink
from chatd.bus.nats_payloads import (
    Removal,
    decode_changed,
    decode_messages,
    decode_revocation,
)
from chatd.bus.own_events import OwnEvents
from chatd.bus.peers import Peers
from chatd.errors import StartError
from chatd.interfaces import IBus, ISubscriber
from chatd.nats.address import Address
from chatd.nats.connector import Connector
from chatd.nats.protocol import NatsError
from chatd.postgres.notify_payloads import (
    ChangedNotice,
    Listener,
    MessagesNotice,
    RemovedNotice,
    RevokedNotice,
)

COALESCE_SECONDS: Final = 1.0
"""All waiters are woken at most once in this time."""

_log = Logger()


@implementer(IBus)
class NatsBus(OwnEvents):
    """An `IBus` between the processes whose store has the same `epoch`.

    Each event goes to `listener`, which is the store, and then to the subscriber. `connector` makes
    the connections to `address`. For `observe_lag` see `NatsLink`.
    """

    def __init__(
        self,
        address: Address,
        connector: Connector,
        *,
        reactor: Any,
        random: Callable[[], float],
        epoch: Callable[[], str],
        interest: Interest,
        announcer: NatsAnnouncer,
        listener: Listener,
        observe_lag: Callable[[float], None] | None = None,
    ) -> None:
        super().__init__()
        self.interest = interest
        self._address = address
        self._reactor = reactor
        self._epoch = epoch
        self._announcer = announcer
        self._listener = listener
        self._link = NatsLink(
            connector,
            reactor=reactor,
            random=random,
            interest=interest,
            announcer=announcer,
            handler=self,
            observe_lag=observe_lag,
        )
        self._problem: str | None = "the bus is not started"
        self._woken_at = float("-inf")
        self._wake_all_timer: IDelayedCall | None = None
        self.gaps = 0
        """How many times events of another process were missing, or it was silent."""

    @property
    def reconnects(self) -> int:
        """How many times the connection was lost and had to be replaced."""
        return self._link.reconnects

    @property
    def peers(self) -> int:
        """The number of other processes that are heard."""
        return len(self._link.peers)

    def start(self, subscriber: ISubscriber) -> Deferred[None]:
        return Deferred.fromCoroutine(self._start(subscriber))

    async def _start(self, subscriber: ISubscriber) -> None:
        self.subscriber = subscriber
        self._announcer.look = self._look
        try:
            await self._link.start(Subjects(self._address.prefix, self._epoch()))
        except NatsError as problem:
            self.subscriber = self._announcer.look = None
            raise StartError(f"cannot use NATS at {self._address.location}: {problem}") from None

    def stop(self) -> Deferred[None]:
        self.subscriber = None
        self._problem = "the bus is stopped"
        self._listener.on_disconnected()
        if self._wake_all_timer is not None:
            self._wake_all_timer.cancel()
            self._wake_all_timer = None
        return Deferred.fromCoroutine(self._link.stop())

    def problem(self) -> str | None:
        return self._problem

    # `LinkHandler`: the events of other processes, and what may be missing of them.

    def on_connected(self) -> None:
        if self._problem is not None:
            _log.info("connected to NATS at {location}", location=self._address.location)
        self._problem = None
        self._listener.on_connected()
        self._wake_all()

    def on_lost(self, problem: str) -> None:
        self._listener.on_disconnected()
        if problem != self._problem:
            self._problem = problem
            _log.warn("{problem}", problem=problem)

    def on_gap(self, what: str) -> None:
        self.gaps += 1
        _log.info("{what}: all waiters are woken", what=what)
        self._wake_all()

    def on_settled(self) -> None:
        self._wake_all()

    def check(self, user_ids: Collection[int]) -> None:
        if self.subscriber is not None:
            self.subscriber.check(user_ids)

    def on_user(self, user_id: int, payload: bytes) -> None:
        subscriber = self.subscriber
        if subscriber is None or user_id not in self.interest.users:
            return
        kind = payload[:1]
        if kind == b"m":
            self._listener.on_notice(MessagesNotice(decode_messages(user_id, payload[1:])))
            subscriber.wake((user_id,))
        elif kind == b"l":
            subscriber.wake_for_changes((user_id,))
        elif kind == b"c":
            seq, sent_by = decode_changed(payload[1:])
            self._listener.on_notice(ChangedNotice(user_id, seq, sent_by))
            subscriber.changed(user_id, seq, sent_by)
        elif kind == b"w":
            self._look((user_id,), False)
        else:
            raise ValueError("unknown kind")

    def on_revocation(self, payload: bytes, peers: Peers) -> None:
        revocation = decode_revocation(payload)
        if peers.on_revocation(revocation):
            self.on_gap("a revocation is missing")
        if self.subscriber is None:
            return
        if isinstance(revocation, Removal):
            self._listener.on_notice(RemovedNotice(revocation.inboxes))
        elif revocation.is_known:
            self._listener.on_notice(RevokedNotice(revocation.user_id, revocation.token))
            self.subscriber.revoked(revocation.user_id, revocation.token)
        else:
            self.subscriber.sessions_changed(revocation.user_id)

    def _look(self, user_ids: Collection[int], sessions: bool) -> None:
        """Look for something of which nobody knows whether it was committed."""
        if self.subscriber is None:
            return
        for user_id in user_ids:
            if sessions:
                self.subscriber.sessions_changed(user_id)
            else:
                self._listener.on_notice(ChangedNotice(user_id, 0, 0))
        if not sessions:
            self._link.check_soon(user_ids)

    def _wake_all(self) -> None:
        """Wake all waiters, now or soon."""
        if self._wake_all_timer is None:
            wait = self._woken_at + COALESCE_SECONDS - self._reactor.seconds()
            if wait <= 0:
                self._wake_all_now()
            else:
                self._wake_all_timer = self._reactor.callLater(wait, self._wake_all_now)

    def _wake_all_now(self) -> None:
        self._wake_all_timer = None
        self._woken_at = self._reactor.seconds()
        if self.subscriber is not None:
            if self._problem is None:
                # What is cached may be out of date.
                self._listener.on_connected()
            self.subscriber.wake_all()
