"""Reading inboxes on PostgreSQL: one statement for the queries of many users."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

from chatd.model import MAX_INTEGER, InboxSlice, Message, ReadAfter, ReadPage
from chatd.postgres.array_literals import array
from chatd.store.postgres.retry import Executor
from chatd.store.results import inbox_slice, wanted_seqs
from chatd.store.statements import MESSAGE, within_bytes

# The same as `chatd.store.results.wanted_seqs`, but in SQL, where the last seq is known. A range of
# `size` messages begins after `low`, or if that is NULL, `back` + `size` before the end. A `stamp`
# other than that of the end is looked up: once, because of OFFSET, not for each message.
_READ: Final = """
SELECT place, last_seq, stamp, found.*
FROM unnest(
    %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[]
) WITH ORDINALITY AS query (user_id, low, back, size, at, max_bytes, place)
JOIN inbox ON inbox.user_id = query.user_id AND NOT closed
CROSS JOIN LATERAL (
    SELECT coalesce(low, last_seq - back - size) AS first, CASE
        WHEN coalesce(at, last_seq) = last_seq THEN last_sent_at
        WHEN at = removed_seq THEN removed_at
        WHEN at = 0 THEN 0
        WHEN at < last_seq THEN (
            SELECT sent_at FROM message WHERE received_by = query.user_id AND seq = at
        )
    END AS stamp
    OFFSET 0
) AS begin
LEFT JOIN LATERAL (
    SELECT {columns} FROM message
    WHERE received_by = query.user_id AND seq > first AND seq <= first + size
    ORDER BY seq LIMIT size
) AS found ON true
ORDER BY place, seq
"""
READ_PAGES: Final = _READ.format(columns=MESSAGE)
READ: Final = _READ.format(columns=within_bytes("seq", "message", "max_bytes"))

_LAST_SEQS: Final = """
SELECT user_id, last_seq FROM inbox WHERE user_id = ANY(%s::bigint[]) AND NOT closed
"""

_REMOVED: Final = "SELECT user_id, removed_seq FROM inbox WHERE removed_seq > 0 AND NOT closed"

_BEYOND: Final = 2**62


async def read(
    executor: Executor, queries: Sequence[ReadAfter | ReadPage], deadline: float
) -> list[InboxSlice | None]:
    """See `IStore.read`; fails after `deadline` seconds."""
    if not queries:
        return []
    # Pages have all their messages, and to count bytes takes a seventh longer.
    pages = all(isinstance(query, ReadPage) for query in queries)
    rows = await executor.run(
        READ_PAGES if pages else READ, parameters_of(queries), prepare=True, deadline=deadline
    )
    return _slices(queries, rows)


async def removed(executor: Executor, deadline: float | None = None) -> dict[int, int]:
    """See `IStore.removed`."""
    return dict(await executor.run(_REMOVED, deadline=deadline))


async def last_seqs(executor: Executor, user_ids: Collection[int]) -> dict[int, int]:
    """See `IStore.last_seqs`."""
    return dict(await executor.run(_LAST_SEQS, (array(user_ids),)))


def parameters_of(queries: Sequence[ReadAfter | ReadPage]) -> tuple[str, ...]:
    """The parameters of `READ` and `READ_PAGES`."""
    lows: list[int | None] = []
    backs: list[int] = []
    sizes: list[int] = []
    ats = [query.seq if isinstance(query, ReadAfter) else query.at for query in queries]
    for query in queries:
        low: int | None = None
        back = 0
        size = query.limit
        if isinstance(query, ReadPage):
            back = (query.page - 1) * query.limit
            if query.at is not None:
                low = query.at - back - size
        elif query.seq is None:
            size = 0
        else:
            low = query.seq
        lows.append(low)
        backs.append(min(back, _BEYOND))
        sizes.append(size)
    users = array([query.user_id for query in queries])
    max_bytes = [
        query.max_bytes if isinstance(query, ReadAfter) else MAX_INTEGER for query in queries
    ]
    return users, array(lows), array(backs), array(sizes), array(ats), array(max_bytes)


def _slices(
    queries: Sequence[ReadAfter | ReadPage], rows: Iterable[tuple[Any, ...]]
) -> list[InboxSlice | None]:
    ends: list[tuple[int, int | None] | None] = [None] * len(queries)
    messages: list[list[Message]] = [[] for _ in queries]
    for row in rows:
        place = row[0] - 1
        ends[place] = (row[1], row[2])
        if row[3] is not None:
            messages[place].append(Message(*row[3:]))
    return [
        None
        if end is None
        else inbox_slice(query, end[0], found if wanted_seqs(query, end[0]) else (), end[1])
        for query, end, found in zip(queries, ends, messages, strict=True)
    ]
