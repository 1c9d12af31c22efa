"""The PostgreSQL store: the contract, and several processes on one database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from chatd.errors import StoreUnavailable, UsernameTaken
from chatd.model import AccountChange, Draft, ReadAfter, TokenOptions
from chatd.postgres import connection
from chatd.postgres.pool import SIZE
from chatd.store import statements, token_statements
from chatd.store.postgres import accounts
from chatd.store.postgres.store import PostgresStore
from chatd.store.statements import Statement
from chatd.store.statements import postgres as converted
from tests.contracts.helpers import (
    OpenStore,
    add_accounts,
    digest,
    owners,
    read_inbox,
    send,
)
from tests.contracts.store import StoreContract
from tests.inbox_slices import expected_slice
from tests.postgres_server import Databases, connected, rows, sleep
from tests.store.postgres.stores import losing_results, store_at, two_stores


class TestPostgresStore(StoreContract):
    """The contract."""

    @pytest.fixture
    def postgres_database(self, emptied_postgres_database: str) -> str:
        return emptied_postgres_database

    @pytest.fixture
    def store_url(
        self,
        postgres: Databases,
        postgres_database: str,
        pooled: Callable[[str], str],
    ) -> str:
        return pooled(postgres.url(postgres_database))


@ensureDeferred
async def test_processes_share_all_data(open_store: OpenStore) -> None:
    one, two = await two_stores(open_store)
    assert one.epoch == two.epoch
    ann, bob = await add_accounts(one, "ann", "bob")
    await two.add_token(ann, digest("token"))
    assert await owners(one, digest("token")) == [ann]
    sent = [await send(each, ann, bob, "x") for each in (one, two, one, two)]
    assert [message.seq for message in sent] == [1, 2, 3, 4]
    assert await read_inbox(one, bob) == await read_inbox(two, bob) == sent
    with pytest.raises(UsernameTaken):
        await two.add_account("ANN", "a@example.org", "hash")


@ensureDeferred
async def test_cached_results_are_correct_while_other_processes_append(
    open_store: OpenStore,
) -> None:
    one, two = await two_stores(open_store)
    ann, bob = await add_accounts(one, "ann", "bob")
    sent = [await send(each, ann, bob, "x") for each in (one, one, two, two, one, two)]
    # Nobody tells this process what others revise.
    assert one.read_cached(ReadAfter(bob, 4, 10)) is None
    assert isinstance(one, PostgresStore)
    one.on_connected()
    sent += [await send(one, ann, bob, "x")]
    # Messages that this process wrote are cached, but there may be later ones of others.
    sent += [await send(two, ann, bob, "x")]
    query = ReadAfter(bob, 6, 10)
    assert one.read_cached(query) is None  # It does not know what was before.
    assert one.read_cached(ReadAfter(bob, 7, 10), listening=True) == expected_slice(
        sent[:7], ReadAfter(bob, 7, 10)
    )
    assert one.read_cached(ReadAfter(bob, 2, 10)) is None
    assert one.read_cached(ReadAfter(bob, 7, 10)) is None
    query = ReadAfter(bob, 7, 10)
    assert await one.read([query]) == [expected_slice(sent, query)]
    assert one.read_cached(query) == expected_slice(sent, query)
    one.on_disconnected()
    assert one.read_cached(ReadAfter(bob, 7, 10)) is None
    assert await two.delete_account(bob)
    assert await one.read([ReadAfter(bob, 0, 10)]) == [None]
    one.on_connected()
    assert one.read_cached(ReadAfter(bob, 7, 10)) is None


@ensureDeferred
async def test_writes_whose_results_were_lost_are_repeated_safely(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = store_at(postgres.url(postgres_database))
    await store.open()
    ann, bob = await add_accounts(store, "ann", "bob")
    with losing_results(store, 1):
        assert await store.delete_account(ann) is True
    assert await store.delete_account(ann) is False
    with losing_results(store, 1):
        cat = await store.add_account("cat", "c@example.org", "hash")
    assert await store.account(cat.id) == cat
    with losing_results(store, 1):
        assert await store.add_token(bob, digest("1")) is not None
    assert await owners(store, digest("1")) == [bob]
    change = AccountChange(bob, "hash of bob", "new hash", "new@x", digest("1"))
    with losing_results(store, 1):
        changed = await store.change_account(change)
    assert changed == await store.account(bob)
    assert await store.password_hashes([bob]) == {bob: "new hash"}
    with losing_results(store, 1):
        await store.delete_other_tokens(bob, digest("1"))
    with losing_results(store, 1):
        # The repetition finds nothing left to be deleted.
        assert await store.delete_token_by_id(bob, 1) is False
    assert await owners(store, digest("1")) == [None]
    await store.close()


@pytest.mark.parametrize(
    ("change", "verified"),
    [("deleted_at = 1", None), ("password_hash = 'new'", "hash of ann")],
    ids=["deletion", "new password"],
)
@ensureDeferred
async def test_adding_a_token_waits_for_a_running_change_of_the_account(
    open_store: OpenStore,
    postgres: Databases,
    postgres_database: str,
    change: str,
    verified: str | None,
) -> None:
    store = await open_store()
    [ann] = await add_accounts(store, "ann")
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "BEGIN")
        rows(db, f"UPDATE account SET {change} WHERE id = %s", ann)
        adding = store.add_token(ann, digest("token"), TokenOptions(), verified)
        # On another connection: within a transaction pg_stat_activity does not change.
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
        while not (adding.called or postgres.admin(waiting, postgres_database)):
            await sleep(0.01)
        assert not adding.called
        rows(db, "COMMIT")
        assert await adding is None
        assert rows(db, "SELECT 1 FROM token") == []


@ensureDeferred
async def test_a_token_that_another_process_locks_is_not_waited_for(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = await open_store()
    [ann] = await add_accounts(store, "ann")
    for name in ("1", "2"):
        await store.add_token(ann, digest(name))
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "BEGIN")
        rows(db, "SELECT 1 FROM token WHERE digest = %s FOR UPDATE", digest("1"))
        await store.record_seen({}, {digest("1"): 7, digest("2"): 7})
        rows(db, "COMMIT")
    assert [token.last_used_at for token in await store.tokens(ann)] == [7, None]


@ensureDeferred
async def test_tokens_and_users_are_found_by_indexes(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = await open_store()
    [ann] = await add_accounts(store, "ann")
    expected: list[tuple[Statement[Any], str]] = [
        (statements.find_users("an", 20), "account_directory"),
        (token_statements.tokens(ann, 0), "token_user_id"),
        (token_statements.delete_expired(0, 10), "token_expiry"),
        (accounts.delete_token_by_id(ann, 1, 0, "node"), "token_user_id"),
    ]
    with connected(postgres.url(postgres_database)) as db:
        rows(
            db,
            "INSERT INTO token (digest, user_id, created_at, expires_at)"
            " SELECT sha256(n::text::bytea), n %% 2, n, nullif(n %% 7, 0)"
            " FROM generate_series(1, %s) AS n",
            5000,
        )
        rows(
            db,
            "INSERT INTO account (username, username_folded, date_joined)"
            " SELECT n, n, n FROM generate_series(1, %s) AS n",
            5000,
        )
        rows(db, "ANALYZE")
        rows(db, connection._PLANNING)
        for statement, index in expected:
            with db.cursor() as cursor:
                cursor.execute(f"EXPLAIN {converted(statement.sql)}", statement.parameters)
                plan = [line for [line] in cursor.fetchall()]
            assert [line for line in plan if f"using {index} on" in line], plan
            assert not [line for line in plan if "Seq Scan" in line], plan
            assert not [line for line in plan if "Sort" in line], plan


@ensureDeferred
async def test_a_store_that_cannot_append_is_not_ready(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = await open_store()
    assert isinstance(store, PostgresStore)
    ann, bob = await add_accounts(store, "ann", "bob")
    await store.check()
    assert await store.last_seqs([0, ann, bob]) == {ann: 0, bob: 0}

    async def set_database(setting: str) -> None:
        """Change a setting for all connections of the store, which are replaced."""
        while store.pool.connections < SIZE:
            await sleep(0.01)
        before = store.pool.reconnects
        postgres.admin(f"ALTER DATABASE {postgres_database} {setting}")
        postgres.terminate(postgres_database)
        while store.pool.reconnects < before + SIZE or store.pool.connections < SIZE:
            await sleep(0.01)

    async def refuses(pattern: str) -> None:
        for work in (store.check(), store.append([Draft(ann, bob, "x")])):
            with pytest.raises(StoreUnavailable, match=pattern):
                await work

    await set_database("SET default_transaction_read_only = on")
    await refuses("read-only transaction")
    await set_database("RESET ALL")
    await store.check()
    await set_database("SET statement_timeout = '20ms'")
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "SET statement_timeout = 0")
        rows(db, "BEGIN; LOCK TABLE message IN EXCLUSIVE MODE")
        await refuses("cannot do this now")
    await set_database("RESET ALL")
    await store.check()
    assert await store.last_seqs([bob]) == {bob: 0}
