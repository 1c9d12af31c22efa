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
from chatd.model import Appended, Draft, InboxSlice, ReadAfter, ReadPage
from chatd.postgres import connection
from chatd.postgres.prepared import prepared
from chatd.store.postgres import append_sql, chats
from chatd.store.postgres.append import new_batch_id, parameters_of
from tests.contracts.helpers import (
    OpenStore,
    appended,
    draft,
    fill,
    inbox,
    people,
    send,
)
from tests.postgres_server import Databases, connected, rows, sleep
from tests.store.postgres.stores import losing_answers, store_at, two_stores

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


HOUR = 3600 * 1_000_000


@ensureDeferred
async def test_one_key_in_two_processes_appends_once(open_store: OpenStore) -> None:
    stores = await two_stores(open_store)
    ann, bob = await people(stores[0], "ann", "bob")
    for turn in range(10):
        # Each call holds other keys too, in another order: they must not wait in a circle.
        keys = [f"{turn}.{number}" for number in range(5)]
        calls = await gatherResults(
            [
                store.append([draft(ann, bob, key, key) for key in order])
                for store in stores
                for order in (keys, keys[::-1])
            ]
        )
        for key in keys:
            told = [
                outcome
                for call in calls
                for outcome in call
                if isinstance(outcome, Appended) and outcome.message.text == key
            ]
            assert sorted(outcome.replayed for outcome in told) == [False, True, True, True]
            assert len({outcome.message for outcome in told}) == 1
    assert len(await inbox(stores[0], bob)) == 50


@ensureDeferred
async def test_batches_of_two_processes_in_opposite_orders_do_not_deadlock(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    stores = await two_stores(open_store)
    ids = await people(stores[0], *(f"user{number}" for number in range(20)))
    await gatherResults(
        [
            stores[number % 2].append(
                [Draft(ids[0], each, "x") for each in ids[:: 1 - number % 2 * 2]]
            )
            for number in range(40)
        ]
    )
    for each in ids:
        assert len(await inbox(stores[0], each)) == 40
    [[deadlocks]] = postgres.admin(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = %s", postgres_database
    )
    assert deadlocks == 0


@ensureDeferred
async def test_a_commit_that_is_held_open_hides_what_comes_after_it(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    one, two = await two_stores(open_store)
    ann, bob, cat = await people(one, "ann", "bob", "cat")
    with connected(postgres.url(postgres_database)) as db:
        rows(db, HOLD_COMMITS)
        rows(db, "SELECT pg_advisory_lock(42)")
        held = one.append([Draft(ann, bob, "hold")])
        await sleep(0.1)
        after = two.append([Draft(ann, bob, "after"), Draft(ann, cat, "beside")])
        [free] = await two.append([Draft(ann, ann, "elsewhere")])
        await sleep(0.1)
        # The later transaction waits for the earlier one: nobody can see seq 2 before seq 1.
        assert appended(free).seq == 1
        assert not held.called
        assert not after.called
        assert await two.read([ReadAfter(bob, 0, 10)]) == [InboxSlice(0, ())]
        rows(db, "SELECT pg_advisory_unlock(42)")
    [first] = await held
    second, _ = await after
    assert (appended(first).seq, appended(second).seq) == (1, 2)
    assert appended(first).sent_at <= appended(second).sent_at
    assert [message.text for message in await inbox(one, bob)] == ["hold", "after"]


@ensureDeferred
async def test_drafts_of_several_lanes_are_answered_in_their_order(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    lanes = store_at(postgres.url(postgres_database), lane=lambda user_id: user_id % 3)
    await lanes.open()
    ids = await people(lanes, *(f"user{number}" for number in range(9)))
    drafts = [draft(ids[0], ids[n * 7 % 9], f"{n}", f"k{n}") for n in range(40)]
    outcomes = await lanes.append([*drafts, Draft(ids[0], 4711, "x")])
    for one, outcome in zip(drafts, outcomes[:-1], strict=True):
        assert (appended(outcome).received_by, appended(outcome).text) == (
            one.received_by,
            one.text,
        )
    assert isinstance(outcomes[-1], UserNotFound)
    await lanes.close()
    # The failure of a lane is that of the batch, and no other is left over.
    with pytest.raises(StoreUnavailable):
        await lanes.append(drafts)


@ensureDeferred
async def test_an_append_whose_answer_was_lost_is_carried_out_once(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = store_at(postgres.url(postgres_database))
    await store.open()
    ann, bob, cat = await people(store, "ann", "bob", "cat")
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
        with losing_answers(store, 1 + turn):
            outcomes = await store.append(drafts)
        assert appended(outcomes[0]).seq == 2 + 2 * turn
        first = outcomes[1]
        assert isinstance(first, Appended)
        assert first.replayed is bool(turn)
        assert outcomes[2] == Appended(first.message, True)
        assert isinstance(outcomes[3], UserNotFound)
        assert outcomes[4] == Appended(early, True)
        assert isinstance(outcomes[5], IdempotencyKeyReused)
        assert isinstance(outcomes[6], UserNotFound)
        assert appended(outcomes[7]).seq == 3 + 2 * turn
    assert [message.text for message in await inbox(store, bob)] == ["early", *"1313"]
    assert len(await inbox(store, cat)) == 1
    assert store.pool.reconnects == 3
    await store.close()


@ensureDeferred
async def test_a_clock_that_is_set_back_does_not_turn_times_round(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = await open_store()
    ann, bob = await people(store, "ann", "bob")
    first = await send(store, ann, bob, "x")
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "UPDATE inbox SET last_sent_at = last_sent_at + %s", HOUR)
    assert (await send(store, ann, bob, "y")).sent_at == first.sent_at + HOUR


@ensureDeferred
async def test_a_fault_of_the_data_is_told_as_it_is(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = await open_store()
    ann, bob = await people(store, "ann", "bob")
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "INSERT INTO message VALUES (%s, 1, %s, 1, 'not of chatd')", bob, ann)
    with pytest.raises(psycopg2.errors.UniqueViolation, match="message_pkey"):
        await store.append([Draft(ann, bob, "x")])
    assert await store.last_seqs([bob]) == {bob: 0}


@ensureDeferred
async def test_hot_statements_find_their_rows_by_keys_however_small_the_tables_are(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = await open_store()
    ann, bob = await people(store, "ann", "bob")
    await fill(store, ann, bob, 20)
    drafts = [draft(ann, bob, "x", "key"), Draft(ann, bob, "y")]
    appending = parameters_of(drafts, new_batch_id(1), "x:m:")
    reading = chats.parameters_of([ReadAfter(bob, 3, 10), ReadPage(bob, 1, 10, None)])
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "ANALYZE")
        rows(db, connection._PLANNING)
        for sql, parameters in (
            (append_sql.APPEND, appending),
            (append_sql.APPEND_WITH_KEYS, appending),
            (chats.READ, reading),
        ):
            statement = prepared(sql)
            with db.cursor() as cursor:
                cursor.execute(statement.prepare)
                cursor.execute(f"EXPLAIN {statement.execute}", parameters)
                plan = [line for [line] in cursor.fetchall()]
            assert any("Index" in line for line in plan)
            assert not [line for line in plan if "Seq Scan" in line], plan
