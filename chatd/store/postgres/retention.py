"""Removal of the oldest messages from PostgreSQL, in small transactions; several processes may do
it.

First it is stored where inboxes begin now (`removed_seq`), and all processes are notified. Seconds
later, when none of them reads what is before that, the rows are deleted. The order of times is that
of seqs, so what is old is always the beginning of an inbox. The owner of an inbox may have it begin
later, too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

from chatd.postgres.array_literals import array
from chatd.postgres.notify_payloads import CHANNEL, removed_prefix
from chatd.store.removed_rows import Deleted, RemovedRows
from chatd.store.results import past_the_end
from chatd.store.statements import Rows, Statement

INBOXES: Final = 100
"""Inboxes that one transaction looks at; its notice is limited to 8000 bytes."""
MESSAGES: Final = 100
"""By how many messages one transaction moves the beginning of each."""
CHOSEN_MESSAGES: Final = 1000
"""By how many it moves that of one inbox, as its owner has chosen."""
ROWS: Final = 1000
"""Messages that one transaction deletes."""
GRACE_SECONDS: Final = 5.0
"""How long other processes have to hear of what is removed, before it is deleted."""


def _advancing(chosen: str, old: str, messages: int, skip_locked: str) -> str:
    """Parts of a statement that has the inboxes `chosen` begin after the messages `old`.

    Of each, up to so many `messages` are removed. They are measured under the lock, as they are
    then: edits take the same lock. With the order and the limit the planner takes them by their
    key; otherwise it would read all that was removed before, too.
    """
    return f"""
