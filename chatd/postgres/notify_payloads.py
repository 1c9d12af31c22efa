"""What processes tell each other by NOTIFY: new messages, and which sessions have ended.

A payload begins with the origin, which names the process: it ignores what comes from itself,
because it has told its own waiters directly. What it gave up without knowing whether it would be
committed it has not told them: then it takes another name, and hears of a late commit as of
anybody's.
"""

from __future__ import annotations

import secrets
from typing import Final, Protocol

import msgspec
from msgspec import Struct

CHANNEL: Final = "chatd"

QUOTED_BYTES: Final = 1000
"""A text that is longer as JSON, in UTF-8, is not told: who has waited for it reads it."""
LINES_BYTES: Final = 6500
"""A payload ends with the line that reaches this; it must be below 8000 bytes."""


class MessageNotice(Struct, frozen=True, array_like=True):
    """A message was committed: `[received_by,seq,sent_by,sent_at,"text"]`, or the first two."""

    received_by: int
    seq: int
    sent_by: int = 0
    sent_at: int = 0
    text: str | None = None


class MessagesNotice(Struct, frozen=True):
    """These messages were committed, of each inbox in the order of their seq."""

    lines: tuple[MessageNotice, ...]


class Revoked(Struct, frozen=True):
    """A token of the user was revoked or, with None, everything of the user."""

    user_id: int
    token: bytes | None


class Ping(Struct, frozen=True):
    """Sent by a process to itself, to see that its notices arrive."""

    number: int


Notice = MessagesNotice | Revoked | Ping

_lines: Final = msgspec.json.Decoder(tuple[MessageNotice, ...])


class Listener(Protocol):
    """Who relies on hearing of everything that others commit; never raises."""

    def hearing(self) -> None:
        """From now on everything is heard; before, something may have been missed."""
        ...

    def deaf(self) -> None:
        """From now on something may be missed."""
        ...

    def heard(self, notice: MessagesNotice | Revoked) -> None:
        """Somebody else has committed something."""
        ...


class NodeId:
    """The name of this process, which no other has; its store and its bus share one."""

    def __init__(self) -> None:
        self.name = ""
        self.renew()

    def renew(self) -> None:
        """Take another name: what bears a former one and is still to come is news."""
        self.name = secrets.token_hex(6)


def woken_prefix(node_id: str) -> str:
    """What stands before the lines, separated by commas, of a `MessagesNotice`."""
    return f"{node_id}:m:"


def sender(payload: str) -> str:
    """The origin in a payload."""
    return payload.partition(":")[0]


def encode(node_id: str, notice: Notice) -> str:
    """The payload of a notice."""
    if isinstance(notice, MessagesNotice):
        lines = ",".join([msgspec.json.encode(line).decode() for line in notice.lines])
        return woken_prefix(node_id) + lines
    if isinstance(notice, Revoked):
        token = "" if notice.token is None else notice.token.hex()
        return f"{node_id}:r:{notice.user_id}:{token}"
    return f"{node_id}:p:{notice.number}"


def decode(payload: str) -> Notice:
    """The notice of a payload; raises `ValueError` for what nobody here sends."""
    _, kind, rest = payload.split(":", 2)
    if kind == "m":
        try:
            return MessagesNotice(_lines.decode(f"[{rest}]"))
        except msgspec.DecodeError as wrong:
            raise ValueError(str(wrong)) from None
    if kind == "r":
        user_id, token = rest.split(":")
        return Revoked(int(user_id), bytes.fromhex(token) if token else None)
    if kind == "p":
        return Ping(int(rest))
    raise ValueError(f"a notice of the unknown kind {kind!r}")
