"""Removal of old messages from PostgreSQL, in small transactions; several processes may do it.

First it is stored where inboxes begin now (`removed_seq`), and all processes are notified. Seconds
later, when none of them reads what is before that, the rows are deleted. The order of times is that
of seqs, so what is old is always the beginning of an inbox.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, NamedTuple, Protocol

from chatd.postgres.notify_payloads import CHANNEL, removed_prefix
from chatd.store.statements import Rows, Statement

INBOXES: Final = 100
"""Inboxes that one transaction looks at; its notice is limited to 8000 bytes."""
MESSAGES: Final = 100
"""By how many messages one transaction moves the beginning of an inbox."""
ROWS: Final = 1000
"""Messages that one transaction deletes."""
GRACE_SECONDS: Final = 5.0
"""How long other processes have to hear of what is removed, before it is deleted."""

# Inboxes that are locked, which somebody is writing to, are left for the next time. All inboxes
# that begin late are returned, so that a process that has missed a notice catches up. What is
# removed is measured under the lock, as it is then: edits take the same lock.
_ADVANCE: Final = f"""
WITH chosen AS (
    SELECT user_id, removed_seq FROM inbox WHERE user_id > :after AND NOT closed
    ORDER BY user_id LIMIT {INBOXES}
), old AS (
    SELECT user_id, seq, sent_at FROM chosen CROSS JOIN LATERAL (
        SELECT seq, sent_at FROM (
            SELECT seq, sent_at FROM message
            WHERE received_by = chosen.user_id AND seq > chosen.removed_seq
            ORDER BY seq LIMIT {MESSAGES}
        ) AS next WHERE sent_at < :before ORDER BY seq DESC LIMIT 1
    ) AS last
), free AS MATERIALIZED (
    SELECT user_id, removed_seq FROM inbox JOIN old USING (user_id) ORDER BY user_id
    FOR NO KEY UPDATE OF inbox SKIP LOCKED
), sizes AS MATERIALIZED (
    SELECT received_by, octet_length(text) AS size
    FROM message JOIN old ON received_by = old.user_id AND message.seq <= old.seq
        JOIN free ON free.user_id = received_by AND message.seq > removed_seq
    WHERE (SELECT count(*) FROM free) > 0
    FOR SHARE OF message
), moved AS (
    UPDATE inbox SET removed_seq = old.seq, removed_at = old.sent_at,
        text_bytes = text_bytes - coalesce(
            (SELECT sum(size) FROM sizes WHERE received_by = old.user_id), 0
        )
    FROM old
    WHERE inbox.user_id = old.user_id AND old.user_id IN (SELECT user_id FROM free)
        AND inbox.removed_seq < old.seq
    RETURNING inbox.user_id, inbox.removed_seq
), notified AS (
    SELECT count(pg_notify(:channel, :origin || pairs)) FROM (
        SELECT string_agg(user_id || '.' || removed_seq, ',') AS pairs FROM moved
    ) AS payload WHERE pairs IS NOT NULL
)
SELECT chosen.user_id, coalesce(moved.removed_seq, chosen.removed_seq),
    moved.user_id IS NOT NULL
FROM notified, chosen LEFT JOIN moved ON moved.user_id = chosen.user_id ORDER BY 1
"""

OLD: Final = f"""
chosen AS (
    SELECT user_id, removed_seq FROM inbox WHERE user_id > :after AND NOT closed
    ORDER BY user_id LIMIT {INBOXES}
), old AS (
    SELECT received_by, seq, sent_by FROM chosen CROSS JOIN LATERAL (
        SELECT received_by, seq, sent_by FROM message
        WHERE received_by = chosen.user_id AND seq <= chosen.removed_seq
        ORDER BY seq LIMIT {ROWS}
    ) AS removed LIMIT {ROWS}
)
"""
"""Parts of a statement: inboxes after a user, and some of their rows that were removed."""

_DELETE: Final = f"""
WITH {OLD}, changes AS (
    SELECT sent_by AS user_id, kind, received_by AS peer, seq
    FROM old CROSS JOIN (VALUES ('sent'), ('changed')) AS kinds (kind)
    UNION SELECT received_by, 'changed', received_by, seq FROM old
), forgotten AS (
    DELETE FROM change USING changes
    WHERE change.user_id = changes.user_id AND change.kind = changes.kind
        AND change.peer = changes.peer AND change.seq = changes.seq
), gone AS (
    DELETE FROM message USING old
    WHERE message.received_by = old.received_by AND message.seq = old.seq RETURNING 1
)
SELECT (SELECT max(user_id) FROM chosen), (SELECT count(*) FROM gone)
"""


class Execute(Protocol):
    """Runs a statement that removes messages."""

    def __call__(self, statement: Statement[Rows]) -> Awaitable[Rows]: ...


Delete = Callable[[int], Awaitable[tuple[int | None, int]]]
"""Deletes some rows of inboxes after that user; returns the last user, and how many rows."""


class RetentionPart(NamedTuple):
    """Inboxes that are in one place: how they are advanced, and how their rows are deleted."""

    execute: Execute
    delete: Delete


def deletion(execute: Execute) -> Delete:
    """How rows are deleted where what others have recorded of them is in the same place."""

    async def delete(after: int) -> tuple[int | None, int]:
        [(last, count)] = await execute(Statement(_DELETE, {"after": after}, _rows))
        return last, count

    return delete


class Retention:
    """Removes old messages.

    `parts` returns where the inboxes are; `apply` is called with the users and seqs of inboxes that
    begin later; `pause` waits for some seconds; `node_id` returns the present id of the process.
    `run_noticed` awaits work whose notices this process ignores.
    """

    def __init__(
        self,
        parts: Callable[[], Sequence[RetentionPart]],
        apply: Callable[[Iterable[tuple[int, int]]], None],
        pause: Callable[[float], Awaitable[object]],
        node_id: Callable[[], str],
        run_noticed: Callable[[Awaitable[Rows]], Awaitable[Rows]],
    ) -> None:
        self._parts = parts
        self._apply = apply
        self._pause = pause
        self._node_id = node_id
        self._run_noticed = run_noticed
        self._stopped = False

    def stop(self) -> None:
        """Begin no more transactions."""
        self._stopped = True

    async def run(self, before: int) -> int:
        """Remove the messages that were sent before that time; returns how many were deleted."""
        after: int | None
        for part in self._parts():
            after = 0
            while after is not None and not self._stopped:
                after = await self._advance(part, after, before)
        await self._pause(GRACE_SECONDS)
        deleted = 0
        for part in self._parts():
            after = 0
            while after is not None and not self._stopped:
                last, count = await part.delete(after)
                deleted += count
                # As long as there are rows, these inboxes may have more.
                after = last if not count else after
        return deleted

    async def _advance(self, part: RetentionPart, after: int, before: int) -> int | None:
        origin = removed_prefix(self._node_id())
        parameters = {"after": after, "before": before, "channel": CHANNEL, "origin": origin}
        rows = await self._run_noticed(part.execute(Statement(_ADVANCE, parameters, _rows)))
        self._apply((user_id, seq) for user_id, seq, _ in rows if seq)
        if not rows:
            return None
        return after if any(moved for *_, moved in rows) else int(rows[-1][0])


def _rows(rows: Rows) -> Rows:
    return rows
