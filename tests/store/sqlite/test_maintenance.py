"""Status, backup, restore, check and vacuum of a SQLite database."""

from __future__ import annotations

import os
import resource
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from chatd.maintenance import MaintenanceError
from chatd.store.consistency import SQLITE
from chatd.store.migrations import migrations
from chatd.store.sqlite.maintenance import SqliteMaintenance
from tests.contracts.helpers import add_accounts, digest, read_inbox, send, send_many
from tests.doubles import result_of
from tests.store.sqlite.database import Database, run_now

KNOWN = migrations("sqlite")


def maintenance(path: Path) -> SqliteMaintenance:
    return SqliteMaintenance(str(path), KNOWN)


@pytest.fixture
def copy(database: Database) -> Path:
    """A copy of a database with something of everything in it."""
    store = database.open()
    ann, bob, cat = run_now(add_accounts(store, "ann", "bob", "cat"))
    run_now(send_many(store, ann, bob, 200))
    run_now(send_many(store, bob, ann, 3))
    run_now(send(store, cat, ann, "with a key", "key"))
    result_of(store.sync.synchronise(ann))
    run_now(send(store, ann, bob, "logged"))
    result_of(store.sync.record_delivered({bob: 7}))
    result_of(store.add_token(ann, digest("token")))
    result_of(store.block(ann, cat))
    result_of(store.delete_account(cat))
    target = database.path.parent / "copy.db"
    maintenance(database.path).backup(str(target))
    return target


