"""Editing and deleting messages on PostgreSQL.

A message is read, checked, and then changed on condition that it, its inbox and the blocks of its
recipient are still the same; otherwise that is done again. So both statements are safe to repeat.
"""

from __future__ import annotations

from typing import Final

from chatd.errors import DomainError, StoreUnavailable
from chatd.model import Message, Revision
from chatd.postgres.notify_payloads import CHANNEL, ChangedNotice, encode
from chatd.store.postgres.retry import Executor
from chatd.store.postgres.silent import silent
from chatd.store.postgres.sync_sql import BEFORE_REVISING, MICROSECONDS, logging
from chatd.store.results import changes, check_revision
from chatd.store.statements import MESSAGE, postgres

MAX_ATTEMPTS: Final = 20

_FIND: Final = postgres(f"""
SELECT {MESSAGE}, {MICROSECONDS}, block_changes, block_changes > 0 AND EXISTS (
    SELECT FROM block WHERE block.user_id = received_by AND blocked_id = sent_by
)
FROM message JOIN inbox ON inbox.user_id = received_by AND NOT closed
WHERE received_by = :received_by AND seq = :seq
""")

# The lock makes the owner of the inbox wait who blocks the sender, and waits for them.
_REVISE: Final = postgres(f"""
{BEFORE_REVISING}
WITH open AS (
    SELECT block_changes FROM inbox WHERE user_id = :received_by AND NOT closed FOR SHARE
), changed AS (
    UPDATE message SET
        text = coalesce(:text, ''),
        edited_at = CASE WHEN :text IS NULL THEN edited_at
            ELSE greatest({MICROSECONDS}, sent_at, edited_at + 1) END,
        deleted_at = CASE WHEN :text IS NULL THEN greatest({MICROSECONDS}, sent_at, edited_at) END
    FROM open
    WHERE received_by = :received_by AND seq = :seq AND deleted_at IS NULL
        AND edited_at IS NOT DISTINCT FROM :edited_at AND block_changes = :block_changes
    RETURNING received_by, seq, sent_by, edited_at, deleted_at
), revised AS MATERIALIZED (
    SELECT sent_by AS user_id, 'changed' AS kind, received_by AS peer, seq FROM changed
    UNION
    SELECT received_by, 'changed', received_by, seq FROM changed
), {logging("revised")}
SELECT edited_at, deleted_at, pg_notify(:channel, :payload) FROM changed, told
""")


async def revise(
    executor: Executor, revision: Revision, node_id: str, *, notifying: bool
) -> Message | DomainError:
    """See `IStore.revise`; `node_id` is the sender of the notice, if it is `notifying`."""
    statement = _REVISE if notifying else silent(_REVISE)
    where = {"received_by": revision.received_by, "seq": revision.seq}
    for _ in range(MAX_ATTEMPTS):
        rows = await executor.run(_FIND, where)
        *columns, now, block_changes, blocked = rows[0] if rows else (0, 0, False)
        message = Message(*columns) if rows else None
        error = check_revision(revision, message, now, blocked)
        if error is not None:
            return error
        assert message is not None
        if not changes(revision, message):
            return message
        notice = ChangedNotice(message.received_by, message.seq, message.sent_by)
        parameters = {
            **where,
            "text": revision.text,
            "edited_at": message.edited_at,
            "block_changes": block_changes,
            "channel": CHANNEL,
            "payload": encode(node_id, notice),
        }
        for edited_at, deleted_at, _ in await executor.run(statement, parameters):
            return Message(
                message.received_by,
                message.seq,
                message.sent_by,
                message.sent_at,
                revision.text or "",
                edited_at,
                deleted_at,
            )
    return StoreUnavailable("others are changing the same message", retry_after=1)
