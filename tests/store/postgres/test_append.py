"""Appending from several processes, and when results are lost."""

from __future__ import annotations

import psycopg2.errors
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from chatd.errors import (
    IdempotencyKeyReused,
    StoreUnavailable,
    UserNotFound,
)
from chatd.model import Appended, Draft, InboxLimits, InboxSlice, ReadAfter, ReadPage
from chatd.store.postgres import accounts, append_sql, chats, revisions, sync_sql
from chatd.store.postgres.append import new_batch_id, parameters_of
from chatd.store.postgres.silent import silent
from chatd.store.postgres.store import PostgresStore
from chatd.store.results import RANDOM_MICROSECONDS
from tests.contracts.helpers import (
    OpenStore,
    add_accounts,
    appended,
    draft,
    read_inbox,
    send,
    send_many,
)
from tests.examples import examples
from tests.postgres_server import Databases, connected, rows, sleep
from tests.store.postgres.plans import plan
from tests.store.postgres.stores import losing_results, store_at, two_stores

# A transaction that inserts the message "hold" waits before its commit while a lock is held.
HOLD_COMMITS = """
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(42);
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON message DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW WHEN (NEW.text = 'hold') EXECUTE FUNCTION hold();
"""


@ensureDeferred
async def test_a_message_found_by_its_key_after_a_lost_answer_is_new_to_the_cache(
    open_store: OpenStore,
) -> None:
    store = await open_store()
    assert isinstance(store, PostgresStore)
    store.on_connected()
    ann, bob = await add_accounts(store, "ann", "bob")
    query = ReadAfter(bob, 0, 10)
    await store.read([query])
    assert store.read_cached(query, listening=True) is not None
    with losing_results(store, 1):
        [result] = await store.append([draft(ann, bob, "hello", "key")])
    assert isinstance(result, Appended)
    known = store.read_cached(query, listening=True)
    assert known is None or known.messages == (result.message,)


HOUR = 3600 * 1_000_000


@ensureDeferred
async def test_a_key_used_in_two_processes_appends_once(open_store: OpenStore) -> None:
    stores = await two_stores(open_store)
    ann, bob = await add_accounts(stores[0], "ann", "bob")
    count = examples(5, deep=10)
    for turn in range(count):
        # The calls have several keys in common, in different orders, which must not deadlock.
        keys = [f"{turn}.{number}" for number in range(5)]
        calls = await gatherResults(
            [
                store.append([draft(ann, bob, key, key) for key in order])
                for store in stores
                for order in (keys, keys[::-1])
            ]
        )
        for key in keys:
            acknowledged = [
                result
                for call in calls
                for result in call
                if isinstance(result, Appended) and result.message.text == key
            ]
            assert sorted(result.replayed for result in acknowledged) == [False, True, True, True]
            assert len({result.message for result in acknowledged}) == 1
    assert len(await read_inbox(stores[0], bob)) == 5 * count


