"""A stream with changes: an endless poll for messages and changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from chatd.domain.answer_size import fitting_changes
from chatd.domain.message_stream import READ_BYTES, READ_LIMIT, MessageStream, has_more
from chatd.errors import Unauthorized
from chatd.model import ChangesPosition, InboxSlice
from chatd.model_sync import ChangesSlice, ReadChanges


class ChangesStream(MessageStream):
    """A `MessageStream` that hands changes to its sink, too; each after the messages before it.

    Changes are read when all messages have been: until then they could not be written, and would
    be read once more for each part of the messages that the sink takes.

    `read_changes` is `ISyncStore.changes`.
    """

    __slots__ = ("_found", "_position", "_read_changes")

    wants_changes = True

    def __init__(
        self, *arguments: Any, read_changes: Callable[[ReadChanges], Deferred[ChangesSlice | None]]
    ) -> None:
        super().__init__(*arguments)
        self._read_changes = read_changes
        self._position: ChangesPosition | None = None
        self._found: ChangesSlice | None = None

    async def read_first(
        self, position: ChangesPosition | None, inbox: InboxSlice
    ) -> ChangesPosition:
        """Read the first changes after a position, None being now, unless there are more messages
        than those of `inbox`, the first read; returns the position."""
        if position is not None and has_more(inbox):
            self._position = position
            return position
        found = await self._query(position)
        if found is None:
            raise Unauthorized("the account was deleted")
        self._found = found
        self._position = found.position if position is None else position
        return self._position

    def _query(self, position: ChangesPosition | None) -> Deferred[ChangesSlice | None]:
        user_id = self.session.user_id
        return self._read_changes(ReadChanges(user_id, position, READ_LIMIT, READ_BYTES))

    def _read_new(self) -> Deferred[InboxSlice | None]:
        return Deferred.fromCoroutine(self._read_both())

    async def _read_both(self) -> InboxSlice | None:
        read = super()._read_new()
        inbox = await read if isinstance(read, Deferred) else read
        if inbox is None or has_more(inbox):
            return inbox
        self._found = await self._query(self._position)
        return inbox if self._found is not None else None

    def _deliver(self, inbox: InboxSlice) -> None:
        super()._deliver(inbox)
        found, self._found = self._found, None
        if found is None:
            # There are more messages, which are read next.
            return
        fit = fitting_changes(found)
        is_large = len(found.changes) < READ_LIMIT and found.more
        if fit is not found or is_large:
            found = fit
            self._continue_later()
        written = 0
        while written < len(found.changes) and not self._paused:
            assert self._sink is not None
            written += self._sink.write_changes(found.changes[written:], found.positions[written:])
            self._position = found.positions[written - 1]
        if written < len(found.changes) or found.more:
            self._unread = True
        else:
            self._position = found.position
