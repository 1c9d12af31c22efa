"""The bus between processes that share a PostgreSQL: LISTEN on a connection of its own.

The store sends a NOTIFY in the transaction of every batch, revocation and deletion. Who committed
tells its own waiters directly, and ignores the echo; what was given up while the server worked on
it is no echo.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

import psycopg2
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ConnectionDone
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from zope.interface import implementer

from chatd.errors import StartError
from chatd.interfaces import IBus, ISubscriber
from chatd.postgres.address import Address
from chatd.postgres.connection import Connection, Connector, Unreachable, reason
from chatd.postgres.notify_payloads import (
    CHANNEL,
    Listener,
    MessagesNotice,
    NodeId,
    Ping,
    decode,
    encode,
    sender,
)
from chatd.runtime.backoff import Backoff

PING_SECONDS: Final = 5.0
"""How often the bus looks whether notices arrive; silence is noticed within twice that."""

STABLE_SECONDS: Final = 1.0

_LISTEN: Final = f"LISTEN {CHANNEL}"
_NOTIFY: Final = "SELECT pg_notify(%s, %s)"

_log = Logger()


@implementer(IBus)
class PostgresBus:
    """An `IBus` that listens at `address`; `node_id` is that of the store of this process.

    What it hears it tells first to `listener`, that store, then to its subscriber. After every
    time that it could not listen, it tells its subscriber to look at everything. `observe_lag` gets
    the seconds that a notice took to come back.
    """

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
        self._listener = listener
        self._location = address.location
        self._reactor = reactor
        self._node_id = node_id
        self._backoff = Backoff(random)
        self._observe_lag = observe_lag
        self._connector = Connector(address, reactor, self._heard)
        self._subscriber: ISubscriber | None = None
        self._connection: Connection | None = None
        self._keeping: Deferred[None] | None = None
        self._pause: Deferred[None] | None = None
        self._problem: str | None = "the bus is not started"
        self._pings = 0
        self._awaited: tuple[str, float, Deferred[None]] | None = None
        self.reconnects = 0
        """How often the connection was lost and had to be made again."""

    def start(self, subscriber: ISubscriber) -> Deferred[None]:
        return Deferred.fromCoroutine(self._start(subscriber))

    async def _start(self, subscriber: ISubscriber) -> None:
        self._subscriber = subscriber
        try:
            connection = await self._listen()
        except _Deaf as problem:
            self._subscriber = None
            raise StartError(f"cannot listen at {self._location}: {problem}") from None
        self._keeping = Deferred.fromCoroutine(self._keep(connection))

    def stop(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._subscriber = None
        self._problem = "the bus is stopped"
        if self._listener is not None:
            self._listener.deaf()
        self._connector.stop()
        if self._connection is not None:
            self._connection.abandon()
        if self._pause is not None:
            self._pause.cancel()
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            await keeping

    def problem(self) -> str | None:
        return self._problem

    def publish(self, user_ids: Collection[int]) -> None:
        if self._subscriber is not None and user_ids:
            self._subscriber.wake(user_ids)

    def publish_revoked(self, user_id: int, token: bytes | None) -> None:
        if self._subscriber is not None:
            self._subscriber.revoked(user_id, token)

    async def _keep(self, connection: Connection | None) -> None:
        """Listen for as long as there is a subscriber."""
        while self._subscriber is not None:
            since = self._reactor.seconds()
            try:
                if connection is None:
                    connection = await self._listen()
                    _log.info("listening to the database again")
                    self._subscriber.wake_all()
                await self._watch(connection)
                self._trouble("the connection that listens to the database was lost")
                self.reconnects += 1
            except _Deaf as problem:
                self._trouble(f"cannot listen to the database: {problem}")
            connection = None
            if self._reactor.seconds() - since >= STABLE_SECONDS:
                self._backoff.reset()
            await self._rest()

    async def _listen(self) -> Connection:
        """Connect, listen, and hear oneself; raises `_Deaf`."""
        try:
            connection = await self._connector.connect()
        except Unreachable as problem:
            raise _Deaf(str(problem)) from None
        self._connection = connection
        try:
            await connection.query(_LISTEN)
            # Hearing oneself proves nothing behind a pooler: the echo comes along with the answer,
            # what others say does not.
            if not connection.is_direct:
                connection.abandon()
                raise _Deaf("a pooler is in between: give the server itself as --listen-db")
            echo = self._ping()
            if echo is not None:
                await echo.addTimeout(PING_SECONDS, self._reactor)
        except TimeoutError:
            connection.abandon()
            raise _Deaf("no notice arrives; give the server itself as --listen-db") from None
        except (psycopg2.Error, ConnectionDone) as problem:
            connection.abandon()
            raise _Deaf(reason(problem)) from None
        finally:
            self._awaited = None
        self._problem = None
        if self._listener is not None:
            self._listener.hearing()
        return connection

    async def _watch(self, connection: Connection) -> None:
        """Look whether notices arrive, until the connection ends."""
        pinging = LoopingCall(self._look)
        pinging.clock = self._reactor
        looked = pinging.start(PING_SECONDS, now=False)
        await connection.ended()
        pinging.stop()
        await looked
        self._awaited = None

    def _look(self) -> None:
        if self._awaited is not None and self._connection is not None:
            self._connection.abandon()
        else:
            self._ping()

    def _ping(self) -> Deferred[None] | None:
        """Send oneself a notice; the Deferred fires when it arrives."""
        if self._connection is None:
            return None
        self._pings += 1
        echo: Deferred[None] = Deferred()
        payload = encode(self._node_id.name, Ping(self._pings))
        self._awaited = (payload, self._reactor.seconds(), echo)
        # What goes wrong with it, the echo that fails to come tells.
        self._connection.query(_NOTIFY, (CHANNEL, payload)).addErrback(lambda _: None)
        return echo

    def _heard(self, payload: str) -> None:
        if self._awaited is not None and payload == self._awaited[0]:
            self._echoed()
            return
        # Most are echoes, and those of batches are long: they are not taken apart.
        if sender(payload) == self._node_id.name:
            return
        try:
            notice = decode(payload)
        except ValueError:
            _log.warn("a notice that is not understood was ignored: {payload}", payload=payload)
            return
        if isinstance(notice, Ping):
            return
        if self._listener is not None:
            self._listener.heard(notice)
        if self._subscriber is None:
            return
        if isinstance(notice, MessagesNotice):
            self._subscriber.wake(tuple(dict.fromkeys([line.received_by for line in notice.lines])))
        else:
            self._subscriber.revoked(notice.user_id, notice.token)

    def _echoed(self) -> None:
        assert self._awaited is not None
        _, sent, echo = self._awaited
        self._awaited = None
        if self._observe_lag is not None:
            self._observe_lag(self._reactor.seconds() - sent)
        echo.callback(None)

    def _trouble(self, problem: str) -> None:
        if self._listener is not None:
            self._listener.deaf()
        if self._subscriber is not None and problem != self._problem:
            self._problem = problem
            _log.warn("{problem}", problem=problem)

    async def _rest(self) -> None:
        if self._subscriber is None:
            return
        self._pause = deferLater(self._reactor, self._backoff.next())
        # Cancelled when the bus stops: then there is nothing to wait for.
        self._pause.addErrback(lambda _: None)
        await self._pause
        self._pause = None


class _Deaf(Exception):
    """Notices do not arrive."""
