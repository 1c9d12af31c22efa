"""The connection of a process to NATS: kept up, and checked by heartbeats and PINGs."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from chatd.bus.announcer import NatsAnnouncer, Subjects
from chatd.bus.interest import Interest
from chatd.bus.nats_payloads import Goodbye, decode_heartbeat
from chatd.bus.peers import Peers
from chatd.nats.connector import CONNECT_SECONDS, Connector
from chatd.nats.protocol import Info, NatsError, NatsProtocol
from chatd.runtime.backoff import Backoff
from chatd.runtime.delays import Delays

HEARTBEAT_SECONDS: Final = 1.0
TICK_SECONDS: Final = 0.5
LATE_SECONDS: Final = 1.0
"""If a tick is so late, this process was busy or stopped: that others are silent means nothing."""
PONG_SECONDS: Final = 2.5
"""A server that does not answer for so long is left for another one."""
CLOSE_SECONDS: Final = 1.0
"""How long closing the connection may take."""
STABLE_SECONDS: Final = 5.0
"""A connection that lasted this long resets the delay before the next attempt."""

_HEARTBEATS: Final = b"h"
_REVOCATIONS: Final = b"r"

_log = Logger()


class LinkHandler(Protocol):
    """What a `NatsLink` tells; the methods never raise but for `ValueError`."""

    def on_connected(self) -> None:
        """From now on events arrive; others may have been missed before."""
        ...

    def on_lost(self, problem: str) -> None:
        """Events do not arrive any more; called again if there is another problem."""
        ...

    def on_gap(self, what: str) -> None:
        """Events of another process may have been missed."""
        ...

    def on_settled(self) -> None:
        """All servers know by now what was subscribed when the connection was made.

        Events may have been missed until now.
        """
        ...

    def check(self, user_ids: Collection[int]) -> None:
        """The same, of users who were subscribed later."""
        ...

    def on_user(self, user_id: int, payload: bytes) -> None:
        """An event of a user; raises `ValueError` if it is malformed."""
        ...

    def on_revocation(self, payload: bytes, peers: Peers) -> None:
        """A revocation; raises `ValueError` if it is malformed."""
        ...


class NatsLink:
    """Connects to one of the servers of `connector`, again and again, and subscribes.

    `observe_lag` is called with the seconds in which the server answered each PING.
    """

    def __init__(
        self,
        connector: Connector,
        *,
        reactor: Any,
        random: Callable[[], float],
        interest: Interest,
        announcer: NatsAnnouncer,
        handler: LinkHandler,
        observe_lag: Callable[[float], None] | None = None,
    ) -> None:
        self._connector = connector
        self._reactor = reactor
        self._interest = interest
        self._announcer = announcer
        self._handler = handler
        self._observe_lag = observe_lag
        self._backoff = Backoff(random)
        self._delays = Delays(reactor)
        self._subjects = Subjects("", "")
        self._protocol: NatsProtocol | None = None
        self._running: Deferred[None] | None = None
        self._stopped = False
        self._ticks = LoopingCall(self._tick)
        self._ticks.clock = reactor
        self._ticked_at = 0.0
        self._beat_at = 0.0
        # When the PING was sent that is not answered yet.
        self._pinged_at: float | None = None
        # Users that were subscribed since the last PING, and those that were before; None: all.
        self._unconfirmed: set[int] | None = set()
        self._unchecked: set[int] | None = set()
        self.peers = Peers()
        self.reconnects = 0
        """How many times the connection was lost and had to be replaced."""

    async def start(self, subjects: Subjects) -> None:
        """Connect; raises `NatsError`."""
        self._subjects = subjects
        self._interest.subscriptions = self
        try:
            protocol = await self._connect()
        except NatsError:
            self._interest.subscriptions = None
            raise
        self._ticked_at = self._reactor.seconds()
        self._ticks.start(TICK_SECONDS, now=False)
        self._running = Deferred.fromCoroutine(self._run(protocol))

    async def stop(self) -> None:
        """Say goodbye and close the connection."""
        self._stopped = True
        self._interest.subscriptions = None
        if self._ticks.running:
            self._ticks.stop()
        self._announcer.stop()
        self._connector.stop()
        self._delays.stop()
        running, self._running = self._running, None
        if running is None:
            return
        if (protocol := self._protocol) is None:
            await running
            return
        protocol.close("stopped")
        # With TLS, a server that is stopped would have to answer.
        timer = self._reactor.callLater(CLOSE_SECONDS, protocol.abort, "stopped")
        await running
        if timer.active():
            timer.cancel()

    async def _run(self, protocol: NatsProtocol | None) -> None:
        """Reconnect until the link is stopped."""
        since = self._reactor.seconds()
        while not self._stopped:
            try:
                if protocol is None:
                    protocol = await self._connect()
                    since = self._reactor.seconds()
                problem = f"the connection to NATS was lost: {await protocol.closed}"
                self.reconnects += not self._stopped
                if self._reactor.seconds() - since >= STABLE_SECONDS:
                    self._backoff.reset()
            except NatsError as error:
                problem = f"cannot connect to NATS: {error}"
            protocol = None
            self._drop()
            if not self._stopped:
                self._handler.on_lost(problem)
            await self._delays.wait(self._backoff.next())

    async def _connect(self) -> NatsProtocol:
        """Connect and subscribe; raises `NatsError`."""
        protocol = await self._connector.connect(self)
        subjects = self._subjects
        protocol.subscribe(
            [(subjects.heartbeats, _HEARTBEATS), (subjects.revocations, _REVOCATIONS)]
        )
        # From here on users are subscribed by `subscribe_users`, too.
        self._protocol = protocol
        self._unconfirmed, self._unchecked = None, set()
        protocol.subscribe([(subjects.user(each), b"%d" % each) for each in self._interest.users])
        self.peers.clear()
        self._announcer.connect(protocol, subjects)
        try:
            await protocol.ping().addTimeout(CONNECT_SECONDS, self._reactor)
        except (NatsError, TimeoutError) as error:
            self._drop()
            problem = str(error) if isinstance(error, NatsError) else "no answer"
            protocol.abort(problem)
            raise NatsError(problem) from None
        self._pinged_at = None
        self._beat_at = self._reactor.seconds()
        if not self._stopped:
            self._handler.on_connected()
        return protocol

    def _drop(self) -> None:
        self._protocol = None
        self._announcer.disconnect()

    # `Subscriptions`.

    def subscribe_users(self, user_ids: Collection[int]) -> None:
        if self._protocol is not None:
            user = self._subjects.user
            self._protocol.subscribe([(user(each), b"%d" % each) for each in user_ids])
            if self._unconfirmed is not None:
                self._unconfirmed.update(user_ids)

    def unsubscribe_users(self, user_ids: Collection[int]) -> None:
        if self._protocol is not None:
            self._protocol.unsubscribe([b"%d" % each for each in user_ids])

    def check_soon(self, user_ids: Collection[int]) -> None:
        """Check these users with those that were subscribed."""
        if self._unchecked is not None:
            self._unchecked.update(user_ids)

    # `chatd.nats.protocol.Handler`.

    def on_info(self, info: Info) -> None:
        """Learn of other servers, and leave one that is going to stop."""
        self._connector.learn(info)
        if info.ldm and self._protocol is not None:
            self._protocol.abort("the server is going to stop")

    def on_message(self, sid: bytes, payload: bytes) -> None:
        """Pass on what another process has sent."""
        if self._stopped:
            return
        try:
            if sid == _HEARTBEATS:
                self._on_heartbeat(payload)
            elif sid == _REVOCATIONS:
                self._handler.on_revocation(payload, self.peers)
            else:
                self._handler.on_user(int(sid), payload)
        except ValueError as error:
            _log.warn(
                "ignoring a malformed message of {size} bytes: {error}",
                size=len(payload),
                error=str(error)[:100],
            )

    def _on_heartbeat(self, payload: bytes) -> None:
        beat = decode_heartbeat(payload)
        if isinstance(beat, Goodbye):
            self.peers.on_goodbye(beat.node)
        elif self.peers.on_heartbeat(beat, self._reactor.seconds()):
            self._handler.on_gap("messages of another process may be missing")

    # Regular work.

    def _tick(self) -> None:
        now = self._reactor.seconds()
        late = now - self._ticked_at - TICK_SECONDS > LATE_SECONDS
        self._ticked_at = now
        self._interest.expire()
        protocol = self._protocol
        if protocol is None:
            return
        if late:
            self.peers.excuse(now)
            if self._pinged_at is not None:
                self._pinged_at = now
        elif self.peers.forget_silent(now):
            self._handler.on_gap("another process is silent")
        if self._pinged_at is not None and now - self._pinged_at > PONG_SECONDS:
            protocol.abort(f"no answer within {PONG_SECONDS:g} s")
        elif now - self._beat_at >= HEARTBEAT_SECONDS - TICK_SECONDS / 2:
            self._beat_at = now
            self._announcer.beat()
            if self._pinged_at is None:
                self._ping(protocol, now)

    def _ping(self, protocol: NatsProtocol, now: float) -> None:
        """Check the users whose subscriptions were confirmed a second ago, and confirm others."""
        if self._unchecked is None:
            self._handler.on_settled()
        elif self._unchecked:
            self._handler.check(self._unchecked)
        self._unchecked, self._unconfirmed = self._unconfirmed, set()
        self._pinged_at = now
        protocol.ping().addCallbacks(self._on_pong, lambda _: None)

    def _on_pong(self, _: None) -> None:
        if self._pinged_at is not None and self._observe_lag is not None:
            self._observe_lag(self._reactor.seconds() - self._pinged_at)
        self._pinged_at = None
