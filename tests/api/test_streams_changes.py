"""Streams with changes, on both servers and in both formats."""

from __future__ import annotations

from typing import Any

import pytest

from chatd.api import stream_writer
from chatd.domain import changes_stream
from tests.api.service import CHATS, Serve, Service, User
from tests.api.test_conversations import mark_read
from tests.api.test_streams import NDJSON, SSE, open_stream


@pytest.fixture(params=[SSE, NDJSON])
def accept(request: pytest.FixtureRequest) -> str:
    """The media type."""
    value: str = request.param
    return value


def items(events: list[dict[str, Any]]) -> list[Any]:
    """What is in the events, without the cursors."""
    return [event.get("message") or event.get("change") for event in events]


def rest_of(user: User, cursor: str) -> list[Any]:
    """What a poll returns from a cursor on."""
    found = user.poll(f"?since={cursor}&changes=true")
    return [*found["messages"], *found["changes"]]


def test_a_stream_writes_changes_as_they_are_committed(service: Service, accept: str) -> None:
    ann, bob = service.new_user(), service.new_user()
    stream = open_stream(ann, accept, "?changes=true")
    sent = ann.send(bob, "from another device")
    received = bob.send(ann, "answer")
    mark_read(ann, bob.id, 1)
    mark_read(bob, ann.id, 1)
    service.settle()
    events = stream.events()
    assert items(events) == [
        {"type": "sent", "message": sent},
        received,
        {"type": "read", "user_id": bob.id, "seq": 1},
        {"type": "peer", "user_id": bob.id, "delivered": 1, "read": 1},
    ]
    for number, event in enumerate(events, 1):
        # Every cursor is the position after its event, for polls, too.
        assert rest_of(ann, event["cursor"]) == items(events)[number:]
    stream.exchange.disconnect()
    assert service.system.notifier.held == 0


def test_a_stream_without_changes_is_as_before(service: Service, accept: str) -> None:
    ann, bob = service.new_user(), service.new_user()
    cursor = ann.poll("?since=now&changes=true")["meta"]["cursor"]
    stream = open_stream(ann, accept, f"?since={cursor}")
    ann.send(bob)
    mark_read(bob, ann.id, 1)
    received = bob.send(ann)
    service.settle()
    [event] = stream.events()
    assert event["message"] == received
    # It keeps the position in the changes.
    assert [each["type"] for each in rest_of(ann, event["cursor"])] == ["sent", "peer"]
    plain = open_stream(ann, accept, "?since=0")
    assert [each["cursor"].count(".") for each in plain.events()] == [0]


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_zero_begins_with_everything(
    service: Service, accept: str, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(changes_stream, "READ_LIMIT", 2)
    monkeypatch.setattr(stream_writer, "WRITE_BYTES", size)
    ann, bob, cat = service.new_user(), service.new_user(), service.new_user()
    sent = [ann.send(bob, f"{number}") for number in range(5)]
    sent += [ann.send(cat, f"{number}") for number in range(5)]
    received = [bob.send(ann, f"{number}") for number in range(5)]
    mark_read(bob, ann.id, 3)
    stream = open_stream(ann, accept, "?since=0&changes=true")
    service.settle()
    events = stream.events()
    found = items(events)
    assert [each for each in found if "type" not in each] == received
    assert [each["message"] for each in found if each.get("type") == "sent"] == sent
    assert found[-1] == {"type": "peer", "user_id": bob.id, "delivered": 3, "read": 3}
    cursor = "0"
    for event in events:
        resumed = open_stream(ann, accept, f"?since={cursor}&changes=true")
        service.settle()
        assert event["cursor"] == resumed.events()[0]["cursor"]
        cursor = event["cursor"]
        resumed.exchange.disconnect()


def test_a_slow_reader_misses_no_change(serve: Serve, accept: str) -> None:
    service = serve("chatd")
    ann, bob = service.new_user(), service.new_user()
    stream = open_stream(ann, accept, "?since=0&changes=true")
    producer = stream.exchange.client.transport.producer
    assert producer is not None
    producer.pauseProducing()
    sent = [ann.send(bob, f"{number}") for number in range(150)]
    received = bob.send(ann, "meanwhile")
    service.settle()
    before = len(stream.events())
    assert before <= 1
    producer.resumeProducing()
    service.settle()
    found = items(stream.events())
    assert [each["message"] for each in found if "type" in each] == sent
    assert [each for each in found if "type" not in each] == [received]


def test_a_revoked_token_ends_the_stream(service: Service, accept: str) -> None:
    ann = service.new_user()
    stream = open_stream(ann, accept, "?changes=true")
    assert ann.request("DELETE", "/api/v1/tokens/").status == 204
    service.settle()
    assert stream.ended()
    assert stream.events()[-1]["error"]["code"] == "unauthorized"


def test_a_position_past_the_end_is_an_ordinary_error(service: Service, accept: str) -> None:
    ann = service.new_user()
    cursor = ann.poll("?since=now&changes=true")["meta"]["cursor"]
    response = ann.get(f"{CHATS}?since={cursor[:-1]}1&changes=true", headers={"Accept": accept})
    response.problem(410, "cursor_epoch")
    assert service.system.notifier.held == 0
