"""What processes tell each other by NOTIFY: who has new messages, which sessions have ended.

A payload begins with the origin, which names the process: it ignores what comes from itself,
because it has told its own waiters directly. What it gave up without knowing whether it would be
committed it has not told them: then it takes another name, and hears of a late commit as of
anybody's.
"""

from __future__ import annotations

import secrets
from typing import Final

from msgspec import Struct

CHANNEL: Final = "chatd"

RECIPIENTS: Final = 400
"""Users named in one payload: ids have up to 16 digits, a payload must be below 8000 bytes."""


class Woken(Struct, frozen=True):
    """Messages were committed to these inboxes."""

    user_ids: tuple[int, ...]


class Revoked(Struct, frozen=True):
    """A token of the user was revoked or, with None, everything of the user."""

    user_id: int
    token: bytes | None


class Ping(Struct, frozen=True):
    """Sent by a process to itself, to see that its notices arrive."""

    number: int


Notice = Woken | Revoked | Ping


class Origin:
    """The name of this process, which no other has; its store and its bus share one."""

    def __init__(self) -> None:
        self.name = ""
        self.renew()

    def renew(self) -> None:
        """Take another name: what bears a former one and is still to come is news."""
        self.name = secrets.token_hex(6)


def woken_prefix(origin: str) -> str:
    """What stands before the user ids, separated by commas, of a `Woken`."""
    return f"{origin}:m:"


def encode(origin: str, notice: Notice) -> str:
    """The payload of a notice."""
    if isinstance(notice, Woken):
        return woken_prefix(origin) + ",".join(map(str, notice.user_ids))
    if isinstance(notice, Revoked):
        token = "" if notice.token is None else notice.token.hex()
        return f"{origin}:r:{notice.user_id}:{token}"
    return f"{origin}:p:{notice.number}"


def decode(payload: str) -> tuple[str, Notice]:
    """The origin and the notice of a payload; raises `ValueError` for what nobody here sends."""
    origin, kind, rest = payload.split(":", 2)
    if kind == "m":
        return origin, Woken(tuple([int(each) for each in rest.split(",")]))
    if kind == "r":
        user_id, token = rest.split(":")
        return origin, Revoked(int(user_id), bytes.fromhex(token) if token else None)
    if kind == "p":
        return origin, Ping(int(rest))
    raise ValueError(f"a notice of the unknown kind {kind!r}")
