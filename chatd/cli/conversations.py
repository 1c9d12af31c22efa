"""`chatd conversations`: with whom the account has exchanged messages."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import date, datetime
from typing import Final

from chatd.cli.chat import terminal_size
from chatd.cli.errors import CommandError
from chatd.cli.graphemes import clip
from chatd.cli.printing import escape_controls, to_json
from chatd.cli.session import Session
from chatd.cli.tables import align
from chatd.client import APIError, ChatClient, ConversationSummary, Message

PART: Final = 100
"""Conversations in one request."""
MANY: Final = 100
"""The service counts unread messages up to this many."""
MIN_COLUMNS: Final = 10
"""The last message gets at least so many columns."""


async def conversations(args: argparse.Namespace, session: Session) -> None:
    """List the newest conversations, as a table or as JSON."""
    client, login = session.logged_in()
    found = await _newest(client, args.limit)
    if args.json:
        for each in found:
            print(to_json(each))
    elif not found:
        print("No conversations yet: chatd send USER or chatd chat USER begins one.")
    else:
        columns = terminal_size()[0] if sys.stdout.isatty() else None
        print("\n".join(table(found, login.user_id, datetime.now().astimezone().date(), columns)))


async def _newest(client: ChatClient, limit: int) -> list[ConversationSummary]:
    found: list[ConversationSummary] = []
    before = None
    while len(found) < limit:
        try:
            part = await client.conversations(limit=min(PART, limit - len(found)), before=before)
        except APIError as error:
            if error.status in (404, 405):
                raise CommandError("this service is too old for that") from None
            raise
        found += part.conversations
        before = part.older
        if before is None:
            break
    return found


def table(
    listed: Sequence[ConversationSummary], own_id: int, today: date, columns: int | None
) -> list[str]:
    """The lines of the list, cut to fit into `columns`, with control characters escaped."""
    rows = [("USER", "UNREAD", "LAST", "MESSAGE")]
    rows += [
        (
            _one_line(each.username or f"deleted user {each.user_id}"),
            _unread(each.unread),
            _time(each.last_message.sent_at, today),
            _text(each, own_id),
        )
        for each in listed
    ]
    lines = align(rows)
    if columns is None:
        return lines
    # Never in the last column, after which some terminals wrap.
    width = max(columns - 1, lines[0].index("MESSAGE") + MIN_COLUMNS)
    return [clip(line, width) for line in lines]


def _unread(unread: int) -> str:
    if unread >= MANY:
        return f"{unread}+"
    return str(unread) if unread else ""


def _time(at: datetime, today: date) -> str:
    local = at.astimezone()
    return local.strftime("%H:%M" if local.date() == today else "%Y-%m-%d")


def _text(conversation: ConversationSummary, own_id: int) -> str:
    message = conversation.last_message
    text = "(deleted)" if message.deleted_at is not None else _one_line(message.text)
    if message.sent_by != own_id or conversation.user_id == own_id:
        return text
    return f"you{_state(conversation, message)}: {text}"


def _state(conversation: ConversationSummary, message: Message) -> str:
    """How far the account's own last message came."""
    if message.seq <= conversation.peer_read:
        return " (read)"
    return " (delivered)" if message.seq <= conversation.peer_delivered else ""


def _one_line(text: str) -> str:
    return escape_controls(" ".join(text.split()))
