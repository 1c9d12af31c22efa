"""Accounts and their names in the sharded layout.

A name and its account are in different lanes. Whoever registers first reserves the name for the id
of the new account, then adds the account. If that ends in between, the name is taken over by
whoever wants it next: a closed row with the id makes sure that the first account is never added.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, TypeVar

from twisted.internet.defer import Deferred

from chatd.model import Account, AccountState, Credentials, EncodedRows, UserName
from chatd.postgres.array_literals import array
from chatd.store import admin_statements, statements
from chatd.store.postgres import accounts
from chatd.store.postgres.contacts import ENCODE
from chatd.store.postgres.retry import RetryingExecutor
from chatd.store.results import username_taken
from chatd.store.sharded.lanes import LaneExecutor, Lanes, together
from chatd.store.sharded.tables import ALLOCATION, username_slot
from chatd.store.statements import PURGE_STEP, Rows, Statement, encoded, postgres
from chatd.store.sync_statements import FORGET_DELETED_PEER_OF

T = TypeVar("T")

IDS: Final = 100
"""Ids that a process takes at once."""

_TAKE_IDS: Final = f"UPDATE {ALLOCATION} SET next_id = next_id + {IDS} RETURNING next_id - {IDS}"

# The last statement sees whose name it is, also if another transaction has just reserved it.
_RESERVE: Final = postgres("""
INSERT INTO username (slot, folded, user_id) VALUES (:slot, :folded, :user_id)
ON CONFLICT DO NOTHING;
SELECT user_id FROM username WHERE slot = :slot AND folded = :folded
""")
# Returns whether there is or was an account. If not, there never will be.
_FENCE: Final = postgres("""
INSERT INTO account (id, username, username_folded, date_joined, deleted_at)
VALUES (:user_id, '', '', :at, :at) ON CONFLICT DO NOTHING;
SELECT username <> '' FROM account WHERE id = :user_id
""")
_TAKE_OVER: Final = postgres("""
UPDATE username SET user_id = :user_id
WHERE slot = :slot AND folded = :folded AND user_id = :fenced
""")
_ADD: Final = postgres("""
WITH added AS (
    INSERT INTO account (id, username, username_folded, email, password_hash, date_joined)
    VALUES (:user_id, :username, :folded, :email, :hash, :at)
    ON CONFLICT DO NOTHING RETURNING id
), opened AS (
    INSERT INTO inbox (user_id, last_seq, last_sent_at) SELECT id, 0, 0 FROM added
)
SELECT id FROM added
UNION ALL
SELECT id FROM account WHERE id = :user_id AND password_hash = :hash AND date_joined = :at
""")
_OWNER: Final = postgres("SELECT user_id FROM username WHERE slot = :slot AND folded = :folded")

_BLOCKED_IDS: Final = "SELECT blocked_id FROM block WHERE user_id = %s"
# One row of each lane: Python would take longer with ten thousand. Names have neither spaces nor
# commas.
_NAMES: Final = (
    "SELECT string_agg(id || ' ' || username, ',') AS users FROM account"
    " WHERE id = ANY(%s::bigint[]) AND deleted_at IS NULL"
)
_ENCODE_BLOCKS: Final = f"""
{ENCODE} FROM (
    SELECT split_part(each, ' ', 1) AS blocked_id, split_part(each, ' ', 2) AS username
    FROM unnest(string_to_array(:users, ',')) AS each
) AS found
"""

_TO_BE_PURGED: Final = "SELECT user_id FROM purge LIMIT 1"
_STRANGERS: Final = postgres(
    "SELECT sent_by FROM contact WHERE received_by = :user_id ORDER BY sent_by LIMIT :step"
)


class ShardedAccounts:
    """Accounts, looked up by id and by name."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._ids = IdAllocator(lanes.coordinator)

    async def add(self, username: str, email: str, password_hash: str, at: int) -> Account:
        """See `IStore.add_account`; `at` is unique to the call."""
        folded = username.lower()
        slot = username_slot(folded)
        name = {"slot": slot, "folded": folded}
        user_id = await self._ids.next()
        while True:
            of_name = self._lanes.of(slot)
            [[owner]] = await of_name.run(_RESERVE, {**name, "user_id": user_id})
            if owner == user_id:
                break
            [[exists]] = await self._lanes.of(owner).run(_FENCE, {"user_id": owner, "at": at})
            if exists:
                raise username_taken(username)
            await of_name.run(_TAKE_OVER, {**name, "user_id": user_id, "fenced": owner})
        parameters = {"user_id": user_id, "username": username, "folded": folded}
        parameters |= {"email": email, "hash": password_hash, "at": at}
        if not await self._lanes.of(user_id).run(_ADD, parameters):
            # Somebody else has taken the name over.
            raise username_taken(username)
        return Account(user_id, username, email, at, None)

    async def _id_of(self, username: str) -> int | None:
        """The id of the account with that name, None if there is none; it may be deleted."""
        folded = username.lower()
        slot = username_slot(folded)
        rows = await self._lanes.of(slot).run(_OWNER, {"slot": slot, "folded": folded})
        return rows[0][0] if rows else None

    async def named(self, username: str) -> Account | None:
        """See `IStore.account_named`."""
        return await self._find_named(
            username, statements.account_named(username, accounts.ACCOUNTS)
        )

    async def credentials(self, username: str) -> Credentials | None:
        """See `IStore.credentials`."""
        return await self._find_named(username, statements.credentials(username))

    async def state_named(self, username: str, now: int) -> AccountState | None:
        """See `IAdminStore.account_named`."""
        return await self._find_named(
            username, admin_statements.account_named(username, now, accounts.ACCOUNTS)
        )

    async def _find_named(self, username: str, statement: Statement[T | None]) -> T | None:
        """The result of a statement that looks up a name, where its account is."""
        user_id = await self._id_of(username)
        return None if user_id is None else await self._lanes.of(user_id).execute(statement)

    async def states(self, after: int, limit: int, now: int) -> list[AccountState]:
        """See `IAdminStore.accounts`."""
        statement = admin_statements.accounts(after, limit, now, accounts.ACCOUNTS)
        found = await together([lane.execute(statement) for lane in self._lanes])
        return sorted(
            (state for states in found for state in states), key=lambda state: state.account.id
        )[:limit]

    async def find(self, prefix: str, limit: int) -> list[UserName]:
        """See `IStore.find_users`."""
        statement = statements.find_users(prefix, limit)
        found = await together([lane.execute(statement) for lane in self._lanes])
        users = (user for users in found for user in users)
        return sorted(users, key=lambda user: user.username.lower())[:limit]

    async def password_hashes(self, user_ids: Collection[int]) -> dict[int, str]:
        """See `IStore.password_hashes`."""
        found: dict[int, str] = {}
        for part in await self._lanes.run_grouped(user_ids, _itself, accounts.password_hashes):
            found.update(part)
        return found

    async def blocks(self, user_id: int) -> EncodedRows:
        """See `IStore.blocks`."""
        own = self._lanes.of(user_id)
        rows = await own.run(_BLOCKED_IDS, (user_id,))

        def names(lane: LaneExecutor, ids: list[int]) -> Deferred[Rows]:
            return lane.run(_NAMES, (array(ids),))

        found = await self._lanes.run_grouped([row[0] for row in rows], _itself, names)
        users = ",".join([text for [(text,)] in found if text])
        return await own.execute(Statement(_ENCODE_BLOCKS, {"users": users}, encoded))

    async def delete(self, user_id: int, at: int, erase: bool) -> bool:
        """See `IStore.delete_account`."""
        lane = self._lanes.of(user_id)
        existed = await lane.execute(accounts.delete_account_in_lane(user_id, at, erase))
        if existed:
            # The others follow when they are purged.
            await self._forget(lane, user_id)
        return existed

    async def _forget(self, lane: LaneExecutor, user_id: int) -> None:
        """Have those who wrote to a deleted account forget what they know of its inbox."""
        rows = await lane.run(_STRANGERS, {"user_id": user_id, "step": PURGE_STEP})

        def forget(other: LaneExecutor, group: list[int]) -> Deferred[Rows]:
            parameters = {"user_id": user_id, "users": array(group)}
            return other.run(postgres(FORGET_DELETED_PEER_OF), parameters)

        await self._lanes.run_grouped([row[0] for row in rows], _itself, forget)

    async def purge_step(self) -> bool:
        """See `Layout.purge_step`."""
        found, _ = await self._lanes.reachable(self._purge)
        return any(found)

    async def _purge(self, lane: LaneExecutor) -> bool:
        rows = await lane.run(_TO_BE_PURGED)
        if not rows:
            return False
        [[user_id]] = rows
        # The contacts that the step deletes are these, or fewer.
        await self._forget(lane, user_id)
        return await lane.execute(accounts.purge(user_id))


class IdAllocator:
    """Hands out ids of accounts, in blocks that this process takes from the coordinator."""

    def __init__(self, coordinator: RetryingExecutor) -> None:
        self._coordinator = coordinator
        self._next = self._end = 0
        self._taking: list[Deferred[None]] | None = None

    async def next(self) -> int:
        """An id that was never used and is never used again."""
        while self._next == self._end:
            await self._take()
        self._next += 1
        return self._next - 1

    async def _take(self) -> None:
        if self._taking is not None:
            waiter: Deferred[None] = Deferred()
            self._taking.append(waiter)
            await waiter
            return
        waiters = self._taking = []
        try:
            [[first]] = await self._coordinator.run(_TAKE_IDS)
            self._next, self._end = first, first + IDS
        finally:
            self._taking = None
            for each in waiters:
                each.callback(None)


def _itself(user_id: int) -> int:
    return user_id
