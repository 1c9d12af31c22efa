"""Removal of messages from PostgreSQL: plans, and what others do at the same time."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred

from chatd.store.postgres import retention
from chatd.store.statements import postgres as converted
from tests.contracts.helpers import OpenStore, add_accounts, read_inbox, send_many
from tests.postgres_server import Databases, connected, rows, sleep
from tests.store.postgres.plans import plan

WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        (retention._REMOVE_OLDEST, {"user_id": 2, "up_to": 4500}),
        (retention._ADVANCE, {"after": 0, "before": 2**53}),
    ],
    ids=["of one inbox", "of all"],
)
@ensureDeferred
async def test_what_was_removed_before_is_not_read(
    open_store: OpenStore,
    postgres: Databases,
    postgres_database: str,
    sql: str,
    parameters: dict[str, int],
) -> None:
    """Its rows are deleted later: each step would take longer than the one before."""
    store = await open_store()
    ann, bob = await add_accounts(store, "ann", "bob")
    await send_many(store, ann, bob, 5000)
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "UPDATE inbox SET removed_seq = 4000 WHERE user_id = %s", bob)
        rows(db, "ANALYZE")
        notice = {"channel": "chatd", "origin": "node:x:"}
        lines = plan(db, converted(sql), {**parameters, **notice})
    conditions = [line for line in lines if "Index Cond" in line and "seq <=" in line]
    assert conditions, lines
    assert all("seq >" in line for line in conditions), lines
    assert not [line for line in lines if "on message" in line and "Index Scan" not in line], lines


@ensureDeferred
async def test_a_removal_waits_for_an_edit_and_measures_what_is_there_then(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = await open_store()
    ann, bob = await add_accounts(store, "ann", "bob")
    sent = await send_many(store, ann, bob, 3)
    kept = len(sent[2].text)
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "BEGIN")
        rows(db, "UPDATE inbox SET text_bytes = text_bytes + 90 WHERE user_id = %s", bob)
        rows(
            db, "UPDATE message SET text = text || repeat('x', 90), edited_at = 1 WHERE seq = %s", 1
        )
        # Retention leaves an inbox that somebody is writing to for the next time.
        assert await store.admin.remove_old(2**53) == 0
        removing = store.remove_oldest(bob, 2)
        while not postgres.admin(WAITING, postgres_database):
            await sleep(0.01)
        rows(db, "COMMIT")
        assert await removing is False
        assert rows(db, "SELECT text_bytes FROM inbox WHERE user_id = %s", bob) == [(kept,)]
    assert await read_inbox(store, bob) == sent[2:]


@ensureDeferred
async def test_an_account_that_is_deleted_meanwhile_has_no_inbox(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = await open_store()
    ann, bob = await add_accounts(store, "ann", "bob")
    await send_many(store, ann, bob, 3)
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "BEGIN")
        rows(db, "UPDATE inbox SET closed = true WHERE user_id = %s", bob)
        removing = store.remove_oldest(bob, 2)
        while not postgres.admin(WAITING, postgres_database):
            await sleep(0.01)
        rows(db, "COMMIT")
        assert await removing is True
        assert await store.remove_oldest(bob, 2) is None
    assert store.removed == {}
