"""Formatting of messages for a terminal, with control characters escaped."""

from __future__ import annotations

import unicodedata
from typing import Final

import msgspec

from chatd.admin.printing import escape_json
from chatd.cli.style import PLAIN, Style
from chatd.client import APIError, ChatClient, Message

# Bidirectional controls reorder the text beside them.
_BIDI_CONTROLS: Final = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)


def to_json(value: object) -> str:
    """JSON on one line, with all control and bidirectional characters escaped."""
    return escape_json(msgspec.json.encode(value).decode())


def escape_controls(text: str) -> str:
    """Escape control and bidirectional characters; line ends are kept."""
    return "".join(
        character if character == "\n" or not is_control(character) else _escape(character)
        for character in text.replace("\r\n", "\n")
    )


def is_control(character: str) -> bool:
    """Whether terminals act on the character instead of showing it."""
    # Cc: C0 and C1 controls, such as escape; Zl and Zp: line ends unknown to terminals.
    return character in _BIDI_CONTROLS or unicodedata.category(character) in ("Cc", "Zl", "Zp")


def _escape(character: str) -> str:
    if character == "\t":
        return "    "
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"


def display_width(text: str) -> int:
    """The number of terminal columns that the text takes."""
    return sum(map(_width, text))


def _width(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def format_message(message: Message, name: str, style: Style = PLAIN, *, own: bool = False) -> str:
    """A message for display: local time, sender and text, with further lines indented.

    It says whether the message was edited, or deleted.
    """
    when = message.sent_at.astimezone().strftime("%H:%M")
    name = escape_controls(name)
    indent = " " * display_width(f"{when} {name}: ")
    styled_name = style.own_name(name) if own else style.name(name, message.sent_by)
    head = f"{style.time(when)} {styled_name}: "
    if message.deleted_at is not None:
        return f"{head}(deleted)"
    text = escape_controls(message.text).replace("\n", "\n" + indent)
    return f"{head}{text}" if message.edited_at is None else f"{head}{text} (edited)"


class UsernameCache:
    """Usernames by id, each requested once."""

    def __init__(self, client: ChatClient) -> None:
        self._client = client
        self._names: dict[int, str] = {}

    async def get(self, user_id: int) -> str:
        """The name of a user, or a placeholder if the account was deleted."""
        if user_id not in self._names:
            try:
                name = (await self._client.user(user_id)).username
            except APIError as error:
                if error.code != "user_not_found":
                    raise
                name = f"deleted user {user_id}"
            self._names[user_id] = name
        return self._names[user_id]
