"""Background deletion of old keys, batch results and deleted accounts' data."""

from __future__ import annotations

import time

import psycopg2.errors
import pytest
from pytest_twisted import ensureDeferred

from chatd.model import Appended, TokenOptions
from chatd.store.postgres import plain
from chatd.store.statements import PURGE_STEP
from tests.conftest import LoggedFailures
from tests.contracts.helpers import (
    OpenStore,
    add_accounts,
    add_token,
    appended,
    digest,
    draft,
    read_inbox,
    send,
    send_many,
)
from tests.postgres_server import Databases, connected, rows, sleep
from tests.store.postgres.stores import store_at

HOUR = 3600 * 1_000_000


@ensureDeferred
async def test_a_large_inbox_is_purged_in_steps(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = await open_store()
    ann, bob = await add_accounts(store, "ann", "bob")
    await send_many(store, bob, ann, PURGE_STEP + 500)
    await store.delete_account(ann)
    with connected(postgres.url(postgres_database)) as db:
        while rows(db, "SELECT 1 FROM message UNION ALL SELECT 1 FROM purge"):
            await sleep(0.01)


@ensureDeferred
async def test_old_keys_and_batch_results_are_deleted(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = store_at(postgres.url(postgres_database), housekeeping_seconds=0.05)
    await store.open()
    ann, bob = await add_accounts(store, "ann", "bob")
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
async def test_a_fast_clock_deletes_nothing_that_is_new(
    postgres: Databases, postgres_database: str
) -> None:
    """That of one machine of many: to the server, neither message nor key is old."""
    year = 365 * 24 * HOUR
    url = postgres.url(postgres_database)
    store = store_at(url, housekeeping_seconds=0.02)
    store._housekeeping._now = lambda: time.time_ns() // 1000 + year
    store.keep = year // 2
    store._housekeeping._next_removal = 0
    await store.open()
    ann, bob = await add_accounts(store, "ann", "bob")
    sent = await send(store, ann, bob, "new", "key")
    rounds = 0
    delete_old = store._layout.delete_old

    async def count(now: int) -> None:
        nonlocal rounds
        await delete_old(now)
        rounds += 1

    store._layout.delete_old = count  # type: ignore[method-assign]
    while rounds < 3:
        await sleep(0.01)
    assert await store.append([draft(ann, bob, "new", "key")]) == [Appended(sent, True)]
    assert await read_inbox(store, bob) == [sent]
    await store.close()


@ensureDeferred
async def test_rows_of_what_owners_removed_are_deleted_without_a_retention_period(
    open_store: OpenStore, postgres: Databases, postgres_database: str
) -> None:
    store = await open_store()
    ann, bob = await add_accounts(store, "ann", "bob")
    sent = [await send(store, ann, bob, text) for text in ("1", "2", "3")]
    await store.close()
    url = postgres.url(postgres_database)
    with connected(url) as db:
        # The process ended before it could delete them.
        rows(db, "UPDATE inbox SET removed_seq = 2, text_bytes = 1 WHERE user_id = %s", bob)
        store = store_at(url, housekeeping_seconds=0.02)
        store._housekeeping._next_removal = 0
        await store.open()
        while len(rows(db, "SELECT 1 FROM message")) > 1:
            await sleep(0.01)
    assert await read_inbox(store, bob) == sent[2:]
    await store.close()


@ensureDeferred
async def test_expired_tokens_are_deleted(
    postgres: Databases, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "DELETE_TOKENS_STEP", 2)
    store = store_at(postgres.url(postgres_database), housekeeping_seconds=0.05)
    await store.open()
    [ann] = await add_accounts(store, "ann")
    for number in range(5):
        await store.add_token(ann, digest(f"{number}"), TokenOptions(lifetime=1))
    kept = [
        await add_token(store, ann, "later", TokenOptions(lifetime=HOUR)),
        await add_token(store, ann, "endless"),
    ]
    with connected(postgres.url(postgres_database)) as db:
        while len(rows(db, "SELECT 1 FROM token")) > 2:
            await sleep(0.01)
    assert await store.tokens(ann) == kept[::-1]
    await store.close()


@ensureDeferred
async def test_failed_housekeeping_is_logged_and_retried(
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
async def test_size_and_backups_of_the_database_are_found_out(
    postgres: Databases, postgres_database: str
) -> None:
    url = postgres.url(postgres_database)
    with connected(url) as db:
        rows(db, "UPDATE history SET backed_up_at = 7")
    store = store_at(url, housekeeping_seconds=0.05)
    assert (store.file_sizes(), store.backed_up_at()) == ({}, None)
    await store.open()
    while not store.file_sizes():
        await sleep(0.01)
    assert store.file_sizes()["database"] > 1_000_000
    assert store.backed_up_at() == 7
    await store.close()
