"""Deleting what deleted accounts have sent: in steps, so that nobody else has to wait for long.

The store knows what is left to do; so any process continues what another one has begun.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from chatd.errors import DomainError
from chatd.interfaces import IBus, IStore
from chatd.runtime.background import BackgroundWork
from chatd.runtime.delays import Delays

FIRST_STEPS: Final = 5
"""Steps before the client is answered: an account that needs no more is small."""
PAUSE_SECONDS: Final = 0.05
"""Between two steps in the background."""
LOOK_SECONDS: Final = 30.0
"""How often a process looks for what others have left."""

_log = Logger()


class Erasures:
    """Runs the steps of erasures, one at a time, and announces what they have deleted."""

    def __init__(self, store: IStore, bus: IBus, clock: IReactorTime) -> None:
        self._store = store
        self._bus = bus
        self._delays = Delays(clock)
        self._background = BackgroundWork(self._work, _log_failure)
        self._timer = LoopingCall(self._background.start)
        self._timer.clock = clock
        # Steps of accounts that are deleted at the same time: sends would wait behind all of them.
        self._lock = DeferredLock()

    def start(self) -> None:
        """Continue what an earlier process has left, and look for more periodically."""
        self._timer.start(LOOK_SECONDS)

    async def stop(self) -> None:
        """Begin no more steps."""
        self._background.stop()
        if self._timer.running:
            self._timer.stop()
        self._delays.stop()
        await self._background.wait_idle()

    async def erase(self, user_id: int) -> bool:
        """Delete what an account has sent that was deleted; False if that goes on later."""
        try:
            for _ in range(FIRST_STEPS):
                if not await self._step(user_id):
                    return True
        except Exception as error:
            # The account is deleted, so the client cannot repeat this.
            _log_failure(error)
        self._background.start()
        return False

    async def _work(self) -> None:
        while not self._background.is_stopped and await self._step(None):
            await self._delays.wait(PAUSE_SECONDS)

    async def _step(self, user_id: int | None) -> bool:
        await self._lock.acquire()
        try:
            erased = await self._store.erase(user_id)
        finally:
            self._lock.release()
        for message in erased.messages:
            self._bus.publish_changed(message.received_by, message.seq, message.sent_by)
        if erased.messages:
            self._bus.publish_changes({message.received_by for message in erased.messages})
        return erased.more


def _log_failure(error: Exception) -> None:
    if not isinstance(error, DomainError):
        _log.failure("what deleted accounts have sent could not be deleted")
