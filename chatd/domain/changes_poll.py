"""The long poll with changes: a poll that reads, and waits for, changes as well as messages."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from chatd.domain.answer_size import MAX_READ_BYTES, fitting_changes
from chatd.domain.poll import Poll
from chatd.errors import Unauthorized
from chatd.model import InboxSlice, ReadAfter
from chatd.model_sync import ReadChanges


class ChangesPoll(Poll):
    """A `Poll` whose `position` in the changes is None if it begins with now."""

    __slots__ = ()

    wants_changes = True

    def _read(self, after: int | None, *, listening: bool) -> None:
        query = ReadAfter(self.session.user_id, after, self._limit, MAX_READ_BYTES)
        self._await(Deferred.fromCoroutine(self._read_both(query, listening)))

    async def _read_both(self, query: ReadAfter, listening: bool) -> InboxSlice | None:
        read = self._polls.read(query, listening=listening)
        inbox = await read if isinstance(read, Deferred) else read
        if inbox is None:
            return None
        found = await self._polls.read_changes(
            ReadChanges(query.user_id, self.position, query.limit, MAX_READ_BYTES)
        )
        if found is None:
            raise Unauthorized("the account was deleted")
        self._found = found = fitting_changes(found)
        self.position = found.position
        return inbox
