"""Announces over NATS what this process has committed."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from chatd.bus.nats_payloads import (
    CHANGES,
    LOOK,
    Heartbeat,
    Removal,
    Revocation,
    encode_changed,
    encode_goodbye,
    encode_heartbeat,
    encode_messages,
    encode_removal,
    encode_revocation,
)
from chatd.interfaces import IAnnouncer
from chatd.model import Message
from chatd.nats.protocol import NatsProtocol
from chatd.runtime.delays import Delays

LOOK_AGAIN_SECONDS: Final = (2.0, 10.0, 60.0)
"""When others look again for the outcome of a transaction that is unknown: it may be committed
long after this process gave up."""
MAX_UNKNOWN: Final = 10_000
"""Of so many users outcomes are remembered; those of others are left to the sweep."""
REMOVED_INBOXES: Final = 500
"""Inboxes in one payload."""
OVERHEAD_BYTES: Final = 1024
"""Of the server's `max_payload`, so much is not used."""


class Subjects:
    """The subjects of one database: `PREFIX.EPOCH.`, then `u.` and a user, `r` or `h`."""

    def __init__(self, prefix: str, epoch: str) -> None:
        self._user = f"{prefix}.{epoch}.u.%d".encode()
        self.revocations = f"{prefix}.{epoch}.r".encode()
        self.heartbeats = f"{prefix}.{epoch}.h".encode()

    def user(self, user_id: int) -> bytes:
        """The subject of a user."""
        return self._user % user_id


@implementer(IAnnouncer)
class NatsAnnouncer:
    """An `IAnnouncer` that publishes while it is `connect`ed.

    Others are not told what is announced meanwhile, but notice with the next heartbeat that they
    have missed something.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._node = secrets.token_hex(6)
        self._generation = 0
        self._number = 0
        self._revocations = 0
        self._protocol: NatsProtocol | None = None
        self._subjects: Subjects | None = None
        self._max_payload = 0
        self._delays = Delays(clock)
        # Users in delayed calls.
        self._waiting = 0
        self.look: Callable[[Collection[int], bool], None] | None = None
        """Makes this process, too, look for unknown outcomes: of users, or of their sessions."""

    def connect(self, protocol: NatsProtocol, subjects: Subjects) -> None:
        """Announce to this connection from now on; it begins with a heartbeat."""
        self._protocol = protocol
        self._subjects = subjects
        max_payload = protocol.info.max_payload if protocol.info is not None else 0
        self._max_payload = max(max_payload - OVERHEAD_BYTES, OVERHEAD_BYTES)
        self._generation += 1
        self._number = self._revocations = 0
        self.beat()

    def disconnect(self) -> None:
        """Announce nothing until the next `connect`."""
        self._protocol = None

    def stop(self) -> None:
        """Say goodbye, so that others do not miss this process."""
        self.look = None
        self._delays.stop()
        if self._protocol is not None and self._subjects is not None:
            goodbye = encode_goodbye(self._node, self._generation)
            self._protocol.publish([(self._subjects.heartbeats, goodbye)])
        self.disconnect()

    def beat(self) -> None:
        """Send a heartbeat."""
        if self._protocol is not None and self._subjects is not None:
            self._number += 1
            beat = Heartbeat(self._node, self._generation, self._number, self._revocations)
            self._protocol.publish([(self._subjects.heartbeats, encode_heartbeat(beat))])

    def announce_messages(self, messages: Sequence[Message]) -> None:
        if self._protocol is not None and self._subjects is not None:
            user = self._subjects.user
            self._protocol.publish(
                [
                    (user(user_id), payload)
                    for user_id, payload in encode_messages(messages, self._max_payload)
                ]
            )

    def announce_changes(self, user_ids: Collection[int]) -> None:
        self._publish_users(user_ids, CHANGES)

    def announce_changed(self, received_by: int, seq: int, sent_by: int) -> None:
        self._publish_users((received_by,), encode_changed(seq, sent_by))

    def announce_revoked(self, user_id: int, token: bytes | None) -> None:
        self._revoke(user_id, token, is_known=True)

    def announce_sessions_changed(self, user_id: int) -> None:
        self._revoke(user_id, None, is_known=False)

    def announce_removed(self, inboxes: Sequence[tuple[int, int]]) -> None:
        for start in range(0, len(inboxes), REMOVED_INBOXES):
            if self._protocol is not None and self._subjects is not None:
                self._revocations += 1
                part = tuple(inboxes[start : start + REMOVED_INBOXES])
                removal = Removal(self._node, self._generation, self._revocations, part)
                self._protocol.publish([(self._subjects.revocations, encode_removal(removal))])

    def announce_unknown(self, user_ids: Collection[int], *, sessions: bool = False) -> None:
        self._look(frozenset(user_ids), sessions, LOOK_AGAIN_SECONDS)

    def _look(self, user_ids: frozenset[int], sessions: bool, delays: tuple[float, ...]) -> None:
        if self.look is None:
            return
        if sessions:
            for user_id in user_ids:
                self.announce_sessions_changed(user_id)
        else:
            self._publish_users(user_ids, LOOK)
        self.look(user_ids, sessions)
        if delays and self._waiting + len(user_ids) <= MAX_UNKNOWN:
            Deferred.fromCoroutine(self._look_again(user_ids, sessions, delays))

    async def _look_again(
        self, user_ids: frozenset[int], sessions: bool, delays: tuple[float, ...]
    ) -> None:
        self._waiting += len(user_ids)
        await self._delays.wait(delays[0])
        self._waiting -= len(user_ids)
        self._look(user_ids, sessions, delays[1:])

    def _publish_users(self, user_ids: Collection[int], payload: bytes) -> None:
        if self._protocol is not None and self._subjects is not None:
            user = self._subjects.user
            self._protocol.publish([(user(user_id), payload) for user_id in user_ids])

    def _revoke(self, user_id: int, token: bytes | None, *, is_known: bool) -> None:
        if self._protocol is not None and self._subjects is not None:
            self._revocations += 1
            revocation = Revocation(
                self._node, self._generation, self._revocations, user_id, token, is_known
            )
            self._protocol.publish([(self._subjects.revocations, encode_revocation(revocation))])
