"""Editing and deleting messages.

Neither moves a message or a cursor, so only polls with changes are woken: whoever reads the message
from now on gets it as it is. `BusSubscriber.changed` is called in every process after a message has
changed. Each is a transaction of its own, so few are given to the store at once: sends of others
would wait behind all of them.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from chatd.domain.disk_space import DiskSpace
from chatd.domain.outcomes import announced
from chatd.domain.rate_limits import RateLimits
from chatd.domain.store_calls import StoreCalls
from chatd.domain.texts import encode_text
from chatd.interfaces import IBus, IStore
from chatd.model import LOCAL, Message, Revision, Session


class Revisions:
    """Use cases of editing and deleting.

    `edit_seconds` is for how long after it was sent a message may be edited or deleted; 0: always.
    """

    def __init__(
        self,
        store: IStore,
        bus: IBus,
        limits: RateLimits,
        disk: DiskSpace,
        calls: StoreCalls,
        *,
        max_message_bytes: int,
        edit_seconds: int,
    ) -> None:
        self._store = store
        self._bus = bus
        self._limits = limits
        self._disk = disk
        self._calls = calls
        self.max_message_bytes = max_message_bytes
        self.edit_seconds = edit_seconds

    async def edit(
        self, session: Session, received_by: int, seq: int, text: str, address: str = LOCAL
    ) -> Message:
        """Change the text of a message that the caller sent; returns it once that is durable.

        Raises `InvalidBody`, `MessageTooLarge`, `InsufficientStorage`, `RateLimited`, and what
        `IStore.revise` raises. An edit to the same text changes nothing, so that an edit can be
        repeated.
        """
        encoded = encode_text(text, self.max_message_bytes)
        self._disk.check()
        self._limits.count_text(session.user_id, address, len(encoded))
        return await self._revise(session, received_by, seq, text)

    async def delete(self, session: Session, received_by: int, seq: int) -> None:
        """Delete a message that the caller sent; returns once that is durable.

        Raises `RateLimited`, and what `IStore.revise` raises.
        """
        self._limits.count_send(session.user_id)
        await self._revise(session, received_by, seq, None)

    def _revise(
        self, session: Session, received_by: int, seq: int, text: str | None
    ) -> Deferred[Message]:
        def publish() -> None:
            self._bus.publish_changed(received_by, seq, session.user_id)
            self._bus.publish_changes({received_by, session.user_id})

        within = self.edit_seconds * 1_000_000 or None
        revision = Revision(session.user_id, received_by, seq, text, within)
        return self._calls.run(
            session.user_id, lambda: announced(self._store.revise(revision), publish)
        )