@ensureDeferred
async def test_batches_of_two_processes_in_opposite_orders_do_not_deadlock(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    stores = await two_stores(open_store)
    ids = await add_accounts(stores[0], *(f"user{number}" for number in range(20)))
    await gatherResults(
        [
            stores[number % 2].append(
                [Draft(ids[0], each, "x") for each in ids[:: 1 - number % 2 * 2]]
            )
            for number in range(40)
        ]
    )
    for each in ids:
        assert len(await read_inbox(stores[0], each)) == 40
    [[deadlocks]] = postgres.admin(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = %s", postgres_database
    )
    assert deadlocks == 0


@ensureDeferred
async def test_later_messages_are_invisible_until_an_earlier_commit_ends(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    one, two = await two_stores(open_store)
    ann, bob, cat = await add_accounts(one, "ann", "bob", "cat")
    with connected(postgres.url(postgres_database)) as db:
        rows(db, HOLD_COMMITS)
        rows(db, "SELECT pg_advisory_lock(42)")
        held = one.append([Draft(ann, bob, "hold")])
        await sleep(0.1)
        after = two.append([Draft(ann, bob, "after"), Draft(ann, cat, "beside")])
        [free] = await two.append([Draft(ann, ann, "elsewhere")])
        await sleep(0.1)
        # The later transaction waits for the earlier one, so nobody can see seq 2 before seq 1.
        assert appended(free).seq == 1
        assert not held.called
        assert not after.called
        assert await two.read([ReadAfter(bob, 0, 10)]) == [InboxSlice(0, ())]
        rows(db, "SELECT pg_advisory_unlock(42)")
    [first] = await held
    second, _ = await after
    assert (appended(first).seq, appended(second).seq) == (1, 2)
    assert appended(first).sent_at <= appended(second).sent_at
    assert [message.text for message in await read_inbox(one, bob)] == ["hold", "after"]


@ensureDeferred
async def test_an_append_whose_result_was_lost_is_executed_once(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = store_at(postgres.url(postgres_database))
    await store.open()
    ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
    early = await send(store, ann, bob, "early", "early")
    drafts = [
        Draft(ann, bob, "1"),
        draft(ann, cat, "2", "key"),
        draft(ann, cat, "2", "key"),
        Draft(ann, 4711, "nobody"),
        draft(ann, bob, "early", "early"),
        draft(ann, bob, "other", "early"),
        draft(ann, 4711, "nobody", "nobody's"),
        Draft(ann, bob, "3"),
    ]
    for turn in range(2):
        with losing_results(store, 1 + turn):
            results = await store.append(drafts)
        assert appended(results[0]).seq == 2 + 2 * turn
        first = results[1]
        assert isinstance(first, Appended)
        assert first.replayed is bool(turn)
        assert results[2] == Appended(first.message, True)
        assert isinstance(results[3], UserNotFound)
        assert results[4] == Appended(early, True)
        assert isinstance(results[5], IdempotencyKeyReused)
        assert isinstance(results[6], UserNotFound)
        assert appended(results[7]).seq == 3 + 2 * turn
    assert [message.text for message in await read_inbox(store, bob)] == ["early", *"1313"]
    assert len(await read_inbox(store, cat)) == 1
    assert store.pool.reconnects == 3
    await store.close()


@ensureDeferred
async def test_setting_the_server_clock_back_does_not_decrease_times(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = await open_store()
    ann, bob = await add_accounts(store, "ann", "bob")
    first = await send(store, ann, bob, "x")
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "UPDATE inbox SET last_sent_at = last_sent_at + %s", HOUR)
    second = await send(store, ann, bob, "y")
    assert 0 < second.sent_at - first.sent_at - HOUR <= RANDOM_MICROSECONDS


@ensureDeferred
async def test_inconsistent_data_is_not_reported_as_unavailable(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = await open_store()
    ann, bob = await add_accounts(store, "ann", "bob")
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "INSERT INTO message VALUES (%s, 1, %s, 1, 'not of chatd')", bob, ann)
    with pytest.raises(psycopg2.errors.UniqueViolation, match="message_pkey"):
        await store.append([Draft(ann, bob, "x")])
    assert await store.last_seqs([bob]) == {bob: 0}


@ensureDeferred
async def test_contacts_are_written_once_by_two_processes(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    one, two = await two_stores(open_store)
    ann, bob, cat = await add_accounts(one, "ann", "bob", "cat")
    await gatherResults(
        [store.append([Draft(ann, bob, "x"), Draft(bob, ann, "y")]) for store in (one, two, one)]
    )
    # The key was used for a message to another account.
    await one.append([draft(ann, bob, "first", "key"), draft(ann, cat, "second", "key")])
    with connected(postgres.url(postgres_database)) as db:
        assert sorted(rows(db, "SELECT * FROM contact")) == [(ann, bob), (bob, ann)]
        await one.append([draft(ann, cat, "third", "key"), Draft(ann, cat, "fourth")])
        assert sorted(rows(db, "SELECT * FROM contact")) == [(ann, bob), (ann, cat), (bob, ann)]
        await one.delete_account(cat)
        while rows(db, "SELECT 1 FROM purge"):
            await sleep(0.01)
        assert sorted(rows(db, "SELECT * FROM contact")) == [(ann, bob), (bob, ann)]


@ensureDeferred
async def test_prepared_statements_never_scan_tables(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = await open_store()
    ann, bob = await add_accounts(store, "ann", "bob")
    await send_many(store, ann, bob, 20)
    drafts = [draft(ann, bob, "x", "key"), Draft(ann, bob, "y")]
    appending = parameters_of(drafts, new_batch_id(1), "x:m:", InboxLimits())
    reading = chats.parameters_of([ReadAfter(bob, 3, 10), ReadPage(bob, 1, 10, None)])
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "ANALYZE")
        for sql, parameters in (
            *(
                (
                    append_sql.append(
                        keyed=keyed, known_only=known_only, linked=linked, notifying=notifying
                    ),
                    appending,
                )
                for notifying in (False, True)
                for keyed in (False, True)
                for known_only in (False, True)
                for linked in (False, True)
            ),
            (chats.READ, reading),
            (chats.READ_PAGES, reading),
        ):
            lines = plan(db, sql, parameters)
            assert any("Index" in line for line in lines)
            assert not [line for line in lines if "Seq Scan" in line], lines


def test_statements_without_notices() -> None:
    for keyed in (False, True):
        for linked in (False, True):
            options = {"keyed": keyed, "known_only": False, "linked": linked}
            assert "pg_notify" in append_sql.append(**options)
            assert "pg_notify" not in append_sql.append(**options, notifying=False)
    assert silent("SELECT pg_notify(:a, f(b) || c(d)), g(h) FROM i") == (
        "SELECT NULL::text, g(h) FROM i"
    )
    for sql in (
        accounts._CHANGE_ACCOUNT,
        accounts._DELETE_ACCOUNT,
        accounts._DELETE_OTHER_TOKENS,
        accounts._DELETE_TOKEN,
        accounts._DELETE_TOKEN_BY_ID,
        revisions._REVISE,
        sync_sql.CATCH_UP,
        sync_sql.MARK_READ,
        sync_sql.RECORD_DELIVERED,
    ):
        assert "pg_notify" in sql
        assert "pg_notify" not in silent(sql)


@ensureDeferred
async def test_a_batch_that_has_waited_is_given_the_rest_of_its_time(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = await open_store()
    ann, bob = await add_accounts(store, "ann", "bob")
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "BEGIN; LOCK TABLE message, inbox IN ACCESS EXCLUSIVE MODE")
        for work in (
            store.append([Draft(ann, bob, "x")], within=0.2),
            store.read([ReadAfter(bob, 0, 10)], within=0.2),
        ):
            with pytest.raises(StoreUnavailable):
                await work
