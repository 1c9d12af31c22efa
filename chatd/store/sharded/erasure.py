"""Deleting what deleted accounts have sent, in the inboxes of all lanes.

The row of `erasure` is with the account, and says how far it is. A step reads it, deletes messages
in the lanes of their recipients, then moves it on, unless another process has done so. What two
processes do at once is done once: deleted messages stay as they are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from chatd.model import MAX_INTEGER, Erased, ErasedMessage
from chatd.postgres.array_literals import array
from chatd.store.erasure_statements import ERASE_INBOXES, ERASE_MESSAGES, NEXT_PASS, pick
from chatd.store.postgres.silent import silent
from chatd.store.postgres.sync_sql import MICROSECONDS, logging
from chatd.store.sharded.lanes import LaneExecutor, Lanes
from chatd.store.statements import Rows, postgres

_PICK_NAMED: Final = postgres(pick(MICROSECONDS, named=True))
_PICK_DUE: Final = postgres(pick(MICROSECONDS, named=False))
_IS_LEFT: Final = "SELECT 1 FROM erasure WHERE user_id = %s AND NOT late"

_RECIPIENTS: Final = f"""
SELECT received_by FROM contact WHERE sent_by = :user_id AND received_by >= :from
ORDER BY received_by LIMIT {ERASE_INBOXES}
"""
_FIND: Final = f"""
SELECT given.received_by, each.sent_at, each.seq
FROM unnest(%(inboxes)s::bigint[], %(times)s::bigint[], %(seqs)s::bigint[])
    AS given (received_by, at, after)
JOIN inbox ON inbox.user_id = given.received_by AND NOT closed
CROSS JOIN LATERAL (
    SELECT message.sent_at, message.seq FROM message
    WHERE message.received_by = given.received_by AND message.sent_by = %(user_id)s
        AND (message.sent_at, message.seq) > (given.at, given.after)
    ORDER BY message.sent_at, message.seq LIMIT {ERASE_MESSAGES}
) AS each
ORDER BY 1, 2, 3 LIMIT {ERASE_MESSAGES}
"""
# Whoever begins to have changes meanwhile waits for these locks, or is known to the second
# statement. Edits take the same locks, so the texts are measured as they are then.
_ERASE: Final = silent(f"""
SELECT 1 FROM inbox WHERE user_id = ANY(%(inboxes)s::bigint[]) ORDER BY user_id
FOR NO KEY UPDATE;
WITH sizes AS MATERIALIZED (
    SELECT message.received_by, message.seq, octet_length(text) AS size
    FROM message JOIN unnest(%(inboxes)s::bigint[], %(seqs)s::bigint[]) AS given (received_by, seq)
        USING (received_by, seq)
    WHERE message.sent_by = %(user_id)s AND deleted_at IS NULL
), erased AS (
    UPDATE message SET text = '', deleted_at = greatest({MICROSECONDS}, message.sent_at, edited_at)
    FROM sizes
    WHERE message.received_by = sizes.received_by AND message.seq = sizes.seq
    RETURNING message.received_by, message.seq, message.sent_by, size
), shrunk AS (
    UPDATE inbox SET text_bytes = text_bytes - freed FROM (
        SELECT received_by, sum(size) AS freed
        FROM erased JOIN inbox ON user_id = received_by AND seq > removed_seq
        GROUP BY received_by
    ) AS sums WHERE inbox.user_id = sums.received_by
), changes AS MATERIALIZED (
    SELECT received_by AS user_id, 'changed' AS kind, received_by AS peer, seq FROM erased
), {logging("changes")}
SELECT received_by, seq, sent_by FROM erased
""")

_AS_FOUND: Final = """
user_id = :user_id AND late = :late AND received_by = :received_by AND sent_at = :sent_at
    AND seq = :seq
"""
_MOVE: Final = postgres(f"""
UPDATE erasure SET received_by = :next_inbox, sent_at = :next_time, seq = :next_seq
WHERE {_AS_FOUND}
""")
_PASS: Final = postgres(f"{NEXT_PASS} WHERE {_AS_FOUND}")
_END: Final = postgres(f"DELETE FROM erasure WHERE {_AS_FOUND}")

_Place = tuple[int, int, int]
"""The inbox, the time and the seq of a message."""


class Erasure:
    """Deletes what deleted accounts have sent."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes

    async def step(self, user_id: int | None) -> Erased:
        """See `IStore.erase`; every lane has a transaction of its own."""
        picked = await self._pick(user_id)
        if picked is None:
            left = user_id is not None and await self._lanes.of(user_id).run(_IS_LEFT, (user_id,))
            return Erased((), bool(left))
        owner, late, received_by, sent_at, seq, begin_at = picked
        inboxes = await self._recipients(owner, received_by)
        begins = [
            (each, sent_at, seq) if each == received_by else (each, begin_at, 0) for each in inboxes
        ]
        found = await self._find(owner, begins)
        erased = await self._erase(owner, found)
        ended = len(found) < ERASE_MESSAGES and len(inboxes) < ERASE_INBOXES
        if len(found) == ERASE_MESSAGES:
            reached = found[-1]
        else:
            reached = (inboxes[-1] if inboxes else 0, MAX_INTEGER, 0)
        names = ("next_inbox", "next_time", "next_seq")
        await self._lanes.of(owner).run(
            _MOVE if not ended else _END if late else _PASS,
            {
                "user_id": owner,
                "late": late,
                "received_by": received_by,
                "sent_at": sent_at,
                "seq": seq,
                **dict(zip(names, reached, strict=True)),
            },
        )
        return Erased(erased, not ended or user_id is None)

    async def _pick(self, user_id: int | None) -> tuple[Any, ...] | None:
        """The row of `erasure` to go on with."""
        if user_id is not None:
            rows = await self._lanes.of(user_id).run(_PICK_NAMED, {"user_id": user_id})
            return rows[0] if rows else None
        for lane in self._lanes:
            rows = await lane.run(_PICK_DUE, {})
            if rows:
                return rows[0]
        return None

    async def _recipients(self, user_id: int, begin: int) -> list[int]:
        rows = await self._lanes.everywhere(_RECIPIENTS, {"user_id": user_id, "from": begin})
        return sorted(row[0] for row in rows)[:ERASE_INBOXES]

    async def _find(self, user_id: int, begins: list[_Place]) -> list[_Place]:
        rows = await self._in_lanes(begins, user_id, lambda lane, group: lane.run(_FIND, group))
        return sorted((row[0], row[1], row[2]) for row in rows)[:ERASE_MESSAGES]

    async def _erase(self, user_id: int, found: list[_Place]) -> tuple[ErasedMessage, ...]:
        rows = await self._in_lanes(found, user_id, lambda lane, group: lane.run(_ERASE, group))
        return tuple([ErasedMessage(*row) for row in rows])

    async def _in_lanes(
        self,
        places: list[_Place],
        user_id: int,
        run: Callable[[LaneExecutor, dict[str, Any]], Awaitable[Rows]],
    ) -> Rows:
        def run_group(lane: LaneExecutor, group: list[_Place]) -> Awaitable[Rows]:
            names = ("inboxes", "times", "seqs")
            columns = zip(*group, strict=True)
            parameters = {name: array(each) for name, each in zip(names, columns, strict=True)}
            return run(lane, {**parameters, "user_id": user_id})

        found = await self._lanes.run_grouped(places, lambda place: place[0], run_group)
        return [row for rows in found for row in rows]