WITH chosen AS ({chosen}), old AS ({old}), free AS MATERIALIZED (
    SELECT user_id, removed_seq FROM inbox JOIN old USING (user_id) WHERE NOT closed
    ORDER BY user_id FOR NO KEY UPDATE OF inbox {skip_locked}
), sizes AS MATERIALIZED (
    SELECT received_by, size
    FROM old JOIN free USING (user_id) CROSS JOIN LATERAL (
        SELECT received_by, octet_length(text) AS size FROM message
        WHERE received_by = old.user_id AND seq > free.removed_seq AND seq <= old.seq
        ORDER BY seq LIMIT {messages} FOR SHARE
    ) AS oldest
    WHERE (SELECT count(*) FROM free) > 0
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
"""


_INBOXES: Final = f"""
    SELECT user_id, removed_seq FROM inbox WHERE user_id > :after AND NOT closed
    ORDER BY user_id LIMIT {INBOXES}
"""
_OLD: Final = f"""
    SELECT user_id, seq, sent_at FROM chosen CROSS JOIN LATERAL (
        SELECT seq, sent_at FROM (
            SELECT seq, sent_at FROM message
            WHERE received_by = chosen.user_id AND seq > chosen.removed_seq
            ORDER BY seq LIMIT {MESSAGES}
        ) AS next WHERE sent_at < :before ORDER BY seq DESC LIMIT 1
    ) AS last
"""
# Inboxes that are locked, which somebody is writing to, are left for the next time. All inboxes
# that begin late are returned, so that a process that has missed a notice catches up.
_ADVANCE: Final = f"""
{_advancing(_INBOXES, _OLD, MESSAGES, "SKIP LOCKED")}
SELECT chosen.user_id, coalesce(moved.removed_seq, chosen.removed_seq),
    moved.user_id IS NOT NULL
FROM notified, chosen LEFT JOIN moved ON moved.user_id = chosen.user_id ORDER BY 1
"""

_INBOX: Final = """
    SELECT user_id, removed_seq, last_seq FROM inbox WHERE user_id = :user_id AND NOT closed
"""
_CHOSEN: Final = f"""
    SELECT user_id, seq, sent_at FROM chosen JOIN message ON received_by = user_id
        AND seq = least(:up_to, removed_seq + {CHOSEN_MESSAGES})
    WHERE removed_seq < :up_to AND last_seq >= :up_to
"""
# Waits for whoever is writing to the inbox: others may do that all the time.
_REMOVE_OLDEST: Final = f"""
{_advancing(_INBOX, _CHOSEN, CHOSEN_MESSAGES, "")}
SELECT last_seq, coalesce(moved.removed_seq, chosen.removed_seq)
FROM notified, chosen LEFT JOIN moved ON true
"""

REMOVED: Final = f"""
chosen AS (
    SELECT user_id, least(removed_seq, upto) AS upto
    FROM unnest(:users::bigint[], :seqs::bigint[]) AS given (user_id, upto)
    JOIN inbox USING (user_id) WHERE NOT closed
), old AS (
    SELECT received_by, seq, sent_by FROM chosen CROSS JOIN LATERAL (
        SELECT received_by, seq, sent_by FROM message
        WHERE received_by = chosen.user_id AND seq <= chosen.upto
        ORDER BY seq LIMIT {ROWS}
    ) AS removed LIMIT {ROWS}
)
"""
"""Parts of a statement: inboxes, and some of their rows that were removed up to these seqs."""

_DELETE: Final = f"""
WITH {REMOVED}, changes AS (
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
SELECT (SELECT count(*) FROM gone), EXISTS (SELECT FROM old)
"""


class Execute(Protocol):
    """Runs a statement that removes messages."""

    def __call__(self, statement: Statement[Rows]) -> Awaitable[Rows]: ...


class Inboxes(Protocol):
    """Where inboxes are, and how the rows of removed messages are deleted there."""

    def retention_parts(self) -> Sequence[Execute]:
        """The places of all inboxes."""
        ...

    def retention_part(self, user_id: int) -> Execute:
        """The place of an inbox."""
        ...

    def delete_removed(self, inboxes: Sequence[tuple[int, int]]) -> Awaitable[Deleted]:
        """Delete some rows of inboxes up to these seqs, as far as those were removed."""
        ...


def removed_parameters(inboxes: Sequence[tuple[int, int]]) -> dict[str, str]:
    """The parameters of `REMOVED`."""
    users, seqs = zip(*inboxes, strict=True)
    return {"users": array(users), "seqs": array(seqs)}


async def delete_removed(execute: Execute, inboxes: Sequence[tuple[int, int]]) -> Deleted:
    """Delete rows where what others have recorded of them is in the same place."""
    [row] = await execute(Statement(_DELETE, removed_parameters(inboxes), _rows))
    return Deleted(*row)


class Retention:
    """Removes messages from the beginning of inboxes.

    `inboxes` returns where they are; `apply` is called with the users and seqs of those that begin
    later, and calls `note` with what was not known; `pause` waits for some seconds; `node_id`
    returns the present id of the process. `run_noticed` awaits work whose notices this process
    ignores.
    """

    def __init__(
        self,
        inboxes: Callable[[], Inboxes],
        apply: Callable[[Iterable[tuple[int, int]]], None],
        pause: Callable[[float], Awaitable[object]],
        node_id: Callable[[], str],
        run_noticed: Callable[[Awaitable[Rows]], Awaitable[Rows]],
    ) -> None:
        self._inboxes = inboxes
        self._apply = apply
        self._pause = pause
        self._node_id = node_id
        self._run_noticed = run_noticed
        self._stopped = False
        self._rows = RemovedRows(
            lambda part: self._inboxes().delete_removed(part),
            prepare=lambda: self._pause(GRACE_SECONDS),
        )

    def note(self, user_id: int, seq: int) -> None:
        """An inbox begins after that message, in whichever process that was removed."""
        self._rows.add(user_id, seq)

    def stop(self) -> None:
        """Begin no more transactions."""
        self._stopped = True
        self._rows.stop()

    async def wait_idle(self) -> None:
        """Return when none is under way in the background."""
        await self._rows.wait_idle()

    async def run(self, before: int | None) -> int:
        """Remove the messages that were sent before that time; returns how many were deleted.

        Those are also what was removed before and not deleted yet; with None, only those.
        """
        for execute in () if before is None else self._inboxes().retention_parts():
            after: int | None = 0
            while after is not None and not self._stopped:
                after = await self._advance(execute, after, before)
        return await self._rows.delete()

    async def _advance(self, execute: Execute, after: int, before: int | None) -> int | None:
        rows = await self._remove(execute, _ADVANCE, {"after": after, "before": before})
        self._apply((user_id, seq) for user_id, seq, _ in rows if seq)
        if not rows:
            return None
        return after if any(moved for *_, moved in rows) else int(rows[-1][0])

    async def remove_oldest(self, user_id: int, up_to: int) -> bool | None:
        """See `IStore.remove_oldest`."""
        execute = self._inboxes().retention_part(user_id)
        parameters = {"user_id": user_id, "up_to": up_to}
        rows = await self._remove(execute, _REMOVE_OLDEST, parameters)
        if not rows:
            return None
        [(last, removed)] = rows
        if up_to > last:
            raise past_the_end()
        self._apply([(user_id, removed)])
        self._rows.start()
        return bool(removed < up_to)

    async def _remove(
        self, execute: Execute, sql: str, parameters: Mapping[str, int | None]
    ) -> Rows:
        origin = removed_prefix(self._node_id())
        statement = Statement(sql, {**parameters, "channel": CHANNEL, "origin": origin}, _rows)
        return await self._run_noticed(execute(statement))


def _rows(rows: Rows) -> Rows:
    return rows
