"""Payloads of messages over NATS."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatd.bus.nats_payloads import (
    MAX_TEXT_BYTES,
    SPLIT_BYTES,
    Goodbye,
    Heartbeat,
    Removal,
    Revocation,
    decode_changed,
    decode_heartbeat,
    decode_messages,
    decode_revocation,
    encode_changed,
    encode_goodbye,
    encode_heartbeat,
    encode_messages,
    encode_removal,
    encode_revocation,
)
from chatd.model import Message
from chatd.postgres.notify_payloads import MessageNotice

texts = st.one_of(
    st.text(max_size=30), st.sampled_from(["x" * MAX_TEXT_BYTES, "\x01" * 800, "ä" * 9000])
)


@given(
    st.lists(st.tuples(st.sampled_from([1, 2, 2**53]), texts), max_size=5),
    st.sampled_from([1024, 4096, 1 << 20]),
)
def test_messages_arrive_in_order_and_in_payloads_that_are_short_enough(
    sent: list[tuple[int, str]], max_payload: int
) -> None:
    messages = [
        Message(user_id, seq, 7, 10**15 + seq, text) for seq, (user_id, text) in enumerate(sent, 1)
    ]
    received: dict[int, list[MessageNotice]] = {}
    for user_id, payload in encode_messages(messages, max_payload):
        assert len(payload) <= min(max_payload, SPLIT_BYTES)
        assert payload[:1] == b"m"
        received.setdefault(user_id, []).extend(decode_messages(user_id, payload[1:]))
    for user_id in {each.received_by for each in messages}:
        expected = [each for each in messages if each.received_by == user_id]
        found = received[user_id]
        assert [each.seq for each in found] == [each.seq for each in expected]
        for notice, message in zip(found, expected, strict=True):
            if notice.text is not None:
                assert (notice.text, notice.sent_by) == (message.text, message.sent_by)
                assert notice.sent_at == message.sent_at
            else:
                assert len(message.text) > 100


def test_messages_of_others_are_refused() -> None:
    [(_, payload)] = encode_messages([Message(1, 1, 2, 3, "x")], 1024)
    for text in (payload[1:], b"[[2,0]]", b"[[2,-1]]", b"[]]", b"{}", b"", b"[[2]]"):
        with pytest.raises(ValueError, match=r"."):
            decode_messages(2, text)


def test_other_payloads_survive_a_round_trip() -> None:
    assert decode_changed(encode_changed(3, 2**53)[1:]) == (3, 2**53)
    beat = Heartbeat("a1", 1, 2, 3)
    assert decode_heartbeat(encode_heartbeat(beat)) == beat
    assert decode_heartbeat(encode_goodbye("a1", 7)) == Goodbye("a1")
    for token, is_known in ((b"\xff" * 32, True), (None, True), (None, False)):
        revocation = Revocation("a1", 1, 2, 2**53, token, is_known)
        assert decode_revocation(encode_revocation(revocation)) == revocation
    removal = Removal("a1", 1, 2, ((1, 2), (2**53, 3)))
    assert decode_revocation(encode_removal(removal)) == removal


@given(st.binary(max_size=60) | st.from_regex(rb"[a-z:.?*0-9-]{0,30}", fullmatch=True))
def test_anything_else_is_a_value_error(payload: bytes) -> None:
    for decode in (decode_changed, decode_heartbeat, decode_revocation):
        try:
            decode(payload)
        except ValueError:
            pass
    try:
        decode_messages(1, payload)
    except ValueError:
        pass
