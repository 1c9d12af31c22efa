"""Appending messages on PostgreSQL: one statement per batch, executed once even if retried."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any, Final

import psycopg2.errors

from chatd.errors import DomainError, StoreUnavailable
from chatd.interfaces import IAnnouncer
from chatd.model import Appended, Draft, InboxLimits
from chatd.postgres.array_literals import array, booleans, texts
from chatd.postgres.connection import Rows
from chatd.postgres.notify_payloads import CHANNEL, messages_prefix
from chatd.store.known_pairs import KnownPairs
from chatd.store.postgres import append_sql
from chatd.store.postgres.retry import Executor
from chatd.store.results import (
    blocked,
    first_contact_closed,
    first_use,
    inbox_full,
    inbox_storage_full,
    replayed,
    user_not_found,
)
from chatd.store.statements import KEY_NAME, delete_old_keys

BATCH_SECONDS: Final = 900
"""How long the result of a batch is stored; far longer than a statement is retried."""

_BATCH_KEY: Final = "batch_pkey"
_IDEMPOTENCY_KEY: Final = "idempotency_pkey"

DELETE_KEYS_STEP: Final = 1000
"""Keys deleted per transaction, which take 10 to 20 ms."""
MAX_KNOWN_SYNCHRONISED: Final = 200_000

_REFUSALS: Final = {
    append_sql.BLOCKED: blocked,
    append_sql.UNKNOWN: first_contact_closed,
    append_sql.FULL: inbox_full,
    append_sql.LARGE: inbox_storage_full,
}

_DELETE_OLD_BATCHES: Final = "DELETE FROM batch WHERE id < %s::uuid"


class Appender:
    """Appends batches of messages.

    `now` returns microseconds since the Unix epoch; it is used for the ids of batches, while
    messages have the server's time. For `known_only` and `limits` see `PostgresStore`. With an
    `announcer` the database notifies nobody: changes are announced here, messages by the caller. If
    it is `sharded`, the executor is that of the lane of the recipients.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        now: Callable[[], int],
        known_only: bool = False,
        limits: InboxLimits,
        announcer: IAnnouncer | None = None,
        sharded: bool = False,
    ) -> None:
        self._announcer = announcer
        self._sharded = sharded
        self._executor = executor
        self._now = now
        self._known_only = known_only
        self._limits = limits
        self._pairs = KnownPairs()
        # Accounts that are known to have changes; without them a batch may be refused once.
        self._synchronised: set[int] = set()

    async def append(
        self,
        drafts: Sequence[Draft],
        node_id: str,
        within: float | None = None,
        *,
        familiar: Container[tuple[int, int]] = (),
        on_batch: Callable[[str, int], None] = lambda batch_id, owner: None,
    ) -> list[Appended | DomainError]:
        """See `IStore.append`; one transaction per lane. `node_id` is the sender of the notices.

        If it is sharded, `familiar` are pairs of sender and recipient of which the recipient has
        written to the sender, and `on_batch` is called for each batch that may have been stored,
        with its id and owner.
        """
        left = self._executor.countdown(within)
        prefix = messages_prefix(node_id)
        results: dict[int, Appended | DomainError] = {}
        remaining = list(range(len(drafts)))
        while remaining:
            batch = [drafts[place] for place in remaining]
            rows = await self._append_once(batch, prefix, left, familiar, on_batch)
            retry = []
            for place, result in zip(remaining, _results(batch, rows), strict=True):
                if result is None:
                    retry.append(place)
                else:
                    results[place] = result
            remaining = retry
        return [results[place] for place in range(len(drafts))]

    async def _append_once(
        self,
        drafts: Sequence[Draft],
        prefix: str,
        left: Callable[[], float],
        familiar: Container[tuple[int, int]],
        on_batch: Callable[[str, int], None],
    ) -> Rows:
        """Execute a batch once, even if its statement has to be sent several times."""
        batch_id = new_batch_id(self._now())
        parameters = parameters_of(drafts, batch_id, prefix, self._limits)
        if self._sharded:
            on_batch(batch_id, drafts[0].received_by)
            parameters["participants"] = array({draft.received_by for draft in drafts})
            parameters["familiar"] = booleans(
                [(draft.sent_by, draft.received_by) in familiar for draft in drafts]
            )
        keyed = any(draft.idempotency is not None for draft in drafts)
        pairs = self._pairs.unknown(drafts)
        linked = bool(pairs) or self._has_synchronised(drafts)
        # Each attempt sees at least one key that the attempt before did not, or is the only one
        # that finds accounts with changes.
        for _ in range(len(drafts) + 2):
            statement = append_sql.append(
                keyed=keyed,
                known_only=self._known_only,
                linked=linked,
                notifying=self._announcer is None,
                sharded=self._sharded,
            )
            try:
                rows = await self._executor.run(
                    statement, parameters, prepare=True, deadline=left()
                )
            except psycopg2.errors.UniqueViolation as violation:
                # That of a shard has its number at the end. Citus passes on only the text.
                diagnostics = violation.diag
                constraint = diagnostics.constraint_name or diagnostics.message_primary or ""
                if _BATCH_KEY in constraint:
                    # An earlier attempt was committed, but its result was lost on the way. What
                    # it has not stored is tried again.
                    replay = append_sql.replay(sharded=self._sharded)
                    rows = await self._executor.run(replay, parameters, deadline=left())
                    if self._announcer is not None:
                        # Some of them may have no changes.
                        self._announcer.announce_changes({draft.sent_by for draft in drafts})
                    found = {row[0] for row in rows}
                    places = range(1, len(drafts) + 1)
                    return rows + [
                        (place, None, None, None) for place in places if place not in found
                    ]
                if _IDEMPOTENCY_KEY not in constraint:
                    raise
                # Another process has just used one of the keys: the next attempt will see it.
                continue
            synchronised = [row[1] for row in rows if not row[0]]
            if synchronised:
                linked = True
                self._add_synchronised(synchronised)
                continue
            if linked and self._announcer is not None:
                self._announcer.announce_changes([row[1] for row in rows if row[0] < 0])
                rows = [row for row in rows if row[0] > 0]
            if pairs:
                # A row of an earlier use of a key may be for another recipient.
                used = {row[0] for row in rows if len(row) > 4 and row[4] is not None}
                stored = [row[0] for row in rows if row[1] is not None and row[0] not in used]
                self._pairs.add([pairs[place] for place in stored if place in pairs])
            return rows
        raise StoreUnavailable("others are using the same Idempotency-Keys", retry_after=1)

    def _has_synchronised(self, drafts: Sequence[Draft]) -> bool:
        known = self._synchronised
        return bool(known) and any(
            draft.received_by in known or (draft.sent_by in known and not self._sharded)
            for draft in drafts
        )

    def _add_synchronised(self, user_ids: Iterable[int]) -> None:
        if len(self._synchronised) > MAX_KNOWN_SYNCHRONISED:
            self._synchronised.clear()
        self._synchronised.update(user_ids)

    async def check(self, deadline: float) -> None:
        """Append to an inbox that does not exist: `StoreUnavailable` if nothing can be stored."""
        parameters = parameters_of([Draft(0, 0, "")], new_batch_id(self._now()), "", self._limits)
        sql = append_sql.append(keyed=False, known_only=False, linked=False, sharded=self._sharded)
        await self._executor.run(sql, parameters, prepare=True, deadline=deadline)

    async def delete_old(self, now: int) -> None:
        """Delete idempotency keys and results of batches that are old at that time."""
        by_recipient = "received_by, key, sent_by"
        columns = by_recipient if self._sharded else KEY_NAME
        while await self._executor.execute(delete_old_keys(now, DELETE_KEYS_STEP, columns)):
            pass
        old = now - BATCH_SECONDS * 1_000_000
        await self._executor.run(_DELETE_OLD_BATCHES, (f"{old << 64:032x}",))


