"""Payloads of the messages that processes send each other over NATS.

Those of a user, by the first byte: `m` and committed messages, a JSON array of `MessageNotice`;
`l`: changes of the account; `c` and `SEQ:SENT_BY` of a revised message; `w`: look, there may be
messages, changes or revised messages, because the outcome of a transaction is unknown.

Those to all processes begin with the sender: `NODE:GENERATION:`. Heartbeats continue with
`NUMBER:REVOCATIONS`, or `.` from a process that stops. Revocations continue with
`REVOCATIONS:USER:TOKEN`, in which TOKEN is hexadecimal, `*` for all tokens or `?` if the store has
to be asked; or with `REVOCATIONS:x:USER.SEQ,...` for inboxes of which messages up to a seq were
removed. NUMBER and REVOCATIONS count what was sent before and with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
from msgspec import Struct

from chatd.model import Message
from chatd.postgres.notify_payloads import MessageNotice

MAX_TEXT_BYTES: Final = 16 * 1024
"""Texts that are longer as JSON are left out and have to be read from the store."""
SPLIT_BYTES: Final = 64 * 1024
"""No payload is longer than this, or than the server allows."""
MAX_NODE_CHARACTERS: Final = 32

CHANGES: Final = b"l"
LOOK: Final = b"w"
ALL_TOKENS: Final = b"*"
UNKNOWN_TOKENS: Final = b"?"

_decoder: Final = msgspec.json.Decoder(tuple[MessageNotice, ...])
_encode: Final = msgspec.json.Encoder().encode


class Heartbeat(Struct, frozen=True):
    """A process is alive; it has sent so many heartbeats and revocations, with this one."""

    node: str
    generation: int
    number: int
    revocations: int


class Goodbye(Struct, frozen=True):
    """A process stops, and has told everything."""

    node: str


class Revocation(Struct, frozen=True):
    """Sessions of a user have ended; `token` is as in the payload, but not hexadecimal."""

    node: str
    generation: int
    revocations: int
    user_id: int
    token: bytes | None
    is_known: bool


class Removal(Struct, frozen=True):
    """Messages were removed, see `RemovedNotice`; it counts as a revocation."""

    node: str
    generation: int
    revocations: int
    inboxes: tuple[tuple[int, int], ...]


def encode_messages(messages: Iterable[Message], max_payload: int) -> Iterator[tuple[int, bytes]]:
    """Pairs of user and payload, of at most `max_payload` bytes, for committed messages."""
    limit = min(max_payload, SPLIT_BYTES)
    by_user: dict[int, list[bytes]] = {}
    for each in messages:
        encoded = _encode((each.received_by, each.seq, each.sent_by, each.sent_at, each.text))
        if len(encoded) > min(MAX_TEXT_BYTES, limit - 3):
            encoded = _encode((each.received_by, each.seq, each.sent_by, each.sent_at))
        by_user.setdefault(each.received_by, []).append(encoded)
    for user_id, parts in by_user.items():
        size, first = 3, 0
        for number, part in enumerate(parts):
            if size + len(part) > limit:
                yield user_id, b"m[%b]" % b",".join(parts[first:number])
                size, first = 3, number
            size += len(part) + 1
        yield user_id, b"m[%b]" % b",".join(parts[first:])


def decode_messages(user_id: int, payload: bytes) -> tuple[MessageNotice, ...]:
    """What follows the `m`; raises `ValueError` if it is malformed or of another user."""
    try:
        notices = _decoder.decode(payload)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None
    if any(each.received_by != user_id or each.seq < 1 for each in notices):
        raise ValueError("a message of another user")
    return notices


def encode_changed(seq: int, sent_by: int) -> bytes:
    """The payload of a revised message."""
    return b"c%d:%d" % (seq, sent_by)


def decode_changed(payload: bytes) -> tuple[int, int]:
    """Seq and sender, from what follows the `c`; raises `ValueError`."""
    seq, sent_by = payload.split(b":")
    return _number(seq), _number(sent_by)


def encode_heartbeat(beat: Heartbeat) -> bytes:
    """The payload of a heartbeat."""
    return f"{beat.node}:{beat.generation}:{beat.number}:{beat.revocations}".encode()


def encode_goodbye(node: str, generation: int) -> bytes:
    """The payload of a process that stops."""
    return f"{node}:{generation}:.".encode()


def decode_heartbeat(payload: bytes) -> Heartbeat | Goodbye:
    """Decode the payload of a heartbeat; raises `ValueError`."""
    node, generation, number, *rest = payload.split(b":")
    if number == b"." and not rest:
        return Goodbye(_node(node))
    [revocations] = rest
    return Heartbeat(_node(node), _number(generation), _number(number), _number(revocations))


def encode_revocation(revocation: Revocation) -> bytes:
    """The payload of a revocation."""
    token = UNKNOWN_TOKENS
    if revocation.is_known:
        token = ALL_TOKENS if revocation.token is None else revocation.token.hex().encode()
    return b"%b:%d:%d:%d:%b" % (
        revocation.node.encode(),
        revocation.generation,
        revocation.revocations,
        revocation.user_id,
        token,
    )


def encode_removal(removal: Removal) -> bytes:
    """The payload of a removal."""
    pairs = ",".join(f"{user_id}.{seq}" for user_id, seq in removal.inboxes)
    return f"{removal.node}:{removal.generation}:{removal.revocations}:x:{pairs}".encode()


def decode_revocation(payload: bytes) -> Revocation | Removal:
    """Decode the payload of a revocation or removal; raises `ValueError`."""
    node, generation, revocations, user_id, text = payload.split(b":")
    if user_id == b"x":
        inboxes = []
        for pair in text.split(b","):
            user, seq = pair.split(b".")
            inboxes.append((_number(user), _number(seq)))
        return Removal(_node(node), _number(generation), _number(revocations), tuple(inboxes))
    token = None if text in (ALL_TOKENS, UNKNOWN_TOKENS) else bytes.fromhex(text.decode("ascii"))
    return Revocation(
        _node(node),
        _number(generation),
        _number(revocations),
        _number(user_id),
        token,
        text != UNKNOWN_TOKENS,
    )


def _node(text: bytes) -> str:
    if not text.isalnum() or len(text) > MAX_NODE_CHARACTERS:
        raise ValueError("not the id of a process")
    return text.decode("ascii")


def _number(text: bytes) -> int:
    # int() alone accepts signs and spaces, and any number of digits.
    if not text.isdigit() or len(text) > 19:
        raise ValueError("not a number")
    return int(text)
