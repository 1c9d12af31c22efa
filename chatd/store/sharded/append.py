"""Appending messages to inboxes of several lanes."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Final

from chatd.errors import (
    Blocked,
    DomainError,
    FirstContactClosed,
    IdempotencyKeyReused,
    InboxFull,
    InboxStorageFull,
    StoreUnavailable,
    UserNotFound,
)
from chatd.interfaces import IAnnouncer
from chatd.model import Appended, Draft, IdempotencyKey, InboxLimits
from chatd.postgres.array_literals import array
from chatd.store.postgres.append import Appender, new_batch_id
from chatd.store.results import new_messages
from chatd.store.sharded import claims
from chatd.store.sharded.claims import Key, key_of
from chatd.store.sharded.lanes import LaneExecutor, Lanes, together
from chatd.store.sharded.outbox import News, Outbox
from chatd.store.sync_statements import SENT

CLAIM_SECONDS: Final = 5.0
"""How long a batch waits for the lane of a sender."""

_REFUSED: Final = (Blocked, FirstContactClosed, InboxFull, InboxStorageFull, UserNotFound)
"""Results of drafts that were certainly not stored."""

# Those that the sender of a pair has received a message from.
_FAMILIAR: Final = """
SELECT contact.received_by, contact.sent_by FROM contact
JOIN unnest(%s::bigint[], %s::bigint[]) AS given (sent_by, received_by)
    ON contact.received_by = given.sent_by AND contact.sent_by = given.received_by
"""


class ShardedAppender:
    """Appends batches; see `Appender`, of which every lane has one, and `claims` for keys."""

    def __init__(
        self,
        lanes: Lanes,
        outbox: Outbox,
        *,
        now: Callable[[], int],
        known_only: bool,
        limits: InboxLimits,
        announcer: IAnnouncer,
    ) -> None:
        self._lanes = lanes
        self._outbox = outbox
        self._now = now
        self._known_only = known_only
        self._limits = limits
        self._announcer = announcer
        self._appenders: dict[LaneExecutor, Appender] = {}

    def of(self, lane: LaneExecutor) -> Appender:
        """The appender of a lane."""
        appender = self._appenders.get(lane)
        if appender is None:
            appender = self._appenders[lane] = Appender(
                lane,
                now=self._now,
                known_only=self._known_only,
                limits=self._limits,
                announcer=self._announcer,
                sharded=True,
            )
        return appender

    async def append(
        self, drafts: Sequence[Draft], node_id: str, within: float | None
    ) -> list[Appended | DomainError]:
        """See `IStore.append`; drafts of a lane that cannot be reached get `StoreUnavailable`."""
        left = self._lanes.coordinator.countdown(within)
        results: dict[int, Appended | DomainError] = {}
        waiting = dict(enumerate(drafts))
        while waiting:
            # Of drafts that use one key for different requests, the first goes first.
            keys: dict[Key, IdempotencyKey] = {}
            turn: dict[int, Draft] = {}
            for place, draft in waiting.items():
                key = draft.idempotency
                if key is None or keys.setdefault(key_of(draft), key) == key:
                    turn[place] = draft
            results.update(await self._append_turn(turn, keys, node_id, left))
            waiting = {place: each for place, each in waiting.items() if place not in turn}
        return [results[place] for place in range(len(drafts))]

    async def _append_turn(
        self,
        drafts: dict[int, Draft],
        keys: dict[Key, IdempotencyKey],
        node_id: str,
        left: Callable[[], float],
    ) -> dict[int, Appended | DomainError]:
        holder = new_batch_id(self._now())
        results: dict[int, Appended | DomainError] = {}
        claimed = await self._claim(keys, holder, left) if keys else {}
        for place, draft in drafts.items():
            error = None if draft.idempotency is None else claimed[key_of(draft)]
            if error is not None:
                results[place] = error
        going = {place: each for place, each in drafts.items() if place not in results}
        familiar = await self._familiar(list(going.values()), left)
        groups = self._lanes.group(going, lambda place: going[place].received_by)
        for places, found in await together(
            [
                self._append_lane(places, [going[each] for each in places], node_id, left, familiar)
                for places in groups.values()
            ]
        ):
            results.update(zip(places, found, strict=True))
        refused = {key_of(drafts[p]) for p in going if drafts[p].idempotency} - {
            key_of(drafts[p])
            for p in going
            if drafts[p].idempotency and not isinstance(results[p], _REFUSED)
        }
        if refused:
            await self._release(sorted(refused), holder)
        return results

    async def _claim(
        self, keys: dict[Key, IdempotencyKey], holder: str, left: Callable[[], float]
    ) -> dict[Key, DomainError | None]:
        """Why each key cannot be used, None if it can."""

        async def claim(lane: LaneExecutor, group: list[Key]) -> dict[Key, DomainError | None]:
            mine = {key: keys[key] for key in group}
            try:
                found = await claims.claim(lane, mine, holder, min(left(), CLAIM_SECONDS))
            except StoreUnavailable as error:
                return dict.fromkeys(group, error)
            reused = IdempotencyKeyReused("this key was used for a message that differs")
            return {key: None if key in found else reused for key in group}

        results: dict[Key, DomainError | None] = {}
        for each in await self._lanes.run_grouped(keys, lambda key: key[0], claim):
            results.update(each)
        return results

    async def _release(self, keys: Sequence[Key], holder: str) -> None:
        async def release(lane: LaneExecutor, group: list[Key]) -> None:
            try:
                await claims.release(lane, group, holder)
            except StoreUnavailable:
                pass  # Nobody else can use the key until its claim expires.

        await self._lanes.run_grouped(keys, lambda key: key[0], release)

    async def _familiar(
        self, drafts: Sequence[Draft], left: Callable[[], float]
    ) -> Container[tuple[int, int]]:
        """Pairs of sender and recipient of which the recipient has written to the sender."""
        if not self._known_only:
            return ()
        pairs = {(each.sent_by, each.received_by) for each in drafts}

        async def find(lane: LaneExecutor, group: list[tuple[int, int]]) -> set[tuple[int, int]]:
            columns = array([pair[0] for pair in group]), array([pair[1] for pair in group])
            return set(await lane.run(_FAMILIAR, columns, prepare=True, deadline=left()))

        found = await self._lanes.run_grouped(pairs, lambda pair: pair[0], find)
        return set().union(*found)

    async def _append_lane(
        self,
        places: list[int],
        drafts: list[Draft],
        node_id: str,
        left: Callable[[], float],
        familiar: Container[tuple[int, int]],
    ) -> tuple[list[int], Sequence[Appended | DomainError]]:
        """Append drafts to inboxes of one lane, and tell the senders; returns the places, too."""
        batches: list[tuple[int, str]] = []
        try:
            results = await self.of(self._lanes.of(drafts[0].received_by)).append(
                drafts,
                node_id,
                left(),
                familiar=familiar,
                on_batch=lambda batch_id, owner: batches.append((owner, batch_id)),
            )
        except StoreUnavailable as error:
            return places, [error] * len(drafts)
        news = [
            News(each.sent_by, SENT, each.received_by, each.seq, each.sent_at)
            for each in new_messages(results)
        ]
        if news:
            await self._outbox.tell(news, batches, left())
        return places, results
