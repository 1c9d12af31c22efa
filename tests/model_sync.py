"""Model of conversations and changes: random operations never leave two devices different.

`SyncStoreMachine` extends `StoreMachine`. A device knows what it has received through its cursor
only; once it has received everything, it shows what the model shows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from chatd.errors import InvalidBody, UserNotFound
from chatd.model import ALL_CHANGES, ChangesPosition, ConversationCursor, Message, ReadAfter
from chatd.model_sync import (
    ConversationSummary,
    ListConversations,
    MarkRead,
    MessageChange,
    PeerPositions,
    ReadChange,
    ReadChanges,
)
from tests.model_machine import StoreMachine, User, limits, places, users


@dataclass
class Device:
    """A device of an account: what it knows, and its cursor."""

    user: int
    seq: int = 0
    position: ChangesPosition = ALL_CHANGES
    messages: dict[tuple[int, int], Message] = field(default_factory=dict)
    reads: dict[int, int] = field(default_factory=dict)
    peers: dict[int, PeerPositions] = field(default_factory=dict)


class SyncStoreMachine(StoreMachine):
    """Operations with conversations, positions and changes, besides all others."""

    # With the devices, which begin again where their cursors are rejected.
    STATE: ClassVar[tuple[str, ...]] = (*StoreMachine.STATE, "reads", "delivered", "devices")

    def __init__(self) -> None:
        super().__init__()
        # By reader and peer: a seq of the reader's inbox.
        self.reads: dict[tuple[int, int], int] = {}
        self.delivered: dict[int, int] = {}
        self.devices: list[Device] = []

    def positions(self, user_id: int, peer: int) -> PeerPositions:
        """How far messages of the user to the peer came."""
        owner = self.users.get(peer)
        if owner is None or owner.deleted:
            return PeerPositions()
        read = self.reads.get((peer, user_id), 0)
        delivered = max(self.delivered.get(peer, 0), read)
        seqs = [each.seq for each in owner.inbox if each.sent_by == user_id]
        return PeerPositions(
            max((seq for seq in seqs if seq <= delivered), default=0),
            max((seq for seq in seqs if seq <= read), default=0),
        )

    def summary(self, user: User, peer: int) -> ConversationSummary | None:
        """The conversation of a user with a peer; None if there is none."""
        user_id = user.account.id
        other = self.users[peer]
        received = [each for each in user.inbox if each.sent_by == peer]
        sent = [] if other.deleted else [each for each in other.inbox if each.sent_by == user_id]
        if not (received or sent):
            return None
        last = max([*received, *sent], key=ConversationCursor.of)
        read = self.reads.get((user_id, peer), 0)
        positions = self.positions(user_id, peer)
        return ConversationSummary(
            peer,
            None if other.deleted else other.account.username,
            last,
            min(100, sum(each.seq > read for each in received)),
            read,
            positions.read,
            positions.delivered,
            last.sent_at,
        )

    @rule(number=users, limit=limits)
    def list_conversations(self, number: int, limit: int) -> None:
        user = self.existing(number)
        found: list[ConversationSummary] = []
        before = None
        while True:
            query = ListConversations(self.id_of(number), limit, before)
            part = self.run(self.opened.sync.conversations(query))
            if user is None:
                assert part is None
                return
            assert len(part.conversations) <= limit
            found += part.conversations
            before = part.older
            if before is None:
                break
        expected = [each for peer in self.users if (each := self.summary(user, peer))]
        assert found == sorted(expected, key=lambda each: (each.last_at, each.peer))[::-1]

    @rule(number=users, other=users, seq=st.integers(1, 12))
    def mark_read(self, number: int, other: int, seq: int) -> None:
        user_id, peer = self.id_of(number), self.id_of(other)
        user = self.existing(number)
        query = MarkRead(user_id, peer, seq)
        if user is not None and (seq > len(user.inbox) or peer not in self.users):
            error = InvalidBody if seq > len(user.inbox) else UserNotFound
            with pytest.raises(error):
                self.run(self.opened.sync.mark_read(query))
            return
        told = self.run(self.opened.sync.mark_read(query))
        if user is None:
            assert told is None
            return
        self.reads[user_id, peer] = max(seq, self.reads.get((user_id, peer), 0))

    @rule(delivered=st.dictionaries(users, places, max_size=4))
    def record_delivered(self, delivered: dict[int, int]) -> None:
        positions = {self.id_of(number): seq for number, seq in delivered.items()}
        self.run(self.opened.sync.record_delivered(positions))
        for number, seq in delivered.items():
            user = self.existing(number)
            if user is not None and seq <= len(user.inbox):
                user_id = user.account.id
                self.delivered[user_id] = max(seq, self.delivered.get(user_id, 0))

    @rule(number=users, other=users)
    def read_positions(self, number: int, other: int) -> None:
        if self.existing(number) is not None:
            user_id, peer = self.id_of(number), self.id_of(other)
            found = self.run(self.opened.sync.peer_positions(user_id, peer))
            assert found == self.positions(user_id, peer)

    @rule(number=users)
    def add_device(self, number: int) -> None:
        if self.existing(number) is not None and len(self.devices) < 6:
            self.devices.append(Device(self.id_of(number)))

    @rule(which=st.integers(0, 5), limit=limits)
    def receive(self, which: int, limit: int) -> None:
        if which < len(self.devices):
            self.receive_once(self.devices[which], limit)

    def receive_once(self, device: Device, limit: int) -> bool:
        """Receive what is new, up to a limit; returns whether there may be more."""
        [inbox] = self.run(self.opened.read([ReadAfter(device.user, device.seq, limit)]))
        query = ReadChanges(device.user, device.position, limit)
        found = self.run(self.opened.sync.changes(query))
        if self.users[device.user].deleted:
            assert inbox is None
            assert found is None
            return False
        for message in inbox.messages:
            device.messages[device.user, message.seq] = message
            device.seq = message.seq
        assert len(found.changes) <= limit
        for change in found.changes:
            if isinstance(change, MessageChange):
                message = change.message
                parties = (message.sent_by, message.received_by)
                assert device.user in (parties[:1] if change.kind == "sent" else parties)
                device.messages[message.received_by, message.seq] = message
            elif isinstance(change, ReadChange):
                device.reads[change.peer] = change.seq
            else:
                device.peers[change.peer] = change.positions
        device.position = found.position
        return bool(found.more or device.seq < inbox.last_seq)

    def check_device(self, device: Device) -> None:
        """A device that has received everything shows what the model shows."""
        while self.receive_once(device, 100):
            pass
        owner = self.users[device.user]
        if owner.deleted:
            return
        alive = {user_id: user for user_id, user in self.users.items() if not user.deleted}
        assert {key: message for key, message in device.messages.items() if key[0] in alive} == {
            (user_id, each.seq): each
            for user_id, user in alive.items()
            for each in user.inbox
            if device.user in (user_id, each.sent_by)
        }
        assert device.reads == {
            peer: seq for (user_id, peer), seq in self.reads.items() if user_id == device.user
        }
        for peer in alive:
            known = device.peers.get(peer, PeerPositions())
            assert known == self.positions(device.user, peer)

    def teardown(self) -> None:
        if self.store is not None:
            for device in self.devices:
                self.check_device(device)
            for user_id in [*self.users]:
                self.devices = [Device(user_id)]
                self.check_device(self.devices[0])
        super().teardown()
