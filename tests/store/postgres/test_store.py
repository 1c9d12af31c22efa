"""The store on PostgreSQL: the contract, and what is its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg2.errors
import pytest
from pytest_twisted import async_yield_fixture, ensureDeferred
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ConnectionDone

from chatd.errors import (
    IdempotencyKeyReused,
    StartError,
    StoreUnavailable,
    UsernameTaken,
    UserNotFound,
)
from chatd.interfaces import IStore
from chatd.model import Appended, Draft, InboxSlice, ReadAfter, ReadPage
from chatd.postgres import connection
from chatd.postgres.address import parse
from chatd.postgres.notify_payloads import NodeId
from chatd.postgres.prepared import prepared
from chatd.store.migrations import Migration, migrations
from chatd.store.postgres import append_sql, chats
from chatd.store.postgres.append import new_batch_id, parameters_of
from chatd.store.postgres.retry import DEADLINE_SECONDS
from chatd.store.postgres.store import PostgresStore
from chatd.store.statements import PURGE_STEP
from tests.conftest import LoggedFailures
from tests.contracts import (
    OpenStore,
    StoreContract,
    appended,
    digest,
    draft,
    fill,
    inbox,
    people,
    send,
)
from tests.postgres_server import Databases, connected, rows, sleep

HOUR = 3600 * 1_000_000

# A message "hold" keeps its transaction open, just before the commit, while somebody has the lock.
HOLD_COMMITS = """
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(42);
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON message DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW WHEN (NEW.text = 'hold') EXECUTE FUNCTION hold();
"""


@contextlib.contextmanager
def losing_answers(store: PostgresStore, times: int) -> Iterator[None]:
    """The connection breaks after the server has carried out a statement, that many times."""
    query = connection.Connection.query
    left = times

    def lose(
        self: connection.Connection, sql: str, parameters: Any = None, *, prepare: bool = False
    ) -> Any:
        async def answer() -> Any:
            nonlocal left
            found = await query(self, sql, parameters, prepare=prepare)
            if left and sql not in (connection._PID, connection._PLANNING):
                left -= 1
                self.abort()
                raise ConnectionDone
            return found

        return Deferred.fromCoroutine(answer())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection.Connection, "query", lose)
        yield
    assert not left


def store_at(url: str, deadline: float = DEADLINE_SECONDS, **options: Any) -> PostgresStore:
    """A store as the daemon makes it."""
    from twisted.internet import reactor

    return PostgresStore(
        parse(url),
        reactor=reactor,
        now=lambda: time.time_ns() // 1000,
        node_id=NodeId(),
        deadline=deadline,
        **options,
    )


@async_yield_fixture
async def open_store(postgres: Databases, postgres_database: str) -> AsyncIterator[OpenStore]:
    opened: list[PostgresStore] = []

    async def open_one() -> IStore:
        store = store_at(postgres.url(postgres_database))
        opened.append(store)
        await store.open()
        return store

    yield open_one
    for store in opened:
        await store.close()


class TestPostgresStore(StoreContract):
    """The contract."""


async def two_stores(open_store: OpenStore) -> tuple[IStore, IStore]:
    """Two processes' stores on one database."""
    return await open_store(), await open_store()


@ensureDeferred
async def test_processes_share_everything(open_store: OpenStore) -> None:
    one, two = await two_stores(open_store)
    assert one.epoch == two.epoch
    ann, bob = await people(one, "ann", "bob")
    await two.add_token(ann, digest("token"))
    assert await one.token_owners([digest("token")]) == [ann]
    sent = [await send(each, ann, bob, "x") for each in (one, two, one, two)]
    assert [message.seq for message in sent] == [1, 2, 3, 4]
    assert await inbox(one, bob) == await inbox(two, bob) == sent
    with pytest.raises(UsernameTaken):
        await two.add_account("ANN", "a@example.org", "hash")


