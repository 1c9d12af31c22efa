"""Reading inboxes on PostgreSQL: one statement for the queries of many users."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

from chatd.model import InboxSlice, Message, ReadAfter, ReadPage
from chatd.postgres.array_literals import array
from chatd.store.postgres.retry import RetryingExecutor
from chatd.store.results import inbox_slice, wanted_seqs
from chatd.store.statements import MESSAGE

# The same as `chatd.store.results.wanted_seqs`, but in SQL, where the last seq is known. A range of
# `size` messages begins after `low`, or if that is NULL, `back` + `size` before the end.
READ: Final = f"""
SELECT place, last_seq, found.*
FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])
    WITH ORDINALITY AS query (user_id, low, back, size, place)
JOIN inbox ON inbox.user_id = query.user_id AND NOT closed
CROSS JOIN LATERAL (SELECT coalesce(low, last_seq - back - size) AS first) AS begin
LEFT JOIN LATERAL (
    SELECT {MESSAGE} FROM message
    WHERE received_by = query.user_id AND seq > first AND seq <= first + size
    ORDER BY seq LIMIT size
) AS found ON true
ORDER BY place, seq
"""

_LAST_SEQS: Final = """
SELECT user_id, last_seq FROM inbox WHERE user_id = ANY(%s::bigint[]) AND NOT closed
"""

_REMOVED: Final = "SELECT user_id, removed_seq FROM inbox WHERE removed_seq > 0 AND NOT closed"

_BEYOND: Final = 2**62


async def read(
    executor: RetryingExecutor, queries: Sequence[ReadAfter | ReadPage]
) -> list[InboxSlice | None]:
    """See `IStore.read`."""
    if not queries:
        return []
    return _slices(queries, await executor.run(READ, parameters_of(queries), prepare=True))


async def removed(executor: RetryingExecutor) -> dict[int, int]:
    """See `IStore.removed`."""
    return dict(await executor.run(_REMOVED))


async def last_seqs(executor: RetryingExecutor, user_ids: Collection[int]) -> dict[int, int]:
    """See `IStore.last_seqs`."""
    return dict(await executor.run(_LAST_SEQS, (array(user_ids),)))


def parameters_of(queries: Sequence[ReadAfter | ReadPage]) -> tuple[str, str, str, str]:
    """The parameters of `READ`."""
    lows: list[int | None] = []
    backs: list[int] = []
    sizes: list[int] = []
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
    return users, array(lows), array(backs), array(sizes)


def _slices(
    queries: Sequence[ReadAfter | ReadPage], rows: Iterable[tuple[Any, ...]]
) -> list[InboxSlice | None]:
    last_seqs: list[int | None] = [None] * len(queries)
    messages: list[list[Message]] = [[] for _ in queries]
    for row in rows:
        place = row[0] - 1
        last_seqs[place] = row[1]
        if row[2] is not None:
            messages[place].append(Message(*row[2:]))
    return [
        None
        if last is None
        else inbox_slice(query, last, found if wanted_seqs(query, last) else ())
        for query, last, found in zip(queries, last_seqs, messages, strict=True)
    ]
