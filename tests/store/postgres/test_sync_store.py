"""Changes on PostgreSQL: several processes, and transactions that began before an account's."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from chatd.model import ALL_CHANGES, ChangesPosition, Draft, Revision
from chatd.model_sync import (
    ListConversations,
    MarkRead,
    MessageChange,
    PeerChange,
    PeerPositions,
    ReadChanges,
)
from chatd.store import sync_statements
from chatd.store.postgres import sync_reading, sync_sql, sync_store
from chatd.store.statements import postgres as postgres_sql
from tests.contracts.helpers import OpenStore, add_accounts, read_inbox, send, send_many
from tests.contracts.store_sync import all_changes, changes, conversations
from tests.examples import examples
from tests.postgres_server import Databases, connected, rows, sleep
from tests.store.postgres.plans import plan
from tests.store.postgres.stores import two_stores
from tests.store.postgres.test_append import HOLD_COMMITS


@pytest.mark.parametrize("known", [False, True], ids=["first message", "known pair"])
@ensureDeferred
async def test_a_message_under_way_when_changes_begin_is_not_missed(
    open_store: OpenStore,
    postgres: Databases,
    postgres_database: str,
    monkeypatch: pytest.MonkeyPatch,
    known: bool,
) -> None:
    monkeypatch.setattr(sync_store, "SETTLE_SECONDS", 0.05)
    one, two = await two_stores(open_store)
    ann, bob = await add_accounts(one, "ann", "bob")
    if known:
        await send(one, ann, bob, "before")
    with connected(postgres.url(postgres_database)) as db:
        rows(db, HOLD_COMMITS)
        rows(db, "SELECT pg_advisory_lock(42)")
        held = one.append([Draft(ann, bob, "hold")])
        await sleep(0.1)
        # The transaction began before this, and commits after it.
        start = (await changes(two, ann, None)).position
        after = two.append([Draft(ann, bob, "after")])
        await sleep(0.3)
        assert (await changes(two, ann, start)).changes == ()
        [[settled]] = rows(db, "SELECT settled FROM sync_state")
        assert settled is False
        rows(db, "SELECT pg_advisory_unlock(42)")
        await held
        await after
        found, _ = await all_changes(two, ann, start)
        texts = [each.message.text for each in found if isinstance(each, MessageChange)]
        assert sorted(texts) == ["after", "hold"]
        everything, _ = await all_changes(one, ann, ALL_CHANGES)
        assert len(everything) == 2 + known
        [summary] = await conversations(two, bob)
        assert summary.unread == 2 + known
        while rows(db, "SELECT 1 FROM sync_state WHERE NOT settled"):
            await sleep(0.05)
        assert len((await all_changes(one, ann, ALL_CHANGES))[0]) == 2 + known


@ensureDeferred
async def test_an_edit_under_way_when_changes_begin_is_not_missed(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    one, two = await two_stores(open_store)
    ann, bob = await add_accounts(one, "ann", "bob")
    await send(one, ann, bob, "old")
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "BEGIN")
        rows(db, "SELECT 1 FROM inbox WHERE user_id = %s FOR UPDATE", bob)
        edit = one.revise(Revision(ann, bob, 1, "new"))
        await sleep(0.2)
        beginning = two.sync.changes(ReadChanges(bob, None, 100))
        await sleep(0.2)
        # What follows the position of its result has to contain the edit, or what precedes it.
        assert not beginning.called
        rows(db, "ROLLBACK")
    await edit
    found = await beginning
    assert found is not None
    assert [each.text for each in await read_inbox(two, bob)] == ["new"]
    await one.revise(Revision(ann, bob, 1, "newer"))
    told, _ = await all_changes(two, bob, found.position)
    assert [each.message.text for each in told if isinstance(each, MessageChange)] == ["newer"]


@ensureDeferred
async def test_a_process_that_does_not_know_of_changes_records_them(open_store: OpenStore) -> None:
    one, two = await two_stores(open_store)
    ann, bob = await add_accounts(one, "ann", "bob")
    await send(two, ann, bob, "the pair is known")
    start = (await changes(one, ann, None)).position
    sent = [await send(two, ann, bob, "x", key) for key in (None, "key", None)]
    found, _ = await all_changes(one, ann, start)
    assert found == [MessageChange("sent", each) for each in sent]


@ensureDeferred
async def test_changes_of_two_processes_are_numbered_in_the_order_of_commit(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    one, two = await two_stores(open_store)
    ann, bob, cat = await add_accounts(one, "ann", "bob", "cat")
    start = (await changes(one, ann, None)).position
    with connected(postgres.url(postgres_database)) as db:
        rows(db, HOLD_COMMITS)
        rows(db, "SELECT pg_advisory_lock(42)")
        held = one.append([Draft(ann, bob, "hold")])
        await sleep(0.1)
        later = two.append([Draft(ann, cat, "later")])
        await sleep(0.1)
        # It waits for its number.
        assert not later.called
        assert (await changes(two, ann, start)).changes == ()
        rows(db, "SELECT pg_advisory_unlock(42)")
    await gatherResults([held, later])
    found, _ = await all_changes(two, ann, start)
    assert [each.message.text for each in found if isinstance(each, MessageChange)] == [
        "hold",
        "later",
    ]


@ensureDeferred
async def test_opposite_conversations_and_positions_do_not_deadlock(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    stores = await two_stores(open_store)
    users = await add_accounts(stores[0], *(f"user{number}" for number in range(6)))
    await gatherResults([stores[0].sync.synchronise(each) for each in users])
    for turn in range(examples(4, deep=8)):
        calls: list[object] = []
        for number, store in enumerate(stores):
            order = users[:: 1 - number * 2]
            calls += [
                store.append([Draft(each, other, "x") for each in order for other in order])
                for _ in range(2)
            ]
            if turn:
                calls.append(store.sync.record_delivered(dict.fromkeys(order, turn * 8)))
                calls += [store.sync.mark_read(MarkRead(each, users[0], turn)) for each in order]
        await gatherResults(calls)  # type: ignore[arg-type]
    [[deadlocks]] = postgres.admin(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = %s", postgres_database
    )
    assert deadlocks == 0


@ensureDeferred
async def test_a_position_recorded_by_another_process_is_told(open_store: OpenStore) -> None:
    one, two = await two_stores(open_store)
    ann, bob = await add_accounts(one, "ann", "bob")
    await send_many(one, ann, bob, 3)
    start = (await changes(one, ann, None)).position
    assert await two.sync.record_delivered({bob: 3}) == {ann}
    found, _ = await all_changes(one, ann, start)
    assert found == [PeerChange(bob, PeerPositions(3, 0))]


@ensureDeferred
async def test_no_statement_of_changes_scans_a_table(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = await open_store()
    ann, bob = await add_accounts(store, "ann", "bob")
    await send_many(store, ann, bob, 20)
    await conversations(store, ann)
    of_ann = {"user_id": ann}
    statements: list[tuple[str, Any]] = [
        (
            postgres_sql(sync_reading.CHANGES),
            sync_statements.changes_parameters(ReadChanges(ann, ChangesPosition(0), 10)),
        ),
        (
            postgres_sql(sync_reading.CONVERSATIONS),
            sync_statements.conversations_parameters(ListConversations(ann, 50)),
        ),
        (postgres_sql(sync_reading.SYNC_STATE), of_ann),
        (
            postgres_sql(sync_reading.OLD_MESSAGES),
            {**of_ann, "peer": 0, "seq": 0, "limit": 10, "max_bytes": 1000},
        ),
        (postgres_sql(sync_sql.PEER_POSITIONS), {**of_ann, "peer": bob}),
        (postgres_sql(sync_sql.SYNCHRONISE), of_ann),
        (postgres_sql(sync_sql.CATCH_UP), {**of_ann, "settled": False}),
        (postgres_sql(sync_sql.MARK_READ), {**of_ann, "peer": bob, "seq": 1}),
        (sync_sql.RECORD_DELIVERED, {"users": f"{{{bob}}}", "seqs": "{10}"}),
    ]
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "ANALYZE")
        for sql, parameters in statements:
            lines = plan(db, sql, parameters)
            assert any("Index" in line for line in lines)
            # Only whether anybody has changes at all is read without an index.
            scans = [line for line in lines if "Seq Scan" in line]
            assert all("sync_state" in line for line in scans), lines


@ensureDeferred
async def test_a_position_costs_the_same_in_a_large_inbox(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = await open_store()
    ann, bob = await add_accounts(store, "ann", "bob")
    await store.sync.synchronise(ann)
    with connected(postgres.url(postgres_database)) as db:
        rows(
            db,
            "INSERT INTO message (received_by, seq, sent_by, sent_at, text)"
            " SELECT %s, n, n %% 200, n, 'x' FROM generate_series(1, 20000) AS n",
            bob,
        )
        rows(db, "VACUUM ANALYZE")
        parameters = {"users": f"{{{bob}}}", "seqs": "{19999}"}
        lines = plan(db, sync_sql.RECORD_DELIVERED, parameters)
        # A range of that index would be all that anybody has sent to bob.
        assert not [
            line for line in lines if "message_conversation" in line and "Backward" not in line
        ], lines
