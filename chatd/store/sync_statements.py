"""SQL of conversations and changes that SQLite and PostgreSQL share; see `statements`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any, Final

from msgspec import structs

from chatd.errors import CursorEpoch
from chatd.model import MAX_INTEGER, ChangesPosition, Message, text_size
from chatd.model_sync import (
    Change,
    ChangesSlice,
    ConversationList,
    ConversationsCursor,
    ConversationSummary,
    ListConversations,
    MessageChange,
    PeerChange,
    PeerPositions,
    ReadChange,
    ReadChanges,
)
from chatd.store.results import within
from chatd.store.statements import MESSAGE, Rows

# The kinds of changes. `peer` is the owner of the inbox that holds the message, else the peer.
SENT: Final = "sent"
CHANGED: Final = "changed"
READ: Final = "read"
PEER: Final = "peer"

EMPTY_SUMMARY: Final = {
    "received_seq": 0,
    "received_at": 0,
    "sent_seq": 0,
    "sent_at": 0,
    "logged_after": 0,
    "read_seq": 0,
    "read_at": 0,
    "peer_delivered": 0,
    "peer_read": 0,
}
"""The columns of a summary that only grow; `last_at` follows from them."""
SUMMARY: Final = f"user_id, peer, last_at, {', '.join(EMPTY_SUMMARY)}"


def on_summary_conflict(greatest: str) -> str:
    """SQL that merges a summary into the existing row; `greatest` is the name of the function.

    `logged_after` stays as it was when the account began to have changes.
    """
    columns = ["last_at", *(each for each in EMPTY_SUMMARY if each != "logged_after")]
    merged = [f"{each} = {greatest}(summary.{each}, excluded.{each})" for each in columns]
    return f"ON CONFLICT (user_id, peer) DO UPDATE SET {', '.join(merged)}"


def merge_summary(greatest: str) -> str:
    """SQL to merge one row, whose columns are parameters."""
    values = ", ".join(f":{each}" for each in EMPTY_SUMMARY)
    return (
        f"INSERT INTO conversation_summary AS summary ({SUMMARY})"
        f" VALUES (:user_id, :peer, {greatest}(:received_at, :sent_at), {values})"
        f" {on_summary_conflict(greatest)}"
    )


LeftJoin = Callable[[str, str, str], str]
"""SQL that joins at most one row: of a source, under a name, by a condition.

PostgreSQL is told to look each up by its key, where it would otherwise read a whole table that it
takes for small.
"""


def plain_join(source: str, name: str, condition: str) -> str:
    """The join for SQLite, which has only nested loops.

    Therefore its rows come in the order of what is on the left. With ORDER BY, SQLite would sort
    them again, with all texts, before it returns the first one.
    """
    return f"LEFT JOIN ({source}) AS {name} ON {condition}"


_MESSAGE: Final = f"SELECT {MESSAGE} FROM message"


def changes_sql(join: LeftJoin = plain_join, found: str = "found.*") -> str:
    """SQL for the changes after a number, in its order; `found` are the columns of a message.

    Messages to deleted accounts may not have been purged yet, so they are filtered out.
    """
    of_message = """listed.kind IN ('sent', 'changed')
        AND found.received_by = listed.peer AND found.seq = listed.seq
        AND (SELECT deleted_at IS NULL FROM account WHERE id = listed.peer)"""
    of_summary = """listed.kind IN ('read', 'peer')
        AND summary.user_id = listed.user_id AND summary.peer = listed.peer"""
    return f"""
