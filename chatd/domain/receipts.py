"""Waiting until a message that was sent is delivered or read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from chatd.domain.notifier import Notifier, RecordsHold
from chatd.domain.store_calls import StoreCalls
from chatd.errors import Unauthorized
from chatd.interfaces import IStore
from chatd.model import MAX_INTEGER, Message, Session, WakeReason
from chatd.model_sync import PeerPositions

Receipt = Literal["delivered", "read"]


class Receipts:
    """Tells senders when their messages are delivered or read."""

    def __init__(
        self, store: IStore, notifier: Notifier, calls: StoreCalls, clock: IReactorTime
    ) -> None:
        self._store = store
        self._calls = calls
        self._notifier = notifier
        self._clock = clock

    async def prepare(self, session: Session) -> None:
        """Call before sending a message whose receipt will be waited for."""
        user_id = session.user_id
        if not await self._calls.run(user_id, lambda: self._store.sync.synchronise(user_id)):
            raise Unauthorized("the account was deleted")

    async def wait(
        self,
        session: Session,
        message: Message,
        receipt: Receipt,
        seconds: float,
        record: RecordsHold,
    ) -> bool:
        """Whether a message of the caller was delivered or read within so many seconds.

        Raises `Unauthorized` if the session is ended meanwhile.
        """
        user_id, peer = session.user_id, message.received_by

        def read() -> Deferred[PeerPositions]:
            return self._store.sync.peer_positions(user_id, peer)

        waiter = ReceiptWaiter(
            session,
            self._notifier,
            self._clock,
            lambda: self._calls.run(user_id, read),
            record,
        )
        return await waiter.wait(receipt, message.seq, seconds)


class ReceiptWaiter:
    """A `chatd.domain.notifier.Waiter` for a position of a peer to reach a message.

    `read` reads the positions; `record.held_seconds` is set to the time that was waited.
    """

    wants_changes = True
    is_behind = False
    # Messages in the sender's inbox are no reason to wait less.
    seq = MAX_INTEGER

    def __init__(
        self,
        session: Session,
        notifier: Notifier,
        clock: IReactorTime,
        read: Callable[[], Deferred[PeerPositions]],
        record: RecordsHold,
    ) -> None:
        self.session = session
        self._notifier = notifier
        self._clock = clock
        self._read = read
        self._record = record
        self._waiting: Deferred[None] | None = None
        self._happened: WakeReason | Unauthorized | None = None

    @property
    def held(self) -> bool:
        """Whether it waits now."""
        return self._waiting is not None

    async def wait(self, receipt: Receipt, seq: int, seconds: float) -> bool:
        """Whether the message `seq` was delivered or read within so many seconds.

        Raises `Unauthorized` if the session is ended meanwhile, and errors of the store.
        """
        due = self._clock.seconds() + seconds
        # First of all: from here on no change and no revocation is missed.
        self._notifier.add(self)
        try:
            while True:
                self._happened = None
                positions = await self._read()
                if (positions.read if receipt == "read" else positions.delivered) >= seq:
                    return True
                happened = await self._next(due)
                if isinstance(happened, Unauthorized):
                    raise happened
                if happened is not WakeReason.MESSAGE:
                    return False
        finally:
            self._notifier.remove(self)

    async def _next(self, due: float) -> WakeReason | Unauthorized | None:
        """What has happened since the read began, or happens until `due`."""
        began = self._clock.seconds()
        if self._happened is not None or began >= due:
            return self._happened
        waiting: Deferred[None] = Deferred()
        self._waiting = waiting
        timer = self._clock.callLater(due - began, self.wake, WakeReason.TIMEOUT)
        try:
            # May wake it at once, to enforce the limits.
            self._notifier.hold(self)
            await waiting
        finally:
            self._waiting = None
            self._notifier.release()
            self._record.held_seconds += self._clock.seconds() - began
            if timer.active():
                timer.cancel()
        return self._happened

    def wake(self, reason: WakeReason) -> None:
        """Read the positions again for a change; for another reason, wait no longer."""
        self._set(reason)

    def revoke(self) -> None:
        """Fail with `Unauthorized`."""
        self._set(Unauthorized("the session was ended"))

    def _set(self, happened: WakeReason | Unauthorized) -> None:
        if self._happened is None or self._happened is WakeReason.MESSAGE:
            self._happened = happened
        if self._waiting is not None and not self._waiting.called:
            self._waiting.callback(None)
