"""Messages as lines of a terminal: nothing that anybody wrote can move its cursor."""

from __future__ import annotations

import unicodedata
from typing import Final

from chatd.client import APIError, ChatClient, Message

# Characters that reorder what stands beside them; a name or message must not.
_REORDERING: Final = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)


def plain(text: str) -> str:
    """The text with control and reordering characters made visible; line ends stay."""
    return "".join(
        character if character == "\n" or not _unsafe(character) else _escaped(character)
        for character in text.replace("\r\n", "\n")
    )


def _unsafe(character: str) -> bool:
    # Cc: C0 and C1, escape sequences among them; Zl, Zp: line ends that are none for a terminal.
    return character in _REORDERING or unicodedata.category(character) in ("Cc", "Zl", "Zp")


def _escaped(character: str) -> str:
    if character == "\t":
        return "    "
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"


def columns(text: str) -> int:
    """How many columns of a terminal the text takes."""
    return sum(map(_width, text))


def _width(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def line(message: Message, name: str) -> str:
    """A message for people: the local time, who, and what; further lines are indented."""
    when = message.sent_at.astimezone().strftime("%H:%M")
    head = f"{when} {plain(name)}: "
    return head + plain(message.text).replace("\n", "\n" + " " * columns(head))


class Names:
    """The names of users, each asked for once."""

    def __init__(self, client: ChatClient) -> None:
        self._client = client
        self._known: dict[int, str] = {}

    def know(self, user_id: int, name: str) -> None:
        """Take a name that is known already."""
        self._known[user_id] = name

    async def of(self, user_id: int) -> str:
        """The name of a user, also of one that was deleted."""
        if user_id not in self._known:
            try:
                name = (await self._client.user(user_id)).username
            except APIError as refused:
                if refused.code != "user_not_found":
                    raise
                name = f"deleted user {user_id}"
            self._known[user_id] = name
        return self._known[user_id]
