"""Telling senders what was committed in the lanes of their recipients.

A transaction that stores or changes messages also writes what their senders have to be told: the
row of `batch` that a repetition finds. Its process tells them after the commit, then deletes the
row. If it dies in between, any process finds the row later. To be told twice does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from chatd.errors import StoreUnavailable
from chatd.interfaces import IAnnouncer
from chatd.postgres.array_literals import array, texts
from chatd.store.postgres.retry import DEADLINE_SECONDS
from chatd.store.postgres.silent import silent
from chatd.store.postgres.sync_sql import SENT_COLUMNS, logging, summarising
from chatd.store.sharded.lanes import LaneExecutor, Lanes
from chatd.store.statements import Rows
from chatd.store.sync_statements import SENT

TELL_SECONDS: Final = 2.0
"""How long a send waits for the lane of its sender after its message is stored."""
FLUSH_SECONDS: Final = 1.0
RECOVER_SECONDS: Final = 10.0
RECOVER_STEP: Final = 100
_RECOVER_AFTER_SECONDS: Final = DEADLINE_SECONDS + 5
"""The process of a row that is older has given up."""

_log = Logger()


class News(NamedTuple):
    """What an account has to be told; the columns of `change`, and when it was sent or 0."""

    user_id: int
    kind: str
    peer: int
    seq: int
    sent_at: int


# Accounts without changes are told nothing. Messages up to `logged_after` are none, see
# `chatd.store.sharded.sync_store`.
_TELL: Final = silent(f"""
WITH news AS MATERIALIZED (
    SELECT given.*
    FROM unnest(%(users)s::bigint[], %(kinds)s::text[], %(peers)s::bigint[], %(seqs)s::bigint[],
                %(times)s::bigint[]) AS given (user_id, kind, peer, seq, sent_at)
    JOIN sync_state ON sync_state.user_id = given.user_id
    LEFT JOIN conversation_summary AS summary
        ON summary.user_id = given.user_id AND summary.peer = given.peer
    WHERE kind <> '{SENT}' OR (given.seq > coalesce(logged_after, 0) AND NOT EXISTS (
        SELECT FROM change
        WHERE change.user_id = given.user_id AND change.kind = given.kind
            AND change.peer = given.peer AND change.seq = given.seq
    ))
), {logging("news")}, summarised AS ({
    summarising((f"news WHERE kind = '{SENT}'", "user_id, peer", SENT_COLUMNS))
})
SELECT user_id FROM counted
""")

_DELETE: Final = """
DELETE FROM batch USING unnest(%s::bigint[], %s::uuid[]) AS told (owner, id)
WHERE batch.owner = told.owner AND batch.id = told.id
"""
_FIND: Final = f"""
SELECT owner, id, seqs, times, senders, recipients, kind FROM batch
WHERE NOT told AND id < %s::uuid LIMIT {RECOVER_STEP}
"""
_SET_TOLD: Final = """
UPDATE batch SET told = true FROM unnest(%s::bigint[], %s::uuid[]) AS given (owner, id)
WHERE batch.owner = given.owner AND batch.id = given.id
"""


class Outbox:
    """Tells senders; `now` returns microseconds since the Unix epoch."""

    def __init__(
        self, lanes: Lanes, reactor: Any, now: Callable[[], int], announcer: IAnnouncer
    ) -> None:
        self._lanes = lanes
        self._reactor = reactor
        self._now = now
        self._announcer = announcer
        self._told: list[tuple[int, str]] = []
        self._flushing: Any = None
        self._running: set[Deferred[None]] = set()
        self._timer = LoopingCall(lambda: Deferred.fromCoroutine(self._recover()))
        self._timer.clock = reactor
        self._stopped: Deferred[LoopingCall] | None = None

    def start(self) -> None:
        """Look for what other processes have left, now and periodically."""
        self._stopped = self._timer.start(RECOVER_SECONDS)

    async def stop(self) -> None:
        """End what is running; what is left is found by others."""
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            self._timer.stop()
            await stopped
        if self._flushing is not None:
            self._flushing.cancel()
            self._start_flush()
        for each in tuple(self._running):
            await each

    async def tell(
        self, news: Sequence[News], batches: Sequence[tuple[int, str]], deadline: float
    ) -> None:
        """Tell accounts what these batches, pairs of owner and id, have committed.

        It fails silently: then it is done later.
        """
        try:
            await self._tell(news, min(deadline, TELL_SECONDS))
        except StoreUnavailable:
            return
        self._told += batches
        if self._flushing is None and self._stopped is not None:
            self._flushing = self._reactor.callLater(FLUSH_SECONDS, self._start_flush)

    async def _tell(self, news: Sequence[News], deadline: float) -> None:
        async def tell(lane: LaneExecutor, group: list[News]) -> Rows:
            parameters = {
                "users": array([each.user_id for each in group]),
                "kinds": texts([each.kind for each in group]),
                "peers": array([each.peer for each in group]),
                "seqs": array([each.seq for each in group]),
                "times": array([each.sent_at for each in group]),
            }
            return await lane.run(_TELL, parameters, prepare=True, deadline=deadline)

        found = await self._lanes.run_grouped(news, lambda each: each.user_id, tell)
        told = [user_id for rows in found for (user_id,) in rows]
        if told:
            self._announcer.announce_changes(told)

    def _start_flush(self) -> None:
        self._flushing = None
        told, self._told = self._told, []
        flushing = Deferred.fromCoroutine(self._delete(told))
        self._running.add(flushing)
        flushing.addBoth(lambda _: self._running.discard(flushing))

    async def _delete(self, told: Sequence[tuple[int, str]]) -> None:
        try:
            await self._lanes.run_grouped(
                told, lambda each: each[0], lambda lane, group: lane.run(_DELETE, _columns(group))
            )
        except StoreUnavailable:
            pass  # They are told once more.
        except Exception:
            _log.failure("batches that were told could not be deleted")

    async def _recover(self) -> None:
        before = self._now() - int(_RECOVER_AFTER_SECONDS * 1_000_000)
        oldest = f"{before << 64:032x}"
        try:
            await self._lanes.reachable(lambda lane: self._recover_lane(lane, oldest))
        except Exception:
            _log.failure("what other processes have left could not be told")

    async def _recover_lane(self, lane: LaneExecutor, before: str) -> None:
        while self._stopped is not None:
            found = await lane.run(_FIND, (before,))
            if not found:
                break
            news = [
                News(sender, kind, recipient, seq, sent_at)
                for _, _, seqs, times, senders, recipients, kind in found
                for sender, recipient, seq, sent_at in zip(
                    senders, recipients, seqs, times, strict=True
                )
            ]
            await self._tell(news, DEADLINE_SECONDS)
            await lane.run(_SET_TOLD, _columns([(row[0], row[1]) for row in found]))


def _columns(batches: Sequence[tuple[int, str]]) -> tuple[str, str]:
    return (
        array([owner for owner, _ in batches]),
        texts([str(batch_id) for _, batch_id in batches]),
    )
