"""Erasures on PostgreSQL: several processes, lost connections, plans."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred

from chatd.interfaces import IStore
from chatd.model import Draft, Erased, ErasedMessage, ReadAfter
from chatd.postgres.notify_payloads import CHANNEL
from chatd.store.erasure_statements import ERASE_MESSAGES
from chatd.store.postgres import erasure
from chatd.store.postgres.store import PostgresStore
from chatd.store.statements import postgres as converted
from tests.contracts.helpers import OpenStore, add_accounts, read_inbox, send, send_many
from tests.postgres_server import Databases, connected, rows, sleep
from tests.store.postgres.plans import plan
from tests.store.postgres.stores import losing_results, two_stores

WAITING = "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"


async def erase_all(store: IStore, user_id: int | None = None) -> list[ErasedMessage]:
    """What is erased until nothing is left for now."""
    found: list[ErasedMessage] = []
    more = True
    while more:
        erased = await store.erase(user_id)
        found += erased.messages
        more = erased.more
    return found


@ensureDeferred
async def test_what_was_under_way_is_deleted_later(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = await open_store()
    ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
    await send(store, ann, bob, "before")
    await store.delete_account(ann, erase=True)
    assert await erase_all(store, ann) == [ErasedMessage(bob, 1, ann)]
    await store.append([Draft(ann, bob, "under way"), Draft(ann, cat, "to somebody new")])
    assert await store.erase() == Erased()
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "UPDATE erasure SET due_at = 0")
        assert await erase_all(store) == [ErasedMessage(bob, 2, ann), ErasedMessage(cat, 1, ann)]
        assert rows(db, "SELECT * FROM erasure") == []


@ensureDeferred
async def test_a_text_that_is_edited_meanwhile_is_measured_as_it_is_then(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = await open_store()
    ann, bob = await add_accounts(store, "ann", "bob")
    await send(store, ann, bob, "short")
    await store.delete_account(ann, erase=True)
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "BEGIN")
        rows(db, "UPDATE inbox SET text_bytes = 12 WHERE user_id = %s", bob)
        rows(db, "UPDATE message SET text = 'a longer one', edited_at = sent_at")
        erasing = store.erase(ann)
        while not postgres.admin(WAITING, postgres_database):
            await sleep(0.01)
        rows(db, "COMMIT")
        assert (await erasing).messages == (ErasedMessage(bob, 1, ann),)
        assert rows(db, "SELECT text_bytes FROM inbox WHERE user_id = %s", bob) == [(0,)]


@ensureDeferred
async def test_a_step_of_another_process_leaves_more_to_do(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    one, two = await two_stores(open_store)
    ann, bob = await add_accounts(one, "ann", "bob")
    await send_many(one, ann, bob, 2 * ERASE_MESSAGES)
    await one.delete_account(ann, erase=True)
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "BEGIN")
        rows(db, "SELECT * FROM erasure FOR UPDATE")
        # They wait for nobody.
        assert await one.erase(ann) == Erased((), True)
        assert await two.erase() == Erased()
        rows(db, "ROLLBACK")
    found = [await (one, two)[number % 2].erase(ann) for number in range(3)]
    assert [len(each.messages) for each in found] == [ERASE_MESSAGES, ERASE_MESSAGES, 0]
    assert {each.text for each in await read_inbox(two, bob)} == {""}


@ensureDeferred
async def test_other_processes_are_told_of_each_message_and_of_the_changes(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = await open_store()
    ann, bob = await add_accounts(store, "ann", "bob")
    await send_many(store, ann, bob, 2)
    await store.sync.synchronise(bob)
    await store.delete_account(ann, erase=True)
    with connected(postgres.url(postgres_database)) as db:
        rows(db, f"LISTEN {CHANNEL}")
        await erase_all(store, ann)
        rows(db, "SELECT 1")
        told = sorted(notice.payload.split(":", 1)[1] for notice in db.notifies)
    assert told == [f"c:{bob}:1:{ann}", f"c:{bob}:2:{ann}", f"l:{bob}"]


@pytest.mark.parametrize("lost", [1, 2])
@ensureDeferred
async def test_a_step_whose_result_is_lost_is_not_repeated(
    open_store: OpenStore, lost: int
) -> None:
    store = await open_store()
    assert isinstance(store, PostgresStore)
    ann, bob = await add_accounts(store, "ann", "bob")
    await send_many(store, ann, bob, 10)
    await store.delete_account(ann, erase=True)
    await store.read([ReadAfter(bob, 0, 10)])
    with losing_results(store, lost):
        await erase_all(store, ann)
    assert {each.text for each in await read_inbox(store, bob)} == {""}


@ensureDeferred
async def test_a_step_costs_the_same_however_much_is_left(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = await open_store()
    ann, bob = await add_accounts(store, "ann", "bob")
    await store.delete_account(ann, erase=True)
    with connected(postgres.url(postgres_database)) as db:
        rows(
            db,
            "INSERT INTO message (received_by, seq, sent_by, sent_at, text)"
            " SELECT %s, n, %s, n, 'x' FROM generate_series(1, 50000) AS n",
            bob,
            ann,
        )
        rows(
            db,
            "INSERT INTO contact (sent_by, received_by)"
            " SELECT %s, n FROM generate_series(1, 10000) AS n",
            ann,
        )
        rows(db, "ANALYZE")
        for user_id in (None, ann):
            statement = erasure.erase(user_id, "node")
            sql = erasure.step(named=user_id is not None)
            lines = plan(db, converted(sql), statement.parameters)
            assert not [line for line in lines if "Seq Scan on" in line and "erasure" not in line]
