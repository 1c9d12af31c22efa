"""Editing and deleting messages on PostgreSQL.

A message is read, checked, and then changed on condition that it, its inbox and the blocks of its
recipient are still the same; otherwise that is done again. So both statements are safe to repeat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from chatd.errors import DomainError, StoreUnavailable
from chatd.model import Message, Revision
from chatd.postgres.notify_payloads import CHANNEL, ChangedNotice, encode
from chatd.store.postgres.retry import Executor
from chatd.store.postgres.silent import silent
from chatd.store.postgres.sync_sql import BEFORE_REVISING, MICROSECONDS, logging
from chatd.store.results import changes, check_revision, growth
from chatd.store.statements import MESSAGE, postgres
from chatd.store.sync_statements import CHANGED

MAX_ATTEMPTS: Final = 20

_FIND: Final = postgres(f"""
SELECT {MESSAGE}, {MICROSECONDS}, text_bytes, block_changes, block_changes > 0 AND EXISTS (
    SELECT FROM block WHERE block.user_id = received_by AND blocked_id = sent_by
)
FROM message JOIN inbox ON inbox.user_id = received_by AND NOT closed
WHERE received_by = :received_by AND seq = :seq AND seq > removed_seq
""")


# The lock makes the owner of the inbox wait who blocks the sender, and waits for them. `growth` is
# that of the text which `edited_at` identifies; messages that are removed do not count.
def _revise(revised: str, more: str) -> str:
    return postgres(f"""
{BEFORE_REVISING}
WITH open AS (
    SELECT block_changes FROM inbox WHERE user_id = :received_by AND NOT closed
    FOR NO KEY UPDATE
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
), grown AS (
    UPDATE inbox SET text_bytes = text_bytes + :growth FROM changed
    WHERE inbox.user_id = received_by AND removed_seq < changed.seq AND :growth <> 0
), revised AS MATERIALIZED (
    {revised}
), {logging("revised")} {more}
SELECT edited_at, deleted_at, pg_notify(:channel, :payload) FROM changed, told
""")


_OF_RECIPIENT: Final = f"""
    SELECT received_by AS user_id, '{CHANGED}' AS kind, received_by AS peer, seq FROM changed
"""
_REVISE: Final = _revise(
    f"SELECT sent_by AS user_id, '{CHANGED}' AS kind, received_by AS peer, seq FROM changed"
    f" UNION {_OF_RECIPIENT}",
    "",
)
# In the lane of the recipient. The sender is told later, see `chatd.store.sharded.outbox`.
_REVISE_IN_LANE: Final = silent(
    _revise(
        _OF_RECIPIENT,
        f""", recorded AS (
    INSERT INTO batch (owner, id, places, seqs, times, senders, recipients, kind)
    SELECT received_by, :batch::uuid, '{{}}', ARRAY[seq], ARRAY[0], ARRAY[sent_by],
        ARRAY[received_by], '{CHANGED}'
    FROM changed
)""",
    )
)


async def revise(
    executor: Executor,
    revision: Revision,
    node_id: str,
    max_bytes: int,
    *,
    notifying: bool,
    new_batch: Callable[[], str] | None = None,
) -> Message | DomainError:
    """See `IStore.revise`; `node_id` is the sender of the notice, if it is `notifying`.

    An inbox may have `max_bytes`. With `new_batch`, which returns a new id, the executor is that of
    the recipient's lane, and a batch of that id says what the sender has to be told, if the message
    is changed.
    """
    if new_batch is None:
        statement = _REVISE if notifying else silent(_REVISE)
    else:
        statement = _REVISE_IN_LANE
    where = {"received_by": revision.received_by, "seq": revision.seq}
    for _ in range(MAX_ATTEMPTS):
        rows = await executor.run(_FIND, where)
        *columns, now, size, block_changes, blocked = rows[0] if rows else (0, 0, 0, False)
        message = Message(*columns) if rows else None
        error = check_revision(revision, message, now, blocked, max_bytes - size)
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
            "growth": growth(revision, message),
            "channel": CHANNEL,
            "payload": encode(node_id, notice),
            "batch": None if new_batch is None else new_batch(),
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
