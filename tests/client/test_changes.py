"""Conversations, receipts and changes with the client library, against the real service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chatd.client import (
    Change,
    ChatClient,
    FollowTransport,
    Message,
    MessageSent,
    NotSupported,
    PeerMoved,
    Position,
    ReadMoved,
    Sent,
)
from chatd.client.wire import decode_changes
from tests.client.following import Following
from tests.client.scripted import Harness, failure, polled
from tests.client.test_real_service import TRANSPORTS, Service, serving
from tests.doubles import result_of


@pytest.fixture(params=TRANSPORTS)
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    transport: FollowTransport = request.param
    with serving(tmp_path, transport) as running:
        yield running


class Device:
    """A second client of an account, which follows with changes."""

    def __init__(self, service: Service, of: ChatClient, since: str | Position = "0") -> None:
        self.seen: list[Message | Change] = []
        self.follow = of.follow(since, changes=True, transport=service._transport)
        service.start(self._read())

    async def _read(self) -> None:
        async for item in self.follow:
            self.seen.append(item)


def test_two_devices_show_the_same(service: Service) -> None:
    ann, bob = service.client("ann"), service.client("bob")
    ann_id, bob_id = service.run(ann.me()).id, service.run(bob.me()).id
    before = service.run(ann.send(bob_id, "before")).message
    devices = [Device(service, ann), Device(service, ann)]
    sent = service.run(ann.send(bob_id, "hello")).message
    received = service.run(bob.send(ann_id, "hi")).message
    service.advance(3)
    service.run(ann.mark_read(bob_id, 1))
    service.run(bob.mark_read(ann_id, 2))
    service.advance(3)
    for device in devices:
        assert [each for each in device.seen if isinstance(each, Message)] == [received]
        changes = [each for each in device.seen if not isinstance(each, Message)]
        assert changes == [
            MessageSent(before),
            MessageSent(sent),
            ReadMoved(bob_id, 1),
            PeerMoved(bob_id, 2, 2),
        ]
    later = Device(service, ann, devices[0].follow.position)
    service.advance(3)
    assert later.seen == []
    last = service.run(ann.send(bob_id, "last")).message
    service.advance(3)
    assert later.seen == [MessageSent(last)]


def test_conversations_are_listed(service: Service) -> None:
    ann = service.client("ann")
    others = [service.client(name) for name in ("bob", "cat", "dan")]
    ann_id = service.run(ann.me()).id
    sent = []
    for number, other in enumerate(others):
        for _ in range(number + 1):
            last = service.run(other.send(ann_id, "hai")).message
        sent.append(last)
        service.advance(1)
    first = service.run(ann.conversations(limit=2))
    rest = service.run(ann.conversations(limit=2, before=first.older))
    found = [*first.conversations, *rest.conversations]
    assert rest.older is None
    assert [(each.username, each.unread) for each in found] == [("dan", 3), ("cat", 2), ("bob", 1)]
    assert [each.last_message for each in found] == sent[::-1]
    service.run(ann.mark_read(found[0].user_id, found[0].last_message.seq))
    [newest] = service.run(ann.conversations(limit=1)).conversations
    assert (newest.unread, newest.read) == (0, 6)
    conversation = service.run(others[2].conversation(ann_id))
    assert (conversation.peer_read, conversation.peer_delivered) == (6, 6)


def test_a_send_waits_for_its_receipt(service: Service) -> None:
    ann, bob = service.client("ann"), service.client("bob")
    ann_id, bob_id = service.run(ann.me()).id, service.run(bob.me()).id
    sending = service.start(ann.send(bob_id, "hello", wait_for="read", wait=50))
    assert not sending.called
    service.run(bob.mark_read(ann_id, 1))
    service.settle()
    sent: Sent = result_of(sending)
    assert (sent.message.text, sent.received, sent.replayed) == ("hello", True, False)
    sent = service.run(ann.send(bob_id, "again", wait_for="delivered", wait=1))
    assert sent.received is False
    assert service.run(ann.send(bob_id, "plain")).received is None


def test_changes_of_unknown_types_are_ignored() -> None:
    known = b'{"type":"read","user_id":1,"seq":2,"more":3}'
    raw: Any = [b'{"type":"mood"}', known, b"{}", b'{"type":"read"}']
    assert decode_changes(raw) == (ReadMoved(1, 2),)


class TestOldService(Following):
    """A service of version 1 ignores what it does not know."""

    transport: FollowTransport = "poll"

    def test_changes_are_not_supported(self) -> None:
        self.harness = Harness()
        self.service = self.harness.service
        self.follow(polled(1), changes=True)
        failure(self.reading, NotSupported)
        assert self.service.query("changes", 0) == "true"
