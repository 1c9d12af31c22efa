"""`chatd export`: all that belongs to an account, as lines of JSON."""

from __future__ import annotations

import argparse
from typing import Any, Final

from chatd.admin.access import Access, access
from chatd.admin.printing import Record, print_json, timestamp
from chatd.admin.tokens import token_record
from chatd.admin.users import account_record
from chatd.config import Settings
from chatd.domain.administration import (
    ListBlocks,
    ListRecipients,
    ListTokens,
    ReadConversationWith,
    ReadInbox,
    ShowUser,
)
from chatd.model import Message

STEP: Final = 50
"""How many messages are asked for at a time."""


async def export(args: argparse.Namespace, settings: Settings, reactor: Any) -> None:
    """Print the account, its tokens and blocks, and the messages that it received and sent.

    Each line has a `type`. What it sent to accounts that are deleted exists no longer. A message to
    itself is received.
    """
    name = args.username
    async with access(settings, reactor) as database:
        [state] = (await database.perform(ShowUser(name))).users
        print_json({"type": "account", **account_record(state)})
        for token in (await database.perform(ListTokens(name))).tokens:
            print_json({"type": "token", **token_record(token)})
        for block in (await database.perform(ListBlocks(name))).blocks:
            print_json({"type": "block", "user_id": block.user_id, "username": block.username})
        await _received(database, name)
        for peer in (await database.perform(ListRecipients(name))).recipients:
            if peer != state.account.id:
                await _sent(database, name, state.account.id, peer)


async def _received(database: Access, name: str) -> None:
    """Print the inbox, oldest first."""
    after = 0
    while messages := (await database.perform(ReadInbox(name, after, STEP))).messages:
        for message in messages:
            print_json({"type": "received", **_record(message)})
        after = messages[-1].seq


async def _sent(database: Access, name: str, user_id: int, peer: int) -> None:
    """Print what the account sent to `peer`, newest first."""
    older: str | None = None
    while True:
        found = await database.perform(ReadConversationWith(name, peer, older, STEP))
        for message in found.messages:
            if message.sent_by == user_id:
                print_json({"type": "sent", **_record(message)})
        older = found.older
        if older is None:
            return


def _record(message: Message) -> Record:
    """A message with the members of the API."""
    revised = {
        name: timestamp(at)
        for name, at in (("edited_at", message.edited_at), ("deleted_at", message.deleted_at))
        if at is not None
    }
    return {
        "seq": message.seq,
        "sent_by": message.sent_by,
        "message": message.text,
        "sent_at": timestamp(message.sent_at),
        "received_by": message.received_by,
        **revised,
    }
