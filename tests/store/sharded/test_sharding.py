"""Turning a database into the sharded layout, and back."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred

from chatd.errors import IdempotencyKeyReused, StartError, UsernameTaken
from chatd.interfaces import IStore
from chatd.maintenance import MaintenanceError
from chatd.model import ALL_CHANGES, Appended, BlockedUser, TokenOptions
from chatd.model_sync import ListConversations, ReadChanges
from chatd.postgres.address import Address, parse
from chatd.store.migrations import Migration, migrations
from chatd.store.postgres.maintenance import PostgresMaintenance
from chatd.store.postgres.schema import prepare
from chatd.store.sharded.sharding import Sharding
from chatd.store.sharded.shards import Server
from tests.contracts.helpers import add_accounts, blocked, digest, draft, owners, read_inbox, send
from tests.postgres_server import Databases, connected, rows
from tests.store.postgres.stores import store_at
from tests.store.sharded.made_up_citus import make_up_citus
from tests.store.sharded.stores import sharded_store_at


def locate(coordinator: Address, server: Server) -> Address:
    return coordinator


def maintenance(url: str) -> PostgresMaintenance:
    return PostgresMaintenance(parse(url), migrations("postgres"), locate)


def sharding(url: str) -> Sharding:
    return Sharding(maintenance(url), migrations("postgres"))


@pytest.fixture
def url(postgres: Databases, postgres_database: str) -> str:
    """A database that has Citus, but whose tables are not sharded."""
    with connected(postgres.url(postgres_database)) as db:
        make_up_citus(db)
    return postgres.url(postgres_database)


async def everything(store: IStore, users: list[int]) -> list[object]:
    """What the store returns for some users."""
    found: list[object] = [await read_inbox(store, each) for each in users]
    for each in users:
        found += [await store.account(each), await store.blocks(each)]
        found.append([token.label for token in await store.tokens(each)])
        found.append(await store.sync.conversations(ListConversations(each, 50)))
    changes = await store.sync.changes(ReadChanges(users[0], ALL_CHANGES, 100))
    assert changes is not None
    found.append(changes.changes)
    found.append(await store.find_users("u", 10))
    return found


@ensureDeferred
async def test_a_database_is_the_same_after_it_was_sharded_and_brought_back(url: str) -> None:
    store = store_at(url)
    await store.open()
    epoch = store.epoch
    users = await add_accounts(store, *(f"user{number}" for number in range(6)))
    one, two, three = users[:3]
    await store.add_token(one, digest("token"), TokenOptions("phone"))
    await store.block(one, users[5])
    await store.sync.synchronise(one)
    sent = [
        await send(store, each, other, f"{each} to {other}", f"key to {other}")
        for each in users
        for other in (one, two)
        if each != users[5]
    ]
    assert await store.delete_account(users[4])
    expected = await everything(store, users[:4])
    await store.close()

    assert sharding(url).shard(3) == "6 accounts and 10 messages are in 3 shards on 1 servers"
    with connected(url) as db:
        assert rows(db, "SELECT count(*) FROM ONLY message") == [(0,)]
    sharded = sharded_store_at(url)
    await sharded.open()
    assert sharded.epoch == epoch
    assert await everything(sharded, users[:4]) == expected
    assert await blocked(sharded, one) == [BlockedUser(users[5], "user5")]
    assert await owners(sharded, digest("token")) == [one]
    again = await sharded.append(
        [
            draft(three, one, f"{three} to {one}", f"key to {one}"),
            draft(three, two, "another", f"key to {one}"),
        ]
    )
    assert isinstance(again[0], Appended)
    assert again[0].replayed
    assert again[0].message in sent
    assert isinstance(again[1], IdempotencyKeyReused)
    with pytest.raises(UsernameTaken):
        await sharded.add_account("USER4", "a@b", "hash")
    new = await sharded.add_account("new", "new@b", "hash")
    assert new.id > max(users)
    await send(sharded, new.id, one, "hello", "new key")
    await sharded.add_token(new.id, digest("new token"))
    expected = await everything(sharded, [*users[:4], new.id])
    await sharded.close()

    assert maintenance(url).check() == []
    assert sharding(url).unshard() == "7 accounts and 11 messages are on the coordinator only"
    assert maintenance(url).check() == []
    store = store_at(url)
    await store.open()
    assert await everything(store, [*users[:4], new.id]) == expected
    assert await owners(store, digest("token"), digest("new token")) == [one, new.id]
    [again_once] = await store.append([draft(new.id, one, "hello", "new key")])
    assert isinstance(again_once, Appended)
    assert again_once.replayed
    assert (await store.add_account("newer", "newer@b", "hash")).id > new.id
    assert await store.add_token(new.id, digest("newer token")) is not None
    await store.close()


@ensureDeferred
async def test_tables_are_made_in_a_database_that_has_nothing_but_citus(
    postgres: Databases,
) -> None:
    name = postgres.create()
    with connected(postgres.url(name)) as db:
        make_up_citus(db)
    store = store_at(postgres.url(name))
    await store.open()
    await store.close()
    sharding(postgres.url(name)).shard(2)
    postgres.drop(name)


@ensureDeferred
async def test_what_cannot_be_sharded_is_refused(
    url: str, postgres: Databases, postgres_template: str
) -> None:
    plain = postgres.create(postgres_template)
    with pytest.raises(MaintenanceError, match="has no extension Citus"):
        sharding(postgres.url(plain)).shard(2)
    with pytest.raises(MaintenanceError, match="is not sharded"):
        sharding(postgres.url(plain)).unshard()
    postgres.drop(plain)
    store = store_at(url)
    await store.open()
    with pytest.raises(MaintenanceError, match="stop it first"):
        sharding(url).shard(2)
    await store.close()
    with connected(url) as db:
        rows(db, "INSERT INTO inbox (user_id, last_seq, last_sent_at) VALUES (1, 1, 1)")
        with pytest.raises(MaintenanceError, match="is not consistent: inbox 1 ends with"):
            sharding(url).shard(2)
        rows(db, "DELETE FROM inbox")
        rows(db, "UPDATE schema_version SET version = 1")
        with pytest.raises(MaintenanceError, match="run chatd db upgrade first"):
            sharding(url).shard(2)
        rows(db, "UPDATE schema_version SET version = %s", migrations("postgres")[-1].version)
        rows(db, "CREATE TABLE username ()")
        with pytest.raises(MaintenanceError, match="the database is sharded already"):
            sharding(url).shard(2)
        rows(db, "DROP TABLE username; CREATE TABLE claim ()")
        with pytest.raises(MaintenanceError, match=r"the layout is as it was: .*claim"):
            sharding(url).shard(2)
        rows(db, "DROP TABLE claim; DELETE FROM pg_dist_node")
        with pytest.raises(MaintenanceError, match="has no servers yet"):
            sharding(url).shard(2)


@ensureDeferred
async def test_the_way_back_waits_for_senders_that_were_not_told(url: str) -> None:
    sharding(url).shard(2)
    with connected(url) as db:
        [[shard]] = rows(
            db,
            "SELECT 'batch_' || shardid FROM pg_dist_shard"
            " WHERE logicalrelid = 'batch'::regclass LIMIT 1",
        )
        rows(
            db,
            f"INSERT INTO {shard} (owner, id, places, seqs, times, senders, recipients, kind)"
            " VALUES (1, gen_random_uuid(), '{}', '{}', '{}', '{}', '{}', 'sent')",
        )
    with pytest.raises(MaintenanceError, match="1 transactions are not finished"):
        sharding(url).unshard()


@ensureDeferred
async def test_maintenance_of_a_sharded_database(url: str) -> None:
    sharding(url).shard(2)
    store = sharded_store_at(url)
    await store.open()
    users = await add_accounts(store, *(f"user{number}" for number in range(4)))
    messages = [await send(store, users[0], each, "x") for each in users]
    await store.close()
    found = maintenance(url).status()
    assert (found.accounts, found.disabled, found.messages, found.to_be_purged) == (4, 0, 4, 0)
    assert found.oldest_message_at == min(each.sent_at for each in messages)
    assert maintenance(url).check() == []
    with connected(url) as db:
        rows(db, "UPDATE inbox SET last_seq = 7 WHERE user_id = %s", users[1])
    [line] = maintenance(url).check()
    assert line.startswith(f"inbox {users[1]} ends with 7")
    for work in (maintenance(url).backup, maintenance(url).restore):
        with pytest.raises(MaintenanceError, match="use backups of the servers"):
            work(__file__ if work.__name__ == "restore" else "/nowhere/copy")


@ensureDeferred
async def test_a_migration_distributes_the_tables_that_it_adds(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from twisted.internet import reactor

    sharding(url).shard(2)
    known = migrations("postgres")
    version = known[-1].version + 1
    known.append(
        Migration(version, "more.sql", "ALTER TABLE message ADD COLUMN more text; DROP TABLE seen;"
                  " CREATE TABLE seen (user_id bigint PRIMARY KEY, last_seen_at bigint)"),
    )  # fmt: skip
    with connected(url) as db:
        rows(db, "SELECT undistribute_table('seen')")
    await prepare(parse(url), reactor, known)
    with connected(url) as db:
        assert rows(db, "SELECT count(*) FROM pg_dist_shard WHERE logicalrelid = 'seen'::regclass")
        [[shard]] = rows(
            db,
            "SELECT 'message_' || shardid FROM pg_dist_shard"
            " WHERE logicalrelid = 'message'::regclass LIMIT 1",
        )
        assert rows(db, f"SELECT more FROM {shard}") == []
    with pytest.raises(StartError, match="schema version"):
        await sharded_store_at(url).open()
