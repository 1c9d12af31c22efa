"""Creating, checking and migrating a database."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import gatherResults

from chatd.errors import (
    StartError,
    StoreUnavailable,
)
from chatd.model import ALL_SCOPES, Token
from chatd.store.migrations import Migration, migrations
from tests.contracts.helpers import (
    OpenStore,
    add_accounts,
    digest,
    owners,
)
from tests.postgres_server import Databases, connected, rows
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
async def test_tokens_are_kept_when_they_get_ids(postgres: Databases) -> None:
    database = postgres.create()
    url = postgres.url(database)
    old = store_at(url, known=migrations("postgres")[:2])
    await old.open()
    ann, bob = await add_accounts(old, "ann", "bob")
    await old.close()
    created = {digest(f"{number}"): 1000 + number for number in range(10)}
    with connected(url) as db:
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