SELECT listed.number, listed.kind, listed.peer, read_seq, peer_delivered, peer_read, {found}
FROM (
    SELECT * FROM change WHERE user_id = :user_id AND number > :after ORDER BY number LIMIT :limit
) AS listed
{join("SELECT * FROM conversation_summary", "summary", of_summary)}
{join(_MESSAGE, "found", of_message)}
"""


def changes_parameters(query: ReadChanges) -> dict[str, Any]:
    """The parameters of `changes_sql`; one more row tells whether there are more."""
    assert query.after is not None
    return {
        "user_id": query.user_id,
        "after": query.after.number,
        "limit": query.limit + 1,
        "max_bytes": query.max_bytes,
    }


# A change is numbered by the time of its transaction, in microseconds, and always higher than the
# ones before. If the database is set back to an earlier state, what is recorded from then on has
# higher numbers than what was lost, so no client takes it for something that it has seen. The
# random part is for a clock that is set back as well, see `RANDOM_MICROSECONDS`.


def check_position(after: ChangesPosition, last_change: int) -> None:
    """Raise `CursorEpoch` for a position past the end."""
    if after.number > last_change:
        raise CursorEpoch("the cursor is past the changes of this account: begin again")


def after_messages(query: ReadChanges, old: Sequence[Message]) -> ReadChanges:
    """What is left to be read of a query after these old messages."""
    size = sum([text_size(each.text) for each in old])
    return structs.replace(query, limit=query.limit - len(old), max_bytes=query.max_bytes - size)


def changes_slice(
    left: ReadChanges,
    old: Sequence[Message],
    sent: tuple[int, int] | None,
    rows: Iterable[tuple[Any, ...]],
) -> ChangesSlice:
    """The result of `ReadChanges`: old messages, and the rows of `changes_sql` for what is left.

    `sent` is where they end if there are more: changes come after all of them.
    """
    assert left.after is not None
    listed, more = within(rows, left.limit, left.max_bytes, itemgetter(10))
    before = left.after.number
    found: list[Change] = [MessageChange(SENT, message) for message in old]
    positions = [ChangesPosition(before, (each.received_by, each.seq)) for each in old]
    for row in listed:
        change = _change(row)
        if change is not None:
            found.append(change)
            positions.append(ChangesPosition(row[0]))
    number = listed[-1][0] if listed else before
    more = more or sent is not None
    return ChangesSlice(tuple(found), tuple(positions), ChangesPosition(number, sent), more)


def _change(row: tuple[Any, ...]) -> Change | None:
    """The change of a row of `changes_sql`; None if what changed has been deleted since."""
    kind, peer, read_seq, delivered, read = row[1:6]
    if kind == READ:
        return ReadChange(peer, read_seq or 0)
    if kind == PEER:
        return PeerChange(peer, PeerPositions(delivered or 0, read or 0))
    return None if row[6] is None else MessageChange(kind, Message(*row[6:]))


# The message is the newer one of the last in either direction; of a deleted peer, who has no inbox,
# the last that was received.
_IS_SENT: Final = """
named.id IS NOT NULL AND (listed.sent_at > listed.received_at
    OR (listed.sent_at = listed.received_at AND listed.peer > listed.user_id))
"""


def conversations_sql(
    unread: str = "NULL", join: LeftJoin = plain_join, found: str = "found.*"
) -> str:
    """SQL for `ListConversations`, in its order; `unread` counts the messages after the read
    position, and `found` are the columns of a message."""
    last = f"""found.received_by = CASE WHEN {_IS_SENT} THEN listed.peer ELSE listed.user_id END
        AND found.seq = CASE WHEN {_IS_SENT} THEN listed.sent_seq ELSE listed.received_seq END"""
    peer = "named.id = listed.peer AND named.deleted_at IS NULL"
    return f"""
SELECT listed.peer, named.username, listed.last_at, listed.read_seq, listed.read_at,
    listed.peer_delivered, listed.peer_read, {unread}, {found}
FROM (
    SELECT * FROM conversation_summary
    WHERE user_id = :user_id AND last_at > 0 AND (last_at, peer) < (:before_at, :before_peer)
    ORDER BY last_at DESC, peer DESC LIMIT :limit
) AS listed
{join("SELECT id, username, deleted_at FROM account", "named", peer)}
{join(_MESSAGE, "found", last)}
"""


def conversations_parameters(query: ListConversations) -> dict[str, Any]:
    """The parameters of `conversations_sql`; one more row tells whether there are more."""
    before = query.before
    return {
        "user_id": query.user_id,
        "before_at": MAX_INTEGER if before is None else before.last_at,
        "before_peer": MAX_INTEGER if before is None else before.peer,
        "limit": query.limit + 1,
        "max_bytes": query.max_bytes,
    }


def listed_conversations(
    query: ListConversations, rows: Iterable[tuple[Any, ...]]
) -> tuple[Rows, bool]:
    """Those rows of `conversations_sql` that are returned, and whether there are more."""
    return within(rows, query.limit, query.max_bytes, itemgetter(12))


def conversation_list(
    listed: Rows, more: bool, unread: Callable[[tuple[Any, ...]], int]
) -> ConversationList:
    """The result of `ListConversations` from `listed_conversations`."""
    found = [_summary(row, unread(row)) for row in listed if row[8] is not None]
    older = ConversationsCursor(listed[-1][2], listed[-1][0]) if more else None
    return ConversationList(tuple(found), older)


def _summary(row: tuple[Any, ...], unread: int) -> ConversationSummary:
    peer, username, last_at, read, _, delivered, peer_read = row[:7]
    return ConversationSummary(
        peer, username, Message(*row[8:]), unread, read, peer_read, delivered, last_at
    )


# What others have summarised of an account that is deleted: their messages to it are gone.
_FORGET: Final = """
UPDATE conversation_summary SET last_at = received_at, sent_seq = 0, sent_at = 0,
    logged_after = 0, peer_delivered = 0, peer_read = 0
WHERE peer = :user_id"""
FORGET_DELETED_PEER: Final = f"""
{_FORGET} AND user_id IN (SELECT sent_by FROM contact WHERE received_by = :user_id)
"""
FORGET_DELETED_PEER_OF: Final = f"{_FORGET} AND user_id = ANY(:users::bigint[])"
"""The same for accounts of one lane."""
