"""Blocks on PostgreSQL. `append_sql` applies them."""

from __future__ import annotations

from typing import Final

from chatd.model import EncodedRows
from chatd.postgres.array_literals import array
from chatd.store.results import MAX_BLOCKS, too_many_blocks, user_not_found
from chatd.store.statements import BLOCKS, Rows, Statement, encoded

# The update of the inbox waits for messages that are being stored, and lets those that wait for it
# find out that the blocks have changed.
_BLOCK: Final = """
WITH blocked AS (
    SELECT 1 FROM block WHERE user_id = :user_id AND blocked_id = :blocked_id
), accounts AS (
    SELECT count(*) AS found FROM inbox
    WHERE user_id = ANY(:inboxes::bigint[]) AND NOT closed
), owner AS (
    UPDATE inbox SET block_changes = block_changes + 1
    WHERE user_id = :user_id AND (SELECT found FROM accounts) = :accounts
        AND NOT EXISTS (SELECT FROM blocked)
        AND (SELECT count(*) FROM block WHERE user_id = :user_id) < :max
    RETURNING user_id
), added AS (
    INSERT INTO block (user_id, blocked_id) SELECT user_id, :blocked_id FROM owner
    ON CONFLICT DO NOTHING
)
SELECT found, EXISTS (SELECT FROM blocked) OR EXISTS (SELECT FROM owner) FROM accounts
"""
_UNBLOCK: Final = "DELETE FROM block WHERE user_id = :user_id AND blocked_id = :blocked_id"

ENCODE: Final = """
SELECT count(*) AS count, '[' || coalesce(string_agg(
    '{"user_id":' || blocked_id || ',"username":' || to_json(username)::text || '}',
    ',' ORDER BY lower(username) COLLATE "C"
), '') || ']' AS encoded
"""
"""The beginning of a statement that encodes blocks, see `IStore.blocks`."""


def block(user_id: int, blocked_id: int, *, in_lane: bool = False) -> Statement[None]:
    """See `IStore.block`; `in_lane` it looks for the owner's inbox only."""
    inboxes = {user_id} if in_lane else {user_id, blocked_id}
    # Never found of somebody who blocks themselves.
    accounts = 1 if in_lane and user_id != blocked_id else 2

    def result(rows: Rows) -> None:
        [(found, blocked)] = rows
        if found != accounts:
            raise user_not_found(blocked_id)
        if not blocked:
            raise too_many_blocks()

    parameters = {
        "user_id": user_id,
        "blocked_id": blocked_id,
        "max": MAX_BLOCKS,
        "inboxes": array(inboxes),
        "accounts": accounts,
    }
    return Statement(_BLOCK, parameters, result)


def blocks(user_id: int) -> Statement[EncodedRows]:
    """See `IStore.blocks`."""
    return Statement(f"{ENCODE} FROM ({BLOCKS}) AS blocks", {"user_id": user_id}, encoded)


def unblock(user_id: int, blocked_id: int) -> Statement[None]:
    """See `IStore.unblock`."""
    parameters = {"user_id": user_id, "blocked_id": blocked_id}
    return Statement(_UNBLOCK, parameters, lambda _: None)
