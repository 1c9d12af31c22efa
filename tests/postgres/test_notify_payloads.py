"""Encoding of NOTIFY payloads."""

from __future__ import annotations

import pytest

from chatd.model import MAX_INTEGER
from chatd.postgres.notify_payloads import (
    MAX_TEXT_BYTES,
    SPLIT_BYTES,
    ChangedNotice,
    ChangesNotice,
    MessageNotice,
    MessagesNotice,
    NodeId,
    Notice,
    Ping,
    RemovedNotice,
    RevokedNotice,
    SessionsNotice,
    decode,
    encode,
    sender,
)

PAYLOAD_LIMIT = 8000


@pytest.mark.parametrize(
    "notice",
    [
        MessagesNotice((MessageNotice(1, 2),)),
        MessagesNotice(
            (
                MessageNotice(1, 2, 3, 4, 'a "quoted" \\ text, [1,2]:m:\n\x01\u2028ä😀'),
                MessageNotice(MAX_INTEGER, 1),
            )
        ),
        ChangedNotice(1, 2, 3),
        ChangedNotice(MAX_INTEGER, MAX_INTEGER, MAX_INTEGER),
        RevokedNotice(7, None),
        RevokedNotice(MAX_INTEGER, bytes(range(32))),
        SessionsNotice(MAX_INTEGER),
        RemovedNotice(((1, 2), (MAX_INTEGER, MAX_INTEGER))),
        Ping(3),
    ],
)
def test_decoding_reverses_encoding(notice: Notice) -> None:
    node_id = NodeId().name
    payload = encode(node_id, notice)
    assert (sender(payload), decode(payload)) == (node_id, notice)


def test_the_largest_payload_is_below_the_limit() -> None:
    # The largest message, at the end of a payload that is just below `SPLIT_BYTES`.
    longest = MessageNotice(
        MAX_INTEGER, MAX_INTEGER, MAX_INTEGER, MAX_INTEGER, "x" * (MAX_TEXT_BYTES - 2)
    )
    payload = encode(NodeId().name, MessagesNotice((longest,)))
    assert SPLIT_BYTES + len(payload) < PAYLOAD_LIMIT


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "x",
        "a:b",
        "a:z:1",
        "a:m:x",
        "a:m:1",
        "a:m:[1]",
        "a:m:[1,2",
        "a:c:1:2",
        "a:c:1:2:x",
        "a:r:1",
        "a:r:1:xyz",
        "a:p:",
        "a:s:",
        "a:x:",
        "a:x:1",
        "a:x:1.2.3",
        "a:x:1.x",
        "a:s:x",
    ],
)
def test_malformed_payloads_are_rejected(payload: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(payload)


def test_node_ids_are_unique() -> None:
    assert len({NodeId().name for _ in range(100)}) == 100


def test_renewing_changes_the_node_id() -> None:
    node_id = NodeId()
    names = {node_id.name}
    for _ in range(10):
        node_id.renew()
        names.add(node_id.name)
    assert len(names) == 11


def test_notices_of_changes_are_from_no_node() -> None:
    node_id = NodeId().name
    notice = ChangesNotice((1, MAX_INTEGER))
    payload = encode(node_id, notice)
    assert decode(payload) == notice
    assert sender(payload) != node_id
