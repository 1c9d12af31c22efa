"""Revising messages on PostgreSQL, with other processes and lost results."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred

from chatd.errors import Blocked, MessageDeleted, StoreUnavailable
from chatd.model import Draft, ReadAfter, ReadConversation, Revision
from chatd.store.postgres import chats, revisions
from chatd.store.postgres.retry import RetryingExecutor
from tests.contracts.helpers import (
    OpenStore,
    add_accounts,
    appended,
    blocked,
    draft,
    read_inbox,
    send,
)
from tests.postgres_server import Databases, connected, rows, sleep
from tests.store.postgres.stores import losing_results, store_at, two_stores

WAITING = "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"


@ensureDeferred
async def test_revisions_whose_results_were_lost_are_repeated_safely(
    postgres: Databases, postgres_database: str
) -> None:
    store = store_at(postgres.url(postgres_database))
    await store.open()
    ann, bob = await add_accounts(store, "ann", "bob")
    await send(store, ann, bob, "old")
    for lost, text in ((1, "new"), (2, "newer"), (2, None), (1, None)):
        with losing_results(store, lost):
            revised = await store.revise(Revision(ann, bob, 1, text))
        assert revised.text == (text or "")
        assert await read_inbox(store, bob) == [revised]
    for _ in range(2):
        with losing_results(store, 1):
            await store.block(bob, ann)
        [result] = await store.append([Draft(ann, bob, "x")])
        assert isinstance(result, Blocked)
    with losing_results(store, 1):
        await store.unblock(bob, ann)
    assert (await send(store, ann, bob, "x")).seq == 2
    await store.close()


@ensureDeferred
async def test_an_edit_that_another_process_overtakes_sees_its_result(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    one, two = await two_stores(open_store)
    ann, bob = await add_accounts(one, "ann", "bob")
    await send(one, ann, bob, "old")
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "BEGIN")
        rows(db, "UPDATE message SET text = '', deleted_at = sent_at")
        edit = one.revise(Revision(ann, bob, 1, "new"))
        delete = two.revise(Revision(ann, bob, 1, None))
        while len(postgres.admin(WAITING, postgres_database)) < 2:
            await sleep(0.01)
        rows(db, "COMMIT")
    with pytest.raises(MessageDeleted):
        await edit
    assert await read_inbox(one, bob) == [await delete]


@ensureDeferred
async def test_a_block_waits_for_messages_that_are_being_stored(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = await open_store()
    ann, bob = await add_accounts(store, "ann", "bob")
    with connected(postgres.url(postgres_database)) as db:
        # The lock that a transaction of messages holds.
        rows(db, "BEGIN")
        rows(db, "UPDATE inbox SET last_seq = last_seq WHERE user_id = %s", bob)
        blocking = store.block(bob, ann)
        while not postgres.admin(WAITING, postgres_database):
            await sleep(0.01)
        assert not blocking.called
        rows(db, "COMMIT")
    await blocking
    assert [each.user_id for each in await blocked(store, bob)] == [ann]


@ensureDeferred
async def test_messages_and_edits_that_wait_for_a_block_are_subject_to_it(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = await open_store()
    ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
    await send(store, ann, bob, "old")
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "BEGIN")
        rows(db, "INSERT INTO block VALUES (%s, %s)", bob, ann)
        rows(db, "UPDATE inbox SET block_changes = block_changes + 1 WHERE user_id = %s", bob)
        sends = [
            store.append([Draft(ann, bob, "x"), Draft(cat, bob, "y")]),
            store.append([draft(ann, bob, "x", "key"), draft(cat, bob, "y", "key")]),
        ]
        edit = store.revise(Revision(ann, bob, 1, "x"))
        # All of them have read that nobody is blocked.
        while len(postgres.admin(WAITING, postgres_database)) < 3:
            await sleep(0.01)
        rows(db, "COMMIT")
    for each in sends:
        refused, accepted = await each
        assert isinstance(refused, Blocked)
        assert appended(accepted).text == "y"
    with pytest.raises(Blocked):
        await edit
    assert [each.text for each in await read_inbox(store, bob)] == ["old", "y", "y"]


@ensureDeferred
async def test_a_message_that_changes_all_the_time_is_given_up(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_store()
    ann, bob = await add_accounts(store, "ann", "bob")
    await send(store, ann, bob, "old")
    monkeypatch.setattr(revisions, "MAX_ATTEMPTS", 0)
    with pytest.raises(StoreUnavailable):
        await store.revise(Revision(ann, bob, 1, "new"))


@ensureDeferred
async def test_what_was_read_before_a_revision_is_read_again(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_store()
    ann, bob = await add_accounts(store, "ann", "bob")
    await send(store, ann, bob, "old")
    read, execute = chats.read, RetryingExecutor.execute
    query, both = ReadAfter(bob, 0, 10), ReadConversation(ann, bob, 10)
    texts = iter(["1", "2"])

    async def read_slowly(*arguments: Any) -> Any:
        found = await read(*arguments)
        text = next(texts, None)
        if text is not None:
            await store.revise(Revision(ann, bob, 1, text))
        return found

    def execute_slowly(*arguments: Any) -> Any:
        async def run() -> Any:
            found = await execute(*arguments)
            text = next(texts, None)
            if text is not None:
                await store.revise(Revision(ann, bob, 1, text))
            return found

        return Deferred.fromCoroutine(run())

    monkeypatch.setattr(chats, "read", read_slowly)
    monkeypatch.setattr(RetryingExecutor, "execute", execute_slowly)
    [inbox] = await store.read([query])
    assert inbox is not None
    assert [each.text for each in inbox.messages] == ["2"]
    texts = iter(["3"])
    conversation = await store.conversation(both)
    assert conversation is not None
    assert [each.text for each in conversation.messages] == ["3"]
    # A message that is revised during every read is read a limited number of times.
    texts = iter(["4", "5", "6", "7"])
    [inbox] = await store.read([query])
    assert inbox is not None
    assert [each.text for each in inbox.messages] == ["5"]
    assert next(texts) == "7"
