"""Deleting what is left of messages that were removed from the beginning of inboxes: their rows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from twisted.logger import Logger

from chatd.errors import DomainError
from chatd.runtime.background import BackgroundWork

INBOXES: Final = 100
"""Inboxes that one transaction looks at."""

_log = Logger()


class Deleted(NamedTuple):
    """How many rows a transaction has deleted, and whether it has found any."""

    rows: int
    more: bool


class RemovedRows:
    """The inboxes that may have rows of removed messages, which it deletes; it costs nothing while
    there are none.

    `delete` deletes some rows, in one transaction, of inboxes with the last seq that was removed
    from each. Before that `prepare` is awaited, and `finish` when none are left.
    """

    def __init__(
        self,
        delete: Callable[[Sequence[tuple[int, int]]], Awaitable[Deleted]],
        *,
        prepare: Callable[[], Awaitable[object]] | None = None,
        finish: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._delete = delete
        self._prepare = prepare
        self._finish = finish
        self._inboxes: dict[int, int] = {}
        self._background = BackgroundWork(self._work, _failed)

    def add(self, user_id: int, seq: int) -> None:
        """The messages of an inbox up to that one were removed, in this process or another."""
        self._inboxes[user_id] = seq

    async def delete(self) -> int:
        """Delete the rows of what was added before; returns how many those were."""
        inboxes = list(self._inboxes.items())
        if not inboxes:
            return 0
        if self._prepare is not None:
            await self._prepare()
        rows = 0
        for start in range(0, len(inboxes), INBOXES):
            part = inboxes[start : start + INBOXES]
            more = True
            while more:
                if self._background.is_stopped:
                    return rows
                deleted, more = await self._delete(part)
                rows += deleted
            for user_id, seq in part:
                if self._inboxes.get(user_id) == seq:
                    del self._inboxes[user_id]
        if self._finish is not None:
            await self._finish()
        return rows

    def start(self) -> None:
        """Delete all rows in the background, unless that is under way."""
        self._background.start()

    async def _work(self) -> None:
        while self._inboxes and not self._background.is_stopped:
            await self.delete()

    def stop(self) -> None:
        """Begin no more transactions."""
        self._background.stop()

    async def wait_idle(self) -> None:
        """Return when none is under way in the background."""
        await self._background.wait_idle()


def _failed(error: Exception) -> None:
    # Otherwise the database is away, and housekeeping tries again.
    if not isinstance(error, DomainError):
        _log.failure("what is left of removed messages could not be deleted")
