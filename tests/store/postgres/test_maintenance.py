"""Status, backup, restore, check and vacuum of a PostgreSQL database."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from psycopg2.extensions import make_dsn
from pytest_twisted import ensureDeferred

from chatd.interfaces import IStore
from chatd.maintenance import MaintenanceError
from chatd.postgres.address import parse
from chatd.store.consistency import POSTGRES
from chatd.store.migrations import migrations
from chatd.store.postgres.maintenance import PostgresMaintenance
from tests.contracts.helpers import OpenStore, add_accounts, digest, read_inbox, send, send_many
from tests.postgres_server import Databases, binaries, connected, rows

KNOWN = migrations("postgres")


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs of the server's release come first."""
    monkeypatch.setenv("PATH", f"{binaries()}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def url(postgres: Databases, postgres_database: str) -> str:
    return postgres.url(postgres_database)


@pytest.fixture
def maintenance(url: str) -> PostgresMaintenance:
    return PostgresMaintenance(parse(url), KNOWN)


async def fill(store: IStore) -> None:
    """Store something of everything."""
    ann, bob, cat = await add_accounts(store, "ann", "bob", "cat")
    await send_many(store, ann, bob, 20)
    await send(store, cat, ann, "with a key", "key")
    await store.sync.synchronise(ann)
    await send(store, ann, bob, "logged")
    await store.sync.record_delivered({bob: 7})
    await store.add_token(ann, digest("token"))
    await store.block(ann, cat)
    await store.delete_account(cat)


def failure(call: object, *arguments: object) -> str:
    assert callable(call)
    with pytest.raises(MaintenanceError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@ensureDeferred
async def test_a_copy_is_restored_and_the_old_tables_are_kept(
    open_store: OpenStore, maintenance: PostgresMaintenance, url: str, tmp_path: Path
) -> None:
    store = await open_store()
    await fill(store)
    before = await read_inbox(store, 2)
    target = tmp_path / "copy"
    maintenance.backup(str(target))
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert "exists already" in failure(maintenance.backup, str(target))
    await send(store, 1, 2, "after the copy")
    assert "stop it first" in failure(maintenance.restore, str(target))
    epoch = store.epoch
    await store.close()
    aside = maintenance.restore(str(target)).removeprefix("the schema ")
    assert maintenance.check() == []
    store = await open_store()
    assert store.epoch != epoch
    assert await read_inbox(store, 2) == before
    assert (await send(store, 1, 2, "next")).seq == len(before) + 1
    with connected(url) as db:
        assert rows(db, f'SELECT count(*) FROM "{aside}".message WHERE received_by = 2') == [
            (len(before) + 1,)
        ]


@ensureDeferred
async def test_a_copy_of_a_database_that_is_read_only(
    open_store: OpenStore, url: str, tmp_path: Path
) -> None:
    await open_store()
    address = parse(make_dsn(url, options="-c default_transaction_read_only=on"))
    target = tmp_path / "copy"
    text = failure(PostgresMaintenance(address, KNOWN).backup, str(target))
    assert text.startswith("the copy is made, but cannot be recorded in ")
    assert target.stat().st_size > 0


@ensureDeferred
async def test_what_cannot_be_restored_changes_nothing(
    open_store: OpenStore, maintenance: PostgresMaintenance, tmp_path: Path
) -> None:
    store = await open_store()
    await fill(store)
    before = await read_inbox(store, 2)
    await store.close()
    broken = tmp_path / "broken"
    broken.write_bytes(b"no copy")
    assert "pg_restore: error" in failure(maintenance.restore, str(broken))
    assert "there is no copy" in failure(maintenance.restore, str(tmp_path / "none"))
    assert maintenance.check() == []
    store = await open_store()
    assert await read_inbox(store, 2) == before


@ensureDeferred
async def test_programs_that_are_missing_or_fail_are_named(
    open_store: OpenStore,
    maintenance: PostgresMaintenance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await open_store()
    target = tmp_path / "copy"
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    assert "pg_dump is missing" in failure(maintenance.backup, str(target))
    fails = programs / "pg_dump"
    fails.write_text("#!/bin/sh\necho half\necho pg_dump: error: no space >&2\nexit 1\n")
    fails.chmod(0o700)
    assert failure(maintenance.backup, str(target)) == "pg_dump: error: no space"
    assert "cannot write" in failure(maintenance.backup, "/nowhere/copy")
    assert list(tmp_path.iterdir()) == [programs]


@ensureDeferred
async def test_a_password_is_no_argument(
    open_store: OpenStore, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_store()
    shows = tmp_path / "pg_dump"
    shows.write_text('#!/bin/sh\necho "$@"\necho "$PGPASSWORD"\n')
    shows.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    address = parse(make_dsn(url, password="geheim"))
    PostgresMaintenance(address, KNOWN).backup(str(tmp_path / "copy"))
    arguments, password = (tmp_path / "copy").read_text().splitlines()
    assert "geheim" not in arguments
    assert password == "geheim"


DAMAGES = [
    ("DELETE FROM message WHERE received_by = 2 AND seq = 7", "inbox 2 ends with 21"),
    ("UPDATE message SET sent_at = 1 WHERE received_by = 2 AND seq = 9", "message 9 of inbox 2 is"),
    ("UPDATE inbox SET text_bytes = 7 WHERE user_id = 2", "inbox 2 is said to have 7 bytes"),
    ("UPDATE token SET user_id = 9", "of user 9, who does not exist"),
    ("UPDATE token SET digest = '\\x00'", "is not stored as a hash"),
    ("DELETE FROM contact WHERE received_by = 2", "user 1 has written to 2"),
    ("DELETE FROM sync_state", "changes of user 1"),
]


@ensureDeferred
async def test_damage_is_found(
    open_store: OpenStore, maintenance: PostgresMaintenance, url: str
) -> None:
    await fill(await open_store())
    assert maintenance.check() == []
    with connected(url) as db:
        for damage, found in DAMAGES:
            rows(db, damage)
            assert any(found in text for text in maintenance.check()), found


@ensureDeferred
async def test_every_statement_is_valid(open_store: OpenStore, url: str) -> None:
    await open_store()
    with connected(url) as db:
        assert [rows(db, statement) for statement in POSTGRES] == [[]] * len(POSTGRES)


@ensureDeferred
async def test_status_and_vacuum(
    open_store: OpenStore, maintenance: PostgresMaintenance, url: str
) -> None:
    store = await open_store()
    await fill(store)
    status = maintenance.status()
    assert status.schema == status.schema_needed == KNOWN[-1].version
    assert status.used_by is not None
    assert status.used_by.endswith(" connections")
    assert status.bytes > 1_000_000
    assert (status.accounts, status.disabled, status.messages) == (2, 0, 22)
    assert status.oldest_message_at is not None
    assert "@" not in status.location or ":" not in status.location.split("@")[0][13:]
    with connected(url) as db:
        # As after sends of a process that does not count.
        rows(db, "UPDATE inbox SET text_bytes = 7 WHERE user_id = 2")
        maintenance.vacuum()
        assert maintenance.check() == []
    await store.close()
    assert maintenance.status().used_by is None


@ensureDeferred
async def test_a_full_vacuum_returns_what_is_free_to_the_disk(
    open_store: OpenStore, maintenance: PostgresMaintenance, url: str
) -> None:
    await open_store()
    with connected(url) as db:
        rows(db, FILLED)
        rows(db, "ANALYZE message")
        size, free = maintenance.status().bytes, maintenance.status().free_bytes
        assert free is not None
        assert free < TABLE_BYTES / 5
        # All but the last, which keep the file as long as it is.
        rows(db, "DELETE FROM message WHERE seq <= 4500")
    maintenance.vacuum()
    status = maintenance.status()
    assert status.free_bytes is not None
    assert status.free_bytes > TABLE_BYTES / 2
    assert status.bytes > size - TABLE_BYTES / 4
    maintenance.vacuum(full=True)
    after = maintenance.status()
    assert after.bytes < size - TABLE_BYTES / 2
    assert after.free_bytes is not None
    assert after.free_bytes < TABLE_BYTES / 5


TABLE_BYTES = 2_000_000
"""Somewhat less than what `FILLED` takes."""
FILLED = """
INSERT INTO message (received_by, seq, sent_by, sent_at, text)
SELECT 1, n, 1, n, repeat('x', 400) FROM generate_series(1, 5000) AS n
"""


@ensureDeferred
async def test_an_old_schema_is_not_checked(
    open_store: OpenStore, maintenance: PostgresMaintenance, url: str
) -> None:
    await open_store()
    with connected(url) as db:
        rows(db, "UPDATE schema_version SET version = 3")
    assert "run chatd db upgrade" in failure(maintenance.check)
    assert maintenance.status().accounts is None
    with connected(url) as db:
        rows(db, "DROP TABLE schema_version")
    assert "no tables of chatd" in failure(maintenance.check)


def test_an_unreachable_server_is_one_line() -> None:
    address = parse("postgresql://u:geheim@127.0.0.1:1/d")
    text = failure(PostgresMaintenance(address, KNOWN).status)
    assert "cannot reach postgresql://u@127.0.0.1:1/d" in text
    assert "geheim" not in text
