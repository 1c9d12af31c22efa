"""Rendering of messages and times."""

from __future__ import annotations

import json

import pytest

from chatd.api import rendering
from chatd.api.health import Health
from chatd.model import MAX_INTEGER, Message

SECOND = 1_000_000
SEED = 1_451_034_820  # 2015-12-25T09:13:40Z


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (SEED * SECOND, "2015-12-25T09:13:40Z"),
        (SEED * SECOND + 999_999, "2015-12-25T09:13:40Z"),
        (951_782_400 * SECOND, "2000-02-29T00:00:00Z"),
        (253_402_300_799 * SECOND, "9999-12-31T23:59:59Z"),
    ],
)
def test_a_time_is_utc_in_whole_seconds(microseconds: int, text: str) -> None:
    assert rendering.timestamp(microseconds) == text


@pytest.mark.parametrize("text", ["hai", '"', "\\", "\n\x01\x7f", "é🙂\u2028", "</script>"])
def test_a_message_is_json(text: str) -> None:
    document = json.loads(rendering.message(Message(1, 2, 3, SEED * SECOND, text)))
    assert list(document.items()) == [
        ("seq", 2),
        ("sent_by", 3),
        ("message", text),
        ("sent_at", "2015-12-25T09:13:40Z"),
        ("received_by", 1),
    ]


@pytest.mark.parametrize(
    ("edited_at", "deleted_at"), [(SEED, None), (None, SEED), (SEED, SEED + 60)]
)
def test_the_times_of_a_revised_message_follow(
    edited_at: int | None, deleted_at: int | None
) -> None:
    times = {"edited_at": edited_at, "deleted_at": deleted_at}
    micros = [None if at is None else at * SECOND + 999_999 for at in times.values()]
    document = json.loads(rendering.message(Message(1, 2, 3, 0, "x", *micros)))
    assert list(document.items())[5:] == [
        (name, rendering.timestamp(at * SECOND)) for name, at in times.items() if at is not None
    ]


def test_the_largest_integers_are_exact() -> None:
    message = Message(MAX_INTEGER, MAX_INTEGER, MAX_INTEGER, 0, "x")
    document = json.loads(rendering.message(message))
    assert document["seq"] == document["sent_by"] == document["received_by"] == 2**53 - 1


@pytest.mark.parametrize(("text", "number"), [("x", 1), ("y", 2)])
def test_messages_follow_their_meta(text: str, number: int) -> None:
    values = tuple(Message(1, seq, 3, SEED * SECOND, text) for seq in range(number))
    body = rendering.messages(Health("ok"), rendering.EncodedMessageCache().all(values))
    assert body.endswith(b"\n")
    assert body.count(b"\n") == 1
    parts = [json.loads(rendering.message(each)) for each in values]
    assert json.loads(body) == {"meta": {"status": "ok"}, "messages": parts}


def test_a_document_is_one_line() -> None:
    assert rendering.document(Health("ok")) == b'{"status":"ok"}\n'


def test_a_message_is_encoded_once_unless_it_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Message] = []

    def message(value: Message) -> bytes:
        made.append(value)
        return value.text.encode()

    monkeypatch.setattr(rendering, "message", message)
    encode = rendering.EncodedMessageCache()
    short = [Message(to, seq, 1, 1, f"{to}.{seq}") for to in (1, 2, MAX_INTEGER) for seq in (1, 2)]
    for _ in range(3):
        assert [encode(each) for each in short] == [each.text.encode() for each in short]
    assert made == short
    long = [Message(1, seq, 1, 1, f"{seq}" * 1000) for seq in (3, 4, 5)]
    monkeypatch.setattr(rendering.EncodedMessageCache, "LONG_BYTES", 2500)
    for each in (*long[:2], *long[:2], long[2], *long[2:], long[0]):
        assert encode(each) == each.text.encode()
        assert sum(map(len, encode._long.values())) <= 2500
    assert made == [*short, *long, long[0]]


def test_a_message_that_takes_the_place_of_a_lost_one_is_shown() -> None:
    encode = rendering.EncodedMessageCache()
    encode(Message(1, 2, 3, SEED * SECOND, "lost with the primary"))
    # In the same second, so that only the microseconds differ.
    assert json.loads(encode(Message(1, 2, 4, SEED * SECOND + 1, "new")))["message"] == "new"


def test_a_revised_message_is_never_taken_from_the_cache() -> None:
    encode = rendering.EncodedMessageCache()
    old = Message(1, 1, 2, 0, "old")
    for value in (
        old,
        Message(1, 1, 2, 0, "new", 5),
        Message(1, 1, 2, 0, "newer", 6),
        Message(1, 1, 2, 0, "", 6, 7),
        # A result that was read before.
        old,
        Message(1, 1, 2, 0, "", 6, 7),
    ):
        assert encode(value) == rendering.message(value)


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering.EncodedMessageCache, "SIZE", 5)
    encode = rendering.EncodedMessageCache()
    for _ in range(2):
        for seq in range(1, 12):
            message = Message(1, seq, 1, 1, str(seq))
            assert json.loads(encode(message)) == json.loads(rendering.message(message))
            assert len(encode._encoded) <= 5