def new_batch_id(now: int) -> str:
    """A new id for a batch, as hexadecimal digits: 64 bits of time, then 64 random bits."""
    return f"{now << 64 | secrets.randbits(64):032x}"


def parameters_of(
    drafts: Sequence[Draft], id: str, prefix: str, limits: InboxLimits
) -> dict[str, Any]:
    """The parameters of the statements in `append_sql`."""
    keys = [draft.idempotency for draft in drafts]
    return {
        "id": id,
        "channel": CHANNEL,
        "origin": prefix,
        "max_messages": limits.messages,
        "max_bytes": limits.bytes,
        "senders": array([draft.sent_by for draft in drafts]),
        "recipients": array([draft.received_by for draft in drafts]),
        "participants": array({id for each in drafts for id in (each.sent_by, each.received_by)}),
        "texts": texts([draft.text for draft in drafts]),
        "keys": texts([None if key is None else key.key for key in keys]),
        "fingerprints": array([None if key is None else key.fingerprint for key in keys]),
    }


def _results(
    drafts: Sequence[Draft], rows: Iterable[tuple[Any, ...]]
) -> list[Appended | DomainError | None]:
    """The result of each draft; None if it has to be retried.

    That is the case if its recipient's blocks were changed meanwhile, or if another draft with the
    same key went first, but lost its recipient to a concurrent deletion.
    """
    rows_by_place = {row[0]: row for row in rows}
    results: list[Appended | DomainError | None] = []
    keys: dict[tuple[int, str], tuple[bytes, int, int]] = {}
    for place, draft in enumerate(drafts, 1):
        idempotency = draft.idempotency
        key = None if idempotency is None else (draft.sent_by, idempotency.key)
        if key is not None and key in keys:
            # Whoever the recipient is: the key was used by an earlier draft.
            results.append(replayed(draft, *keys[key]))
            continue
        row = rows_by_place.get(place)
        if row is None:
            results.append(user_not_found(draft.received_by))
            continue
        seq, sent_at, refusal = row[1:4]
        if refusal is not None:
            results.append(_REFUSALS[refusal](draft.received_by))
        elif len(row) > 4 and row[4] is not None:
            state = None if row[5] is None else (row[5], row[6], row[7])
            results.append(replayed(draft, bytes(row[4]), seq, sent_at, state))
        elif seq is not None:
            results.append(first_use(draft, seq, sent_at))
            if idempotency is not None and key is not None:
                keys[key] = (idempotency.fingerprint, seq, sent_at)
        else:
            results.append(None)
    return results
