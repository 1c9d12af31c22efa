"""The part that all buses have: the events of a process itself go to its own waiters at once."""

from __future__ import annotations

from collections.abc import Collection

from chatd.interfaces import ISubscriber


class OwnEvents:
    """The `publish...` methods of an `IBus`, which tell the `subscriber` while there is one.

    What other processes are told is announced by the store, with or after its commit.
    """

    def __init__(self) -> None:
        self.subscriber: ISubscriber | None = None

    def publish(self, user_ids: Collection[int]) -> None:
        """Wake polls and streams for messages."""
        if self.subscriber is not None and user_ids:
            self.subscriber.wake(user_ids)

    def publish_changes(self, user_ids: Collection[int]) -> None:
        """Wake those that want changes."""
        if self.subscriber is not None:
            self.subscriber.wake_for_changes(user_ids)

    def publish_changed(self, received_by: int, seq: int, sent_by: int) -> None:
        """A message was edited or deleted."""
        if self.subscriber is not None:
            self.subscriber.changed(received_by, seq, sent_by)

    def publish_revoked(self, user_id: int, token: bytes | None) -> None:
        """A token was revoked, or all of a user."""
        if self.subscriber is not None:
            self.subscriber.revoked(user_id, token)

    def publish_sessions_changed(self, user_id: int) -> None:
        """Sessions of a user may have ended."""
        if self.subscriber is not None:
            self.subscriber.sessions_changed(user_id)
