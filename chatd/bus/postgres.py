"""Bus between processes that share a PostgreSQL database, using LISTEN on its own connection.

The store sends the NOTIFYs, in the transactions that they announce. The process that committed
wakes its own waiters directly and ignores its own notices, see `chatd.postgres.notify_payloads`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import psycopg2
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ConnectionDone
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from zope.interface import implementer

from chatd.bus.own_events import OwnEvents
from chatd.errors import StartError
from chatd.interfaces import IBus, ISubscriber
from chatd.postgres.address import Address
from chatd.postgres.connection import Connection, Connector, Unreachable, reason
from chatd.postgres.notify_payloads import (
    CHANNEL,
    ChangedNotice,
    ChangesNotice,
    Listener,
    MessagesNotice,
    NodeId,
    Ping,
    RevokedNotice,
    SessionsNotice,
    decode,
    encode,
    sender,
)
from chatd.runtime.backoff import Backoff

PING_SECONDS: Final = 5.0
"""Interval of pings; a connection on which no notices arrive is replaced within twice that."""

STABLE_SECONDS: Final = 1.0
"""A connection that lasted this long resets the delay before the next attempt."""

_LISTEN: Final = f"LISTEN {CHANNEL}"
_NOTIFY: Final = "SELECT pg_notify(%s, %s)"

_log = Logger()


class ListenError(Exception):
    """Notices cannot be received."""


class _PendingPing(NamedTuple):
    payload: str
    sent_at: float
    received: Deferred[None]


@implementer(IBus)
class PostgresBus(OwnEvents):
    """An `IBus` that listens at `address` and shares its `node_id` with the process's store.

    Each notice goes to `listener`, which is the store, and then to the subscriber. After the
    connection was lost and replaced, the subscriber's `wake_all` is called. `observe_lag` is called
    with the seconds between sending and receiving each ping.
    """

    interest = None

    def __init__(
        self,
        address: Address,
        *,
        reactor: Any,
        node_id: NodeId,
        random: Callable[[], float],
        listener: Listener | None = None,
        observe_lag: Callable[[float], None] | None = None,
    ) -> None:
        super().__init__()
        self._listener = listener
        self._location = address.location
        self._reactor = reactor
        self._node_id = node_id
        self._backoff = Backoff(random)
        self._observe_lag = observe_lag
        self._connector = Connector(address, reactor, self._on_payload)
        self._connection: Connection | None = None
        self._running: Deferred[None] | None = None
        self._delay: Deferred[None] | None = None
        self._problem: str | None = "the bus is not started"
        self._pings = 0
        self._pending_ping: _PendingPing | None = None
        self.reconnects = 0
        """How many times the connection was lost and had to be replaced."""

    def start(self, subscriber: ISubscriber) -> Deferred[None]:
        return Deferred.fromCoroutine(self._start(subscriber))

    async def _start(self, subscriber: ISubscriber) -> None:
        self.subscriber = subscriber
        try:
            connection = await self._listen()
        except ListenError as problem:
            self.subscriber = None
            raise StartError(f"cannot listen at {self._location}: {problem}") from None
        self._running = Deferred.fromCoroutine(self._run(connection))

    def stop(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self.subscriber = None
        self._problem = "the bus is stopped"
        if self._listener is not None:
            self._listener.on_disconnected()
        self._connector.stop()
        if self._connection is not None:
            self._connection.abort()
        if self._delay is not None:
            self._delay.cancel()
        running, self._running = self._running, None
        if running is not None:
            await running

    def reconnect_soon(self) -> None:
        """If the connection is lost, try to replace it at once: the database is back."""
        self._backoff.reset()
        if self._delay is not None:
            self._delay.cancel()

    def problem(self) -> str | None:
        return self._problem

    async def _run(self, connection: Connection | None) -> None:
        """Listen and reconnect until the bus is stopped."""
        while self.subscriber is not None:
            since = self._reactor.seconds()
            try:
                if connection is None:
                    connection = await self._listen()
                    _log.info("listening to the database again")
                    self.subscriber.wake_all()
                await self._watch(connection)
                self._on_lost("the connection that listens to the database was lost")
                self.reconnects += 1
            except ListenError as problem:
                self._on_lost(f"cannot listen to the database: {problem}")
            connection = None
            if self._reactor.seconds() - since >= STABLE_SECONDS:
                self._backoff.reset()
            await self._wait_to_reconnect()

    async def _listen(self) -> Connection:
        """Connect, LISTEN and receive a ping; raises `ListenError`."""
        try:
            connection = await self._connector.connect()
        except Unreachable as problem:
            raise ListenError(str(problem)) from None
        self._connection = connection
        try:
            await connection.query(_LISTEN)
            # A ping is not enough to detect a pooler: its notice comes with the response to the
            # NOTIFY, while those of other processes never arrive.
            if not connection.is_direct:
                connection.abort()
                raise ListenError("a pooler is in between: give the server itself as --listen-db")
            received = self._ping()
            if received is not None:
                await received.addTimeout(PING_SECONDS, self._reactor)
        except TimeoutError:
            connection.abort()
            raise ListenError("no notice arrives; give the server itself as --listen-db") from None
        except (psycopg2.Error, ConnectionDone) as error:
            connection.abort()
            raise ListenError(reason(error)) from None
        finally:
            self._pending_ping = None
        self._problem = None
        if self._listener is not None:
            self._listener.on_connected()
        return connection

    async def _watch(self, connection: Connection) -> None:
        """Ping regularly until the connection is closed."""
        pinging = LoopingCall(self._check_ping)
        pinging.clock = self._reactor
        stopped = pinging.start(PING_SECONDS, now=False)
        await connection.wait_closed()
        pinging.stop()
        await stopped
        self._pending_ping = None

    def _check_ping(self) -> None:
        if self._pending_ping is not None and self._connection is not None:
            self._connection.abort()
        else:
            self._ping()

    def _ping(self) -> Deferred[None] | None:
        """Send a notice to this process; the Deferred fires when it arrives."""
        if self._connection is None:
            return None
        self._pings += 1
        received: Deferred[None] = Deferred()
        payload = encode(self._node_id.name, Ping(self._pings))
        self._pending_ping = _PendingPing(payload, self._reactor.seconds(), received)
        # If the statement fails, the ping does not arrive, which is noticed.
        self._connection.query(_NOTIFY, (CHANNEL, payload)).addErrback(lambda _: None)
        return received

    def _on_payload(self, payload: str) -> None:
        if self._pending_ping is not None and payload == self._pending_ping.payload:
            self._on_ping(self._pending_ping)
            return
        # Most notices are this process's own, and long: they are not decoded.
        if sender(payload) == self._node_id.name:
            return
        try:
            notice = decode(payload)
        except ValueError:
            _log.warn("ignoring a malformed notice: {payload}", payload=payload)
            return
        if isinstance(notice, Ping):
            return
        if isinstance(notice, ChangesNotice):
            self.publish_changes(notice.user_ids)
            return
        if self._listener is not None:
            self._listener.on_notice(notice)
        if self.subscriber is None:
            return
        if isinstance(notice, MessagesNotice):
            user_ids = dict.fromkeys([each.received_by for each in notice.messages])
            self.subscriber.wake(tuple(user_ids))
        elif isinstance(notice, ChangedNotice):
            self.subscriber.changed(notice.received_by, notice.seq, notice.sent_by)
        elif isinstance(notice, RevokedNotice):
            self.subscriber.revoked(notice.user_id, notice.token)
        elif isinstance(notice, SessionsNotice):
            self.subscriber.sessions_changed(notice.user_id)

    def _on_ping(self, ping: _PendingPing) -> None:
        self._pending_ping = None
        if self._observe_lag is not None:
            self._observe_lag(self._reactor.seconds() - ping.sent_at)
        ping.received.callback(None)

    def _on_lost(self, problem: str) -> None:
        if self._listener is not None:
            self._listener.on_disconnected()
        if self.subscriber is not None and problem != self._problem:
            self._problem = problem
            _log.warn("{problem}", problem=problem)

    async def _wait_to_reconnect(self) -> None:
        if self.subscriber is None:
            return
        self._delay = deferLater(self._reactor, self._backoff.next())
        # `stop` and `reconnect_soon` cancel it.
        self._delay.addErrback(lambda _: None)
        await self._delay
        self._delay = None
