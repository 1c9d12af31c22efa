"""Changes as text: edits, deletions, and what was delivered and read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime

from chatd.cli.printing import escape_controls
from chatd.client import Message, MessageChanged, PeerMoved, ReadMoved

GetName = Callable[[int], Awaitable[str]]
"""Looks up the name of a user."""


def describe_revision(message: Message, name: str, now: datetime, to: str | None = None) -> str:
    """Who has edited or deleted a message, and what it says now; `to` is the recipient's name.

    `now` is in the local time zone.
    """
    which = f"the message of {_when(message.sent_at, now)}"
    if to is not None:
        which += f" to {escape_controls(to)}"
    name = escape_controls(name)
    if message.deleted_at is not None:
        return f"({name} deleted {which})"
    return f"({name} edited {which}: {escape_controls(message.text)})"


async def describe(
    change: MessageChanged | ReadMoved | PeerMoved, own_id: int, get_name: GetName, now: datetime
) -> str:
    """A change as text; what the account sent is shown as a message instead."""
    if isinstance(change, MessageChanged):
        message = change.message
        own = message.sent_by == own_id and message.received_by != own_id
        to = await get_name(message.received_by) if own else None
        return describe_revision(message, await get_name(message.sent_by), now, to)
    name = escape_controls(await get_name(change.user_id))
    if isinstance(change, ReadMoved):
        return f"(what {name} sent is read up to {change.seq})"
    read = f", read {change.read}" if change.read else ""
    return f"({name} has received message {change.delivered}{read})"


def _when(at: datetime, now: datetime) -> str:
    local = at.astimezone()
    return local.strftime("%H:%M" if local.date() == now.date() else "%Y-%m-%d %H:%M")
