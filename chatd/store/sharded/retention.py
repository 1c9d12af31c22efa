"""Deleting the rows of removed messages, and what senders and recipients have recorded of them."""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred

from chatd.postgres.array_literals import array
from chatd.store.postgres.retention import OLD, Delete
from chatd.store.sharded.lanes import LaneExecutor, Lanes
from chatd.store.statements import Rows, postgres

_FIND: Final = f"""
WITH {OLD}
SELECT reached.last, old.* FROM (SELECT max(user_id) AS last FROM chosen) AS reached
LEFT JOIN old ON true
"""
_FORGET: Final = """
DELETE FROM change USING unnest(%s::bigint[], %s::bigint[], %s::bigint[])
    AS given (user_id, peer, seq)
WHERE change.user_id = given.user_id AND change.kind = ANY(ARRAY['sent', 'changed'])
    AND change.peer = given.peer AND change.seq = given.seq
"""
_DELETE: Final = """
DELETE FROM message USING unnest(%s::bigint[], %s::bigint[]) AS given (received_by, seq)
WHERE message.received_by = given.received_by AND message.seq = given.seq
RETURNING 1
"""


def deletion(lanes: Lanes, lane: LaneExecutor) -> Delete:
    """How rows are deleted in a lane; what is recorded of them is in the lanes of senders, too.

    That goes first: as long as there is a message, it is done again.
    """

    def forget(other: LaneExecutor, group: list[tuple[int, int, int]]) -> Deferred[Rows]:
        users, peers, seqs = (array(each) for each in zip(*group, strict=True))
        return other.run(_FORGET, (users, peers, seqs))

    async def delete(after: int) -> tuple[int | None, int]:
        rows = await lane.run(postgres(_FIND), {"after": after})
        old = [(inbox, seq, sent_by) for _, inbox, seq, sent_by in rows if inbox is not None]
        if not old:
            return rows[0][0], 0
        recorded = {
            (user_id, inbox, seq) for inbox, seq, sent_by in old for user_id in (inbox, sent_by)
        }
        await lanes.run_grouped(recorded, lambda each: each[0], forget)
        columns = array([each[0] for each in old]), array([each[1] for each in old])
        return rows[0][0], len(await lane.run(_DELETE, columns))

    return delete
