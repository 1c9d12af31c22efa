"""Creating, checking and migrating a database."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from chatd.errors import (
    Blocked,
    StartError,
    StoreUnavailable,
)
from chatd.model import ALL_SCOPES, Draft, Message, Revision, Token
from chatd.postgres.address import parse
from chatd.store.migrations import Migration, migrations
from chatd.store.postgres.schema import prepare
from tests.contracts.helpers import (
    OpenStore,
    add_accounts,
    digest,
    owners,
    read_inbox,
    send_many,
)
from tests.postgres_server import Databases, connected, rows, sleep
from tests.store.postgres.stores import store_at

STEP_TWO = Migration(
    2, "002_more.sql", "CREATE TABLE more (id bigint); INSERT INTO more VALUES (7)"
)


def _later(step: Migration) -> list[Migration]:
    return [Migration(len(migrations("postgres")) + 1, step.name, step.sql)]


@ensureDeferred
async def test_processes_that_start_together_create_the_schema_once(
    postgres: Databases,
) -> None:
    database = postgres.create()
    stores = [store_at(postgres.url(database)) for _ in range(5)]
    await gatherResults([store.open() for store in stores])
    assert len({store.epoch for store in stores}) == 1
    await gatherResults([store.check() for store in stores])
    await add_accounts(stores[3], "ann")
    await gatherResults([store.close() for store in stores])
    postgres.drop(database)


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
    # A process of the older version continues to work, but is not ready.
    with pytest.raises(StoreUnavailable, match="schema version"):
        await old.check()
    await add_accounts(old, "ann")
    await gatherResults([store.close() for store in [old, *stores]])
    with pytest.raises(StartError, match="run the chatd that made it, or a newer one"):
        await store_at(url).open()


@ensureDeferred
async def test_a_restore_that_was_interrupted_is_not_taken_for_a_new_database(
    postgres: Databases, postgres_database: str
) -> None:
    """Else the service would come up without accounts."""
    url = postgres.url(postgres_database)
    store = store_at(url)
    await store.open()
    await store.close()
    with connected(url) as db:
        rows(db, "ALTER SCHEMA public RENAME TO public_replaced_then")
        rows(db, "CREATE SCHEMA public")
    with pytest.raises(StartError, match="its schema public_replaced_then is not: a restore was"):
        await store_at(url).open()
    with connected(url) as db:
        rows(db, "DROP SCHEMA public")
        rows(db, "ALTER SCHEMA public_replaced_then RENAME TO public")
    store = store_at(url)
    await store.open()
    await store.close()


async def make_old(url: str) -> None:
    """Make the tables of the first release, with which the present store cannot work."""
    from twisted.internet import reactor

    await prepare(parse(url), reactor, migrations("postgres")[:2])


@ensureDeferred
async def test_messages_of_the_first_release_are_not_rewritten_and_can_be_revised(
    postgres: Databases,
) -> None:
    database = postgres.create()
    url = postgres.url(database)
    await make_old(url)
    files = "SELECT pg_relation_filenode(name) FROM unnest(ARRAY['message', 'inbox']) AS name"
    with connected(url) as db:
        rows(
            db,
            "INSERT INTO account (username, username_folded, date_joined)"
            " VALUES ('ann', 'ann', 0), ('bob', 'bob', 0)",
        )
        rows(db, "INSERT INTO inbox VALUES (1, 0, 0), (2, 2, 7)")
        rows(db, "INSERT INTO message VALUES (2, 1, 1, 6, 'one'), (2, 2, 1, 7, 'two')")
        before = rows(db, files)
    store = store_at(url)
    await store.open()
    with connected(url) as db:
        assert rows(db, files) == before
    sent = [Message(2, 1, 1, 6, "one"), Message(2, 2, 1, 7, "two")]
    assert await read_inbox(store, 2) == sent
    edited = await store.revise(Revision(1, 2, 2, "new"))
    assert await read_inbox(store, 2) == [sent[0], edited]
    await store.block(2, 1)
    [refused] = await store.append([Draft(1, 2, "x")])
    assert isinstance(refused, Blocked)
    await store.close()
    postgres.drop(database)


@ensureDeferred
async def test_a_failed_migration_leaves_nothing_behind(
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
async def test_a_copy_of_a_database_gets_a_new_epoch(
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
async def test_a_database_of_another_program_is_refused(
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
async def test_an_unreachable_server_is_reported_without_the_password() -> None:
    store = store_at("postgresql://ann:s3cret@127.0.0.1:1/chat")
    with pytest.raises(StartError, match="/chat") as caught:
        await store.open()
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in store.location
    await store.close()


@ensureDeferred
async def test_contacts_of_an_older_database_are_found(
    postgres: Databases, postgres_database: str
) -> None:
    url = postgres.url(postgres_database)
    store = store_at(url)
    await store.open()
    ann, bob, cat, dan = await add_accounts(store, "ann", "bob", "cat", "dan")
    for sent_by, received_by in ((ann, bob), (cat, bob), (ann, cat), (cat, cat), (cat, dan)):
        await send_many(store, sent_by, received_by, 30)
    await store.delete_account(dan)
    [step] = [each for each in migrations("postgres") if each.name == "005_contacts.sql"]
    with connected(url) as db:
        while rows(db, "SELECT 1 FROM purge"):
            await sleep(0.01)
        written = sorted(rows(db, "SELECT * FROM contact"))
        assert written == [(ann, bob), (ann, cat), (cat, bob), (cat, cat)]
        rows(db, "DROP TABLE contact")
        rows(db, step.sql)
        assert sorted(rows(db, "SELECT * FROM contact")) == written
    await store.close()


@ensureDeferred
async def test_tokens_are_kept_when_they_get_ids(postgres: Databases) -> None:
    database = postgres.create()
    url = postgres.url(database)
    await make_old(url)
    ann, bob = 1, 2
    created = {digest(f"{number}"): 1000 + number for number in range(10)}
    with connected(url) as db:
        rows(
            db,
            "INSERT INTO account (username, username_folded, date_joined)"
            " VALUES ('ann', 'ann', 0), ('bob', 'bob', 0)",
        )
        rows(db, "INSERT INTO inbox VALUES (1, 0, 0), (2, 0, 0)")
        for token, at in created.items():
            rows(db, "INSERT INTO token VALUES (%s, %s, %s)", token, (ann, bob)[at % 2], at)
    store = store_at(url)
    await store.open()
    assert await owners(store, *created) == [(ann, bob)[at % 2] for at in created.values()]
    tokens = [*await store.tokens(ann), *await store.tokens(bob)]
    assert sorted(token.id for token in tokens) == [*range(1, 11)]
    for each in tokens:
        at = created[each.digest]
        assert each == Token(each.id, each.digest, None, ALL_SCOPES, at, None, None)
    with connected(url) as db:
        # As a process of the version before does, which may still run.
        rows(db, "INSERT INTO token VALUES (%s, %s, 7)", digest("new"), ann)
    [newest, *_] = await store.tokens(ann)
    assert newest == Token(11, digest("new"), None, ALL_SCOPES, 7, None, None)
    await store.close()
    postgres.drop(database)
