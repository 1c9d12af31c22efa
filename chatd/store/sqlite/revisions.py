"""Editing and deleting messages in SQLite: functions that the store runs in its writer thread.

The former text is overwritten: see `PRAGMA secure_delete` in `chatd.store.sqlite.file`.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from chatd.model import Message, Revision
from chatd.store.results import MessageState, changes, check_revision, growth
from chatd.store.sqlite.changes import Synchronised
from chatd.store.sqlite.contacts import ContactRules
from chatd.store.sqlite.inbox_ends import InboxEnds
from chatd.store.sqlite.transactions import transaction
from chatd.store.statements import MESSAGE
from chatd.store.sync_statements import CHANGED

# The messages of a deleted account may not have been purged yet.
_FIND: Final = (
    f"SELECT {MESSAGE} FROM message JOIN inbox ON user_id = received_by"
    " WHERE received_by = ? AND seq = ?"
)
_REVISE: Final = (
    "UPDATE message SET text = ?, edited_at = ?, deleted_at = ? WHERE received_by = ? AND seq = ?"
)


def revise(
    db: sqlite3.Connection,
    revision: Revision,
    now: int,
    contacts: ContactRules,
    synchronised: Synchronised,
    ends: InboxEnds,
) -> Message:
    """See `IStore.revise`; `now` must not be less than the time of any message."""
    with transaction(db):
        message = find(db, revision.received_by, revision.seq)
        blocked = message is not None and contacts.is_blocked(
            db, message.received_by, message.sent_by
        )
        end = ends.get(db, revision.received_by)
        room = 0 if end is None else ends.limits.bytes - end[2]
        error = check_revision(revision, message, now, blocked, room)
        if error is not None:
            raise error
        assert message is not None
        if changes(revision, message):
            if revision.text is None:
                state: MessageState = ("", message.edited_at, now)
            else:
                state = (revision.text, now, None)
            db.execute(_REVISE, (*state, message.received_by, message.seq))
            ends.grow(db, message.received_by, message.seq, growth(revision, message))
            for user_id in {message.sent_by, message.received_by}:
                synchronised.log(db, user_id, CHANGED, message.received_by, message.seq)
            message = Message(
                message.received_by, message.seq, message.sent_by, message.sent_at, *state
            )
    return message


def find(db: sqlite3.Connection, received_by: int, seq: int) -> Message | None:
    """The message of that seq; None if there is none, or no inbox."""
    row = db.execute(_FIND, (received_by, seq)).fetchone()
    return None if row is None else Message(*row)