def files(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_a_backup_of_a_running_database_is_consistent(database: Database, copy: Path) -> None:
    assert maintenance(copy).check() == []
    assert maintenance(database.path).check() == []
    assert copy.stat().st_mode & 0o777 == 0o600
    assert f"{copy} exists already" in failure(maintenance(database.path).backup, str(copy))


def failure(call: object, *arguments: object) -> str:
    assert callable(call)
    with pytest.raises(MaintenanceError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_backup_is_of_one_moment_while_others_write(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit between two steps neither changes the copy nor begins it anew."""
    store = database.open()
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    sent = run_now(send_many(store, ann, bob, 50))
    steps = []

    def write(_: float) -> None:
        steps.append(run_now(send(store, ann, bob, "meanwhile")))

    monkeypatch.setattr("chatd.store.sqlite.backup.STEP_PAGES", 4)
    monkeypatch.setattr("time.sleep", write)
    target = database.path.parent / "copy.db"
    maintenance(database.path).backup(str(target))
    assert len(steps) > 5
    assert maintenance(target).check() == []
    # What the log has gathered is written back: the next commit need not.
    assert b"meanwhile" in database.path.read_bytes()
    database.path = target
    assert run_now(read_inbox(database.open(), bob)) == sent


def test_a_full_disk_leaves_nothing_half(database: Database) -> None:
    store = database.open()
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    run_now(send_many(store, ann, bob, 500))
    before = files(database.path.parent)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        text = failure(maintenance(database.path).backup, str(database.path.parent / "copy.db"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot write" in text
    assert files(database.path.parent) == before
    assert "cannot write" in failure(maintenance(database.path).backup, "/nowhere/copy.db")


def test_a_restored_database_has_a_new_history_and_the_old_one_is_kept(
    database: Database, copy: Path
) -> None:
    [store] = database.opened
    lost = run_now(send(store, 1, 2, "after the copy"))
    epoch = store.epoch
    assert f"process {os.getpid()}" in failure(maintenance(database.path).restore, str(copy))
    database.opened.clear()
    result_of(store.close())
    aside = Path(maintenance(database.path).restore(str(copy)))
    folder = database.path.parent
    assert files(folder) == {"chatd.db", "chatd.db.lock", "copy.db", aside.name}
    restored = database.open()
    assert restored.epoch not in (epoch, None)
    assert len(run_now(read_inbox(restored, 2))) == lost.seq - 1
    result_of(restored.close())
    database.opened.clear()
    assert maintenance(aside).check() == []
    database.path = aside
    assert run_now(read_inbox(database.open(), 2))[-1] == lost


def test_what_cannot_be_restored_changes_nothing(database: Database, copy: Path) -> None:
    [store] = database.opened
    database.opened.clear()
    result_of(store.close())
    before = database.path.read_bytes()
    restore = maintenance(database.path).restore
    assert "there is no database" in failure(restore, str(copy) + ".missing")
    with closing(sqlite3.connect(copy)) as db:
        db.execute("PRAGMA user_version = 999")
    assert "schema version 999" in failure(restore, str(copy))
    damaged = bytearray(copy.read_bytes())
    damaged[4096:8192] = b"\xff" * 4096
    copy.write_bytes(damaged)
    failure(restore, str(copy))
    copy.write_bytes(b"something else")
    failure(restore, str(copy))
    copy.write_bytes(b"")
    assert failure(restore, str(copy)) == f"{copy} is empty"
    assert database.path.read_bytes() == before
    assert not [name for name in files(database.path.parent) if "restored" in name]


def test_a_damaged_database_is_replaced(database: Database, copy: Path) -> None:
    [store] = database.opened
    database.opened.clear()
    result_of(store.close())
    database.path.write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)
    log = Path(f"{database.path}-wal")
    log.write_bytes(b"of the damaged one")
    aside = Path(maintenance(database.path).restore(str(copy)))
    assert Path(f"{aside}-wal").read_bytes() == b"of the damaged one"
    assert not log.exists()
    assert maintenance(database.path).check() == []


DAMAGES = [
    ("DELETE FROM message WHERE received_by = 2 AND seq = 7", "inbox 2 ends with 201"),
    ("DELETE FROM message WHERE received_by = 2 AND seq = 201", "inbox 2 ends with 201"),
    ("UPDATE inbox SET last_seq = 300 WHERE user_id = 2", "inbox 2 ends with 300"),
    ("UPDATE message SET sent_at = 1 WHERE received_by = 2 AND seq = 7", "message 7 of inbox 2 is"),
    ("UPDATE inbox SET last_sent_at = 1 WHERE user_id = 2", "inbox 2 is older than its last"),
    ("INSERT INTO message VALUES (9, 1, 1, 1, '', NULL, NULL)", "messages of inbox 9"),
    ("UPDATE message SET sent_by = 9 WHERE received_by = 2 AND seq = 201", "the sender 9"),
    ("UPDATE message SET deleted_at = 1 WHERE received_by = 2 AND seq = 7", "message 7 of inbox 2"),
    ("DELETE FROM inbox WHERE user_id = 2", "account 2 has no inbox"),
    ("INSERT INTO inbox VALUES (9, 0, 0, 0, 0, 0, 0)", "inbox 9 has no account"),
    ("UPDATE inbox SET text_bytes = 7 WHERE user_id = 2", "inbox 2 is said to have 7 bytes"),
    ("UPDATE inbox SET removed_seq = 999", "its first 999 are removed"),
    ("UPDATE account SET username_folded = 'Ann' WHERE id = 1", "account 1 is not found"),
    ("UPDATE account SET password_hash = NULL WHERE id = 1", "account 1 has no password"),
    ("UPDATE token SET user_id = 9", "of user 9, who does not exist"),
    ("UPDATE account SET disabled_at = 1 WHERE id = 1", "of user 1, who is disabled"),
    ("UPDATE token SET digest = x'00'", "is not stored as a hash"),
    ("INSERT INTO idempotency VALUES (9, 'k', zeroblob(32), 1, 1)", "keys of user 9"),
    ("INSERT INTO idempotency VALUES (1, 'k', x'00', 1, 1)", "a key of user 1"),
    ("INSERT INTO block VALUES (9, 1)", "a block of user 9"),
    ("UPDATE block SET blocked_id = 9", "user 1 blocks 9"),
    ("INSERT INTO erasure (user_id, began_at, due_at) VALUES (1, 0, 0)", "1 are being erased"),
    ("DELETE FROM contact WHERE received_by = 2", "user 1 has written to 2"),
    ("DELETE FROM sync_state", "changes of user 1"),
    ("UPDATE sync_state SET last_change = 0", "of user 1 is past the last"),
    ("UPDATE conversation_summary SET read_seq = 99", "user 1 has read or received more of 2"),
    ("UPDATE conversation_summary SET sent_seq = 999", "user 1 has sent 2 more"),
    ("UPDATE delivered SET seq = 999", "more of inbox 2 is delivered"),
    ("DELETE FROM conversation WHERE received_by = 2 AND seq = 7", "messages are in the index"),
    ("UPDATE conversation SET sent_by = 2 WHERE received_by = 2 AND seq = 7", "which is another"),
]


@pytest.mark.parametrize(("damage", "found"), DAMAGES)
def test_each_damage_is_found(copy: Path, damage: str, found: str) -> None:
    with closing(sqlite3.connect(copy)) as db:
        assert db.execute(damage).rowcount > 0
        db.commit()
    assert any(found in text for text in maintenance(copy).check())


def test_each_statement_finds_some_damage() -> None:
    assert len(SQLITE) <= len(DAMAGES)


def test_a_damaged_file_is_found(copy: Path) -> None:
    content = bytearray(copy.read_bytes())
    content[4096 * 5 : 4096 * 6] = b"\xff" * 4096
    copy.write_bytes(content)
    try:
        found = maintenance(copy).check()
    except MaintenanceError as error:
        found = [str(error)]
    assert found


def test_a_copy_of_an_old_schema_is_not_checked(copy: Path) -> None:
    with closing(sqlite3.connect(copy)) as db:
        db.execute("PRAGMA user_version = 7")
    assert "run chatd db upgrade" in failure(maintenance(copy).check)
    status = maintenance(copy).status()
    assert (status.schema, status.schema_needed, status.accounts) == (7, KNOWN[-1].version, None)


def test_status_tells_what_there_is(database: Database, copy: Path) -> None:
    running = maintenance(database.path).status()
    assert running.used_by == f"process {os.getpid()}"
    assert running.log_bytes
    status = maintenance(copy).status()
    assert status.used_by is None
    assert (status.log_bytes, status.bytes) == (0, copy.stat().st_size)
    assert (status.accounts, status.disabled, status.messages) == (2, 0, 205)
    assert status.oldest_message_at == database.now()
    assert "there is no database" in failure(maintenance(Path(f"{copy}.none")).status)
    (copy.parent / "other.db").write_bytes(b"no database at all" * 100)
    failure(maintenance(copy.parent / "other.db").status)


def test_vacuum_returns_space_to_the_disk(database: Database, copy: Path) -> None:
    with closing(sqlite3.connect(copy)) as db:
        db.execute("DELETE FROM conversation")
        db.execute("DELETE FROM message")
        db.commit()
    before = maintenance(copy).status()
    assert before.free_bytes
    maintenance(copy).vacuum()
    after = maintenance(copy).status()
    assert after.free_bytes == 0
    assert after.bytes == copy.stat().st_size < before.bytes
    assert "stop it first" in failure(maintenance(database.path).vacuum)
