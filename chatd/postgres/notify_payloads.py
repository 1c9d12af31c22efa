"""Payloads of the NOTIFYs that announce new and changed messages and revoked sessions.

A payload starts with the id of the node that sent it. A node ignores its own notices, because it
wakes its own waiters directly. If it gave up on a transaction without knowing the outcome, it
changes its id: should the transaction be committed after all, its notice is treated like one from
another node.
"""

from __future__ import annotations

import secrets
from typing import Final, Protocol

import msgspec
from msgspec import Struct

CHANNEL: Final = "chatd"

MAX_TEXT_BYTES: Final = 1000
"""Texts that are longer as UTF-8 encoded JSON are left out and have to be read from the store."""
SPLIT_BYTES: Final = 6500
"""Once a payload has this many bytes another one is begun; the server's limit is 8000."""


class MessageNotice(Struct, frozen=True, array_like=True):
    """A committed message: `[received_by,seq,sent_by,sent_at,"text"]`, or without the text.

    Older versions leave out `sent_by` and `sent_at`, too.
    """

    received_by: int
    seq: int
    sent_by: int = 0
    sent_at: int = 0
    text: str | None = None


class MessagesNotice(Struct, frozen=True):
    """Committed messages; those of one inbox are in the order of their seq."""

    messages: tuple[MessageNotice, ...]


class ChangedNotice(Struct, frozen=True):
    """A message that was edited or deleted."""

    received_by: int
    seq: int
    sent_by: int


class RevokedNotice(Struct, frozen=True):
    """A revoked token of a user; None: all tokens, because the account was deleted."""

    user_id: int
    token: bytes | None


class ChangesNotice(Struct, frozen=True):
    """Changes of these accounts were committed; also the node that sent it takes notice."""

    user_ids: tuple[int, ...]


class SessionsNotice(Struct, frozen=True):
    """Sessions of a user may have ended: the database knows which."""

    user_id: int


class RemovedNotice(Struct, frozen=True):
    """Messages of these inboxes were removed: pairs of user and the last seq that was."""

    inboxes: tuple[tuple[int, int], ...]


class Ping(Struct, frozen=True):
    """A notice that a node sends to itself to check that notices arrive."""

    number: int


CommitNotice = MessagesNotice | ChangedNotice | RevokedNotice | SessionsNotice | RemovedNotice
"""A notice of something that another node has committed."""

Notice = CommitNotice | ChangesNotice | Ping

CHANGES_PREFIX: Final = "any:l:"
"""What precedes the comma-separated ids in the payload of a `ChangesNotice`: it is from no node."""

_messages: Final = msgspec.json.Decoder(tuple[MessageNotice, ...])


class Listener(Protocol):
    """Receives the notices of other nodes and learns when some may be lost; never raises."""

    def on_connected(self) -> None:
        """From now on no notice is missed; earlier ones may have been."""
        ...

    def on_disconnected(self) -> None:
        """From now on notices may be missed."""
        ...

    def on_notice(self, notice: CommitNotice) -> None:
        """Another node committed something."""
        ...


class NodeId:
    """The unique id of a process, shared by its store and its bus."""

    def __init__(self) -> None:
        self.name = ""
        self.renew()

    def renew(self) -> None:
        """Change the id: notices sent under the old one are treated as another node's."""
        self.name = secrets.token_hex(6)


def messages_prefix(node_id: str) -> str:
    """What precedes the comma-separated messages in the payload of a `MessagesNotice`."""
    return f"{node_id}:m:"


def removed_prefix(node_id: str) -> str:
    """What precedes the comma-separated `user.seq` in the payload of a `RemovedNotice`."""
    return f"{node_id}:x:"


def changed_prefix(node_id: str) -> str:
    """What precedes recipient, seq and sender in the payload of a `ChangedNotice`."""
    return f"{node_id}:c:"


def sender(payload: str) -> str:
    """The id of the node that sent a payload."""
    return payload.partition(":")[0]


def encode(node_id: str, notice: Notice) -> str:
    """Encode a notice."""
    if isinstance(notice, MessagesNotice):
        messages = ",".join([msgspec.json.encode(each).decode() for each in notice.messages])
        return messages_prefix(node_id) + messages
    if isinstance(notice, ChangedNotice):
        place = f"{notice.received_by}:{notice.seq}:{notice.sent_by}"
        return changed_prefix(node_id) + place
    if isinstance(notice, RevokedNotice):
        token = "" if notice.token is None else notice.token.hex()
        return f"{node_id}:r:{notice.user_id}:{token}"
    if isinstance(notice, ChangesNotice):
        return CHANGES_PREFIX + ",".join(map(str, notice.user_ids))
    if isinstance(notice, SessionsNotice):
        return f"{node_id}:s:{notice.user_id}"
    if isinstance(notice, RemovedNotice):
        return removed_prefix(node_id) + ",".join(f"{user}.{seq}" for user, seq in notice.inboxes)
    return f"{node_id}:p:{notice.number}"


def decode(payload: str) -> Notice:
    """Decode a payload; raises `ValueError` if it is malformed."""
    _, kind, rest = payload.split(":", 2)
    if kind == "m":
        try:
            return MessagesNotice(_messages.decode(f"[{rest}]"))
        except msgspec.DecodeError as error:
            raise ValueError(str(error)) from None
    if kind == "c":
        received_by, seq, sent_by = map(int, rest.split(":"))
        return ChangedNotice(received_by, seq, sent_by)
    if kind == "r":
        user_id, token = rest.split(":")
        return RevokedNotice(int(user_id), bytes.fromhex(token) if token else None)
    if kind == "l":
        return ChangesNotice(tuple(map(int, rest.split(","))))
    if kind == "s":
        return SessionsNotice(int(rest))
    if kind == "x":
        pairs = [pair.split(".") for pair in rest.split(",")]
        return RemovedNotice(tuple((int(user_id), int(seq)) for user_id, seq in pairs))
    if kind == "p":
        return Ping(int(rest))
    raise ValueError(f"unknown kind of notice: {kind!r}")
