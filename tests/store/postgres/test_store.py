"""The PostgreSQL store: the contract, and several processes on one database."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred

from chatd.errors import (
    UsernameTaken,
)
from chatd.model import InboxSlice, ReadAfter
from chatd.store.postgres.store import PostgresStore
from tests.contracts.helpers import (
    OpenStore,
    add_accounts,
    digest,
    read_inbox,
    send,
)
from tests.contracts.store import StoreContract
from tests.postgres_server import Databases, connected, rows, sleep
from tests.store.postgres.stores import losing_results, store_at, two_stores


class TestPostgresStore(StoreContract):
    """The contract."""


@ensureDeferred
async def test_processes_share_all_data(open_store: OpenStore) -> None:
    one, two = await two_stores(open_store)
    assert one.epoch == two.epoch
    ann, bob = await add_accounts(one, "ann", "bob")
    await two.add_token(ann, digest("token"))
    assert await one.token_owners([digest("token")]) == [ann]
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
    assert one.read_cached(ReadAfter(bob, 6, 10)) == InboxSlice(7, (sent[6],))
    assert one.read_cached(ReadAfter(bob, 2, 10)) is None
    assert one.read_cached(ReadAfter(bob, 7, 10)) is None
    assert await one.read([ReadAfter(bob, 7, 10)]) == [InboxSlice(8, (sent[7],))]
    assert one.read_cached(ReadAfter(bob, 7, 10)) == InboxSlice(8, (sent[7],))
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
    assert await store.token_owners([digest("1")]) == [bob]
    await store.close()


@ensureDeferred
async def test_adding_a_token_waits_for_a_running_deletion(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = await open_store()
    [ann] = await add_accounts(store, "ann")
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "BEGIN")
        rows(db, "UPDATE account SET deleted_at = 1 WHERE id = %s", ann)
        adding = store.add_token(ann, digest("token"))
        # On another connection: within a transaction pg_stat_activity does not change.
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'"
        while not (adding.called or postgres.admin(waiting, postgres_database)):
            await sleep(0.01)
        assert not adding.called
        rows(db, "COMMIT")
        assert await adding is None
        assert rows(db, "SELECT 1 FROM token") == []