@ensureDeferred
async def test_what_is_at_hand_is_right_while_others_append(open_store: OpenStore) -> None:
    one, two = await two_stores(open_store)
    ann, bob = await people(one, "ann", "bob")
    sent = [await send(each, ann, bob, "x") for each in (one, one, two, two, one, two)]
    # What this process wrote itself, and the nothing that it knows to follow, are not the same.
    assert one.read_cached(ReadAfter(bob, 4, 10)) == InboxSlice(5, (sent[4],))
    assert one.read_cached(ReadAfter(bob, 2, 10)) is None
    assert one.read_cached(ReadAfter(bob, 5, 10)) is None
    assert await one.read([ReadAfter(bob, 5, 10)]) == [InboxSlice(6, (sent[5],))]
    assert one.read_cached(ReadAfter(bob, 5, 10)) == InboxSlice(6, (sent[5],))
    assert await two.delete_account(bob)
    assert await one.read([ReadAfter(bob, 0, 10)]) == [None]
    assert one.read_cached(ReadAfter(bob, 5, 10)) is None


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
async def test_a_repeated_deletion_knows_its_own(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = store_at(postgres.url(postgres_database))
    await store.open()
    ann, bob = await people(store, "ann", "bob")
    with losing_answers(store, 1):
        assert await store.delete_account(ann) is True
    assert await store.delete_account(ann) is False
    with losing_answers(store, 1):
        cat = await store.add_account("cat", "c@example.org", "hash")
    assert await store.account(cat.id) == cat
    with losing_answers(store, 1):
        assert await store.add_token(bob, digest("1")) is not None
    assert await store.token_owners([digest("1")]) == [bob]
    await store.close()


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
async def test_a_large_inbox_is_emptied_in_steps(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = await open_store()
    ann, bob = await people(store, "ann", "bob")
    await fill(store, bob, ann, PURGE_STEP + 500)
    await store.delete_account(ann)
    with connected(postgres.url(postgres_database)) as db:
        while rows(db, "SELECT 1 FROM message UNION ALL SELECT 1 FROM purge"):
            await sleep(0.01)


@ensureDeferred
async def test_a_token_waits_for_a_deletion_under_way_and_then_is_none(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = await open_store()
    [ann] = await people(store, "ann")
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "BEGIN")
        rows(db, "UPDATE account SET deleted_at = 1 WHERE id = %s", ann)
        adding = store.add_token(ann, digest("token"))
        # Not on this connection: within a transaction the view stays as it was first seen.
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
        while not (adding.called or postgres.admin(waiting, postgres_database)):
            await sleep(0.01)
        assert not adding.called
        rows(db, "COMMIT")
        assert await adding is None
        assert rows(db, "SELECT 1 FROM token") == []


@ensureDeferred
async def test_old_keys_and_answers_are_forgotten(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = store_at(postgres.url(postgres_database), housekeeping_seconds=0.05)
    await store.open()
    ann, bob = await people(store, "ann", "bob")
    old = await send(store, ann, bob, "old", "old")
    new = await send(store, ann, bob, "new", "new")
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "UPDATE idempotency SET sent_at = sent_at - %s WHERE key = 'old'", 49 * HOUR)
        batches = [id for [id] in rows(db, "SELECT id::text FROM batch ORDER BY id")]
        long_ago = int(batches[0].replace("-", ""), 16) - (HOUR << 64)
        rows(db, "UPDATE batch SET id = %s WHERE id = %s", f"{long_ago:032x}", batches[0])
        while len(rows(db, "SELECT 1 FROM idempotency")) > 1:
            await sleep(0.01)
        while len(rows(db, "SELECT 1 FROM batch")) > 1:
            await sleep(0.01)
    assert await store.append([draft(ann, bob, "new", "new")]) == [Appended(new, True)]
    [again] = await store.append([draft(ann, bob, "old", "old")])
    assert appended(again).seq == old.seq + 2
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


# Opening


@ensureDeferred
async def test_processes_that_start_together_on_an_empty_database_take_turns(
    postgres: Databases,
) -> None:
    database = postgres.create()
    stores = [store_at(postgres.url(database)) for _ in range(5)]
    await gatherResults([store.open() for store in stores])
    assert len({store.epoch for store in stores}) == 1
    await gatherResults([store.check() for store in stores])
    await people(stores[3], "ann")
    await gatherResults([store.close() for store in stores])
    postgres.drop(database)


STEP_TWO = Migration(
    2, "002_more.sql", "CREATE TABLE more (id bigint); INSERT INTO more VALUES (7)"
)


@ensureDeferred
async def test_an_older_database_is_migrated_once(
    postgres: Databases, postgres_database: str
) -> None:
    url = postgres.url(postgres_database)
    old = store_at(url)
    await old.open()
    known = [*migrations("postgres"), *_later(STEP_TWO)]
    stores = [store_at(url, known=known) for _ in range(3)]
    await gatherResults([store.open() for store in stores])
    with connected(url) as db:
        assert rows(db, "SELECT id FROM more") == [(7,)]
    await gatherResults([store.check() for store in stores])
    # A process of the older version still serves, and says that it is not what it was.
    with pytest.raises(StoreUnavailable, match="schema version"):
        await old.check()
    await people(old, "ann")
    await gatherResults([store.close() for store in [old, *stores]])
    with pytest.raises(StartError, match="run the chatd that made it, or a newer one"):
        await store_at(url).open()


def _later(step: Migration) -> list[Migration]:
    return [Migration(len(migrations("postgres")) + 1, step.name, step.sql)]


@ensureDeferred
async def test_a_migration_that_fails_leaves_nothing_behind(
    postgres: Databases, postgres_database: str
) -> None:
    url = postgres.url(postgres_database)
    broken = Migration(2, "x.sql", "CREATE TABLE more (id bigint); SELECT nonsense")
    with pytest.raises(StartError, match="nonsense"):
        await store_at(url, known=[*migrations("postgres"), *_later(broken)]).open()
    store = store_at(url)
    await store.open()
    with connected(url) as db:
        assert rows(db, "SELECT to_regclass('more')") == [(None,)]
    await store.close()


@ensureDeferred
async def test_a_copy_of_a_database_has_a_history_of_its_own(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = await open_store()
    await store.close()
    database = postgres.create(postgres_database)
    copy = store_at(postgres.url(database))
    await copy.open()
    assert copy.epoch != store.epoch
    await copy.close()
    postgres.drop(database)


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [("CREATE TABLE mine (id int)", "not made by chatd"), ("", "LATIN1")],
)
@ensureDeferred
async def test_a_database_that_is_not_chatds_is_left_alone(
    postgres: Databases, statement: str, complaint: str
) -> None:
    encoding = "UTF8" if statement else "LATIN1"
    database = postgres.create(encoding=encoding)
    if statement:
        with connected(postgres.url(database)) as db:
            rows(db, statement)
    with pytest.raises(StartError, match=complaint):
        await store_at(postgres.url(database)).open()
    postgres.drop(database)


@ensureDeferred
async def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    store = store_at("postgresql://ann:s3cret@127.0.0.1:1/chat")
    with pytest.raises(StartError, match="/chat") as caught:
        await store.open()
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in store.location
    await store.close()


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
async def test_housekeeping_that_fails_is_logged_and_tried_again(
    postgres: Databases, postgres_database: str, logged_failures: LoggedFailures
) -> None:
    store = store_at(postgres.url(postgres_database), housekeeping_seconds=0.02)
    await store.open()
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "ALTER TABLE batch RENAME TO hidden")
        await sleep(0.3)
        assert logged_failures.flush(psycopg2.errors.UndefinedTable)
        rows(db, "ALTER TABLE hidden RENAME TO batch")
    await sleep(0.1)
    logged_failures.flush(psycopg2.errors.UndefinedTable)
    await sleep(0.1)
    await store.close()


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
