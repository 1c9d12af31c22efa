"""Background deletion of old idempotency keys and of deleted accounts' data in SQLite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatd.store import statements
from chatd.store.sqlite import accounts
from chatd.store.sqlite.transactions import execute

HOUSEKEEPING_SECONDS: Final = 60.0
DELETE_KEYS_STEP: Final = 1000
"""Keys deleted per transaction, so that other writes are not delayed."""

_log = Logger()


class Housekeeping:
    """Deletes in small transactions, with other writes in between.

    `write(call, *args)` runs `call(connection, *args)` in the writer thread; `now` returns
    microseconds since the Unix epoch.
    """

    def __init__(
        self,
        write: Callable[..., Deferred[Any]],
        *,
        clock: IReactorTime,
        now: Callable[[], int],
    ) -> None:
        self._write = write
        self._now = now
        self._is_running = False
        self._timer = LoopingCall(self._delete_old_keys)
        self._timer.clock = clock

    def start(self) -> None:
        """Purge what an earlier process left behind, then work periodically."""
        self._is_running = True
        self._timer.start(HOUSEKEEPING_SECONDS, now=False)
        self.purge()

    def stop(self) -> None:
        """Begin no more transactions."""
        self._is_running = False
        self._timer.stop()

    def purge(self) -> None:
        """Delete the data of deleted accounts."""
        if self._is_running:
            self._write(accounts.purge).addCallbacks(self._purged, _log_failure)

    def _purged(self, more: bool) -> None:
        if more:
            self.purge()

    def _delete_old_keys(self) -> None:
        self.purge()
        deletion = statements.delete_old_keys(self._now(), DELETE_KEYS_STEP)
        self._write(execute, deletion).addCallbacks(self._deleted_keys, _log_failure)

    def _deleted_keys(self, more: bool) -> None:
        if more and self._is_running:
            self._delete_old_keys()


def _log_failure(failure: Failure) -> None:
    _log.failure("housekeeping of the database failed", failure)
