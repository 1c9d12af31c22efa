"""Deleting the rows of removed messages, and what senders and recipients have recorded of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from twisted.internet.defer import Deferred

from chatd.postgres.array_literals import array
from chatd.store.postgres.retention import REMOVED, removed_parameters
from chatd.store.removed_rows import Deleted
from chatd.store.sharded.lanes import LaneExecutor, Lanes
from chatd.store.statements import Rows, postgres

_FIND: Final = postgres(f"WITH {REMOVED} SELECT * FROM old")
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


async def delete_removed(lanes: Lanes, inboxes: Sequence[tuple[int, int]]) -> Deleted:
    """Delete rows in the lanes of the inboxes.

    What is recorded of them is in those of the senders, too. That goes first: as long as there is a
    message, it is done again.
    """

    def forget(other: LaneExecutor, group: list[tuple[int, int, int]]) -> Deferred[Rows]:
        users, peers, seqs = (array(each) for each in zip(*group, strict=True))
        return other.run(_FORGET, (users, peers, seqs))

    async def delete(lane: LaneExecutor, group: list[tuple[int, int]]) -> Deleted:
        old = await lane.run(_FIND, removed_parameters(group))
        if not old:
            return Deleted(0, more=False)
        recorded = {
            (user_id, inbox, seq) for inbox, seq, sent_by in old for user_id in (inbox, sent_by)
        }
        await lanes.run_grouped(recorded, lambda each: each[0], forget)
        columns = array([each[0] for each in old]), array([each[1] for each in old])
        return Deleted(len(await lane.run(_DELETE, columns)), more=True)

    found = await lanes.run_grouped(inboxes, lambda each: each[0], delete)
    return Deleted(sum(each.rows for each in found), any(each.more for each in found))
