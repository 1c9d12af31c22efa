"""Migrations of an existing database file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from chatd.errors import Blocked
from chatd.model import ALL_SCOPES, Draft, Message, Revision, Token
from chatd.store.migrations import Migration, migrations
from chatd.store.sqlite.file import APPLICATION_ID
from tests.contracts.helpers import (
    add_accounts,
    add_token,
    digest,
    owners,
    read_conversation,
    read_inbox,
    send_many,
)
from tests.doubles import result_of
from tests.store.sqlite.database import (
    Database,
    run_now,
)

PRESENT = len(migrations("sqlite"))

NEXT = Migration(
    PRESENT + 1,
    "next_mood.sql",
    "ALTER TABLE account ADD COLUMN mood TEXT;\nCREATE INDEX m ON account (mood);",
)
WRONG = Migration(
    PRESENT + 2, "wrong.sql", "CREATE TABLE third (x);\nALTER TABLE nowhere ADD COLUMN y;"
)


def known(*more: Migration) -> list[Migration]:
    """The present migrations and further ones."""
    return [*migrations("sqlite"), *more]


def backups(database: Database) -> list[Path]:
    """The backups in the folder of the database."""
    return sorted(database.path.parent.glob("*.backup*"))


def test_a_database_of_a_newer_chatd_is_refused_and_not_changed(database: Database) -> None:
    result_of(database.open().close())
    database.opened.clear()
    newer = len(migrations("sqlite")) + 1
    database.sql(f"PRAGMA user_version = {newer}")
    content = database.path.read_bytes()
    assert f"has schema version {newer}" in database.refused()
    assert database.path.read_bytes() == content


def test_a_new_database_has_the_newest_schema_and_the_application_id(database: Database) -> None:
    database.open()
    assert database.sql("PRAGMA user_version") == [(PRESENT,)]
    assert database.sql("PRAGMA application_id") == [(APPLICATION_ID,)]
    assert backups(database) == []


def test_a_migration_keeps_the_data_and_makes_a_backup_first(database: Database) -> None:
    store = database.open(known())
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    sent = run_now(send_many(store, ann, bob, 20))
    epoch = store.epoch
    result_of(store.close())
    store = database.open(known(NEXT))
    assert run_now(read_inbox(store, bob)) == sent
    assert store.epoch == epoch
    assert database.sql("SELECT mood FROM account") == [(None,), (None,)]
    assert database.sql("PRAGMA user_version") == [(PRESENT + 1,)]
    [copy] = backups(database)
    assert copy.name.startswith(f"chatd.db.v{PRESENT}.")
    assert copy.stat().st_mode & 0o777 == 0o600
    result_of(store.close())
    # The backup can be opened by the version that made it.
    database.path = copy
    store = database.open(known())
    assert run_now(read_inbox(store, bob)) == sent
    assert store.epoch != epoch


def test_an_up_to_date_database_is_not_backed_up(database: Database) -> None:
    for _ in range(3):
        result_of(database.open(known(NEXT)).close())
    assert backups(database) == []


def test_a_failing_migration_leaves_the_old_version_intact(database: Database) -> None:
    store = database.open(known())
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    run_now(send_many(store, ann, bob, 20))
    result_of(store.close())
    wrong = Migration(PRESENT + 1, "wrong.sql", WRONG.sql)
    assert "no such table: nowhere" in database.refused(known(wrong))
    assert database.sql("PRAGMA user_version") == [(PRESENT,)]
    assert database.sql("SELECT count(*) FROM sqlite_schema WHERE name = 'third'") == [(0,)]
    assert len(backups(database)) == 1
    store = database.open(known())
    assert len(run_now(read_inbox(store, bob))) == 20


def test_migrations_before_a_failing_one_are_kept(database: Database) -> None:
    result_of(database.open(known()).close())
    database.refused(known(NEXT, WRONG))
    assert database.sql("PRAGMA user_version") == [(PRESENT + 1,)]
    database.open(known(NEXT))


def test_a_new_database_whose_migration_fails_can_be_opened_later(database: Database) -> None:
    wrong = Migration(1, "001_wrong.sql", WRONG.sql)
    database.refused([wrong])
    database.open()


def test_the_last_statement_of_a_migration_needs_no_semicolon(database: Database) -> None:
    database.open(
        known(Migration(PRESENT + 1, "next.sql", "CREATE TABLE a (x);\nCREATE TABLE b (x)\n"))
    )
    assert database.sql("SELECT name FROM sqlite_schema WHERE name IN ('a', 'b')") == [
        ("a",),
        ("b",),
    ]


def test_conversations_are_kept_when_their_index_is_migrated(database: Database) -> None:
    texts = [str(number) for number in range(300)]
    old_migrations = migrations("sqlite")[:2]
    old = sqlite3.connect(database.path)
    for migration in old_migrations:
        old.executescript(migration.sql)
    old.executescript(f"PRAGMA user_version = 2; PRAGMA application_id = {APPLICATION_ID}")
    for user_id, name in enumerate(("ann", "bob", "cat"), 1):
        old.execute(
            "INSERT INTO account (id, username, username_folded, date_joined) VALUES (?, ?, ?, 0)",
            (user_id, name, name),
        )
    old.execute("INSERT INTO inbox VALUES (1, 0, 0), (2, ?, ?), (3, 0, 0)", (len(texts),) * 2)
    old.executemany(
        "INSERT INTO message VALUES (2, ?, ?, ?, ?)",
        [(seq, 1 + seq % 2 * 2, seq, text) for seq, text in enumerate(texts, 1)],
    )
    old.commit()
    old.close()
    store = database.open()
    found = run_now(read_conversation(store, 2, 3, 100))
    assert [message.text for message in found] == texts[::2][::-1]
    assert database.sql("SELECT * FROM contact ORDER BY 1, 2") == [(1, 2), (3, 2)]


def test_contacts_are_found_among_indexed_and_newer_messages(database: Database) -> None:
    store = database.open()
    ann, bob, cat, dan = run_now(add_accounts(store, "ann", "bob", "cat", "dan"))
    run_now(send_many(store, ann, bob, 200))
    run_now(send_many(store, cat, bob, 3))
    run_now(send_many(store, ann, cat, 1))
    run_now(send_many(store, cat, cat, 300))
    run_now(send_many(store, cat, dan, 1))
    result_of(store.delete_account(dan))
    result_of(store.close())
    written = database.sql("SELECT * FROM contact ORDER BY 1, 2")
    assert written == [(ann, bob), (ann, cat), (cat, bob), (cat, cat)]
    newer = ("contact", "sync_state", "conversation_summary", "change", "delivered", "erasure")
    for table in newer:
        database.sql(f"DROP TABLE {table}")
    database.sql("ALTER TABLE account DROP COLUMN disabled_at")
    database.sql("ALTER TABLE history DROP COLUMN backed_up_at")
    for column in ("removed_seq", "removed_at", "text_bytes"):
        database.sql(f"ALTER TABLE inbox DROP COLUMN {column}")
    database.sql("PRAGMA user_version = 5")
    database.open()
    assert database.sql("SELECT * FROM contact ORDER BY 1, 2") == written


def test_contacts_are_migrated_without_reading_all_messages() -> None:
    db = sqlite3.connect(":memory:")
    for migration in migrations("sqlite")[:6]:
        db.executescript(migration.sql)
    [statement] = [
        each for each in migrations("sqlite")[5].sql.split(";") if "WITH RECURSIVE" in each
    ]
    plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}")]
    db.close()
    assert "SEARCH conversation USING PRIMARY KEY (received_by=? AND sent_by>?)" in plan
    assert not [line for line in plan if line.startswith("SCAN conversation")], plan


def test_tokens_are_kept_when_they_get_ids(database: Database) -> None:
    old = sqlite3.connect(database.path)
    for migration in migrations("sqlite")[:3]:
        old.executescript(migration.sql)
    old.executescript(f"PRAGMA user_version = 3; PRAGMA application_id = {APPLICATION_ID}")
    for user_id, name in enumerate(("ann", "bob"), 1):
        old.execute(
            "INSERT INTO account (id, username, username_folded, date_joined) VALUES (?, ?, ?, 0)",
            (user_id, name, name),
        )
        old.execute("INSERT INTO inbox VALUES (?, 0, 0, 0)", (user_id,))
    created = {digest(f"{number}"): 1000 - number for number in range(10)}
    old.executemany(
        "INSERT INTO token VALUES (?, ?, ?)",
        [(token, 1 + at % 2, at) for token, at in created.items()],
    )
    old.commit()
    old.close()
    store = database.open()
    assert run_now(owners(store, *created)) == [1 + at % 2 for at in created.values()]
    tokens = [*result_of(store.tokens(1)), *result_of(store.tokens(2))]
    for token in tokens:
        at = created[token.digest]
        assert token == Token(at - 990, token.digest, None, ALL_SCOPES, at, None, None)
    assert result_of(store.delete_token_by_id(1, 10)) is True
    added = run_now(add_token(store, 1, "new"))
    assert added.id == 11, "ids are never reused"
    [copy] = backups(database)
    assert copy.name.startswith("chatd.db.v3.")


def test_messages_of_the_first_release_can_be_revised_and_senders_blocked(
    database: Database,
) -> None:
    old = sqlite3.connect(database.path)
    for migration in migrations("sqlite")[:3]:
        old.executescript(migration.sql)
    old.executescript(f"PRAGMA user_version = 3; PRAGMA application_id = {APPLICATION_ID}")
    old.executescript(
        """
        INSERT INTO account (username, username_folded, date_joined)
            VALUES ('ann', 'ann', 0), ('bob', 'bob', 0);
        INSERT INTO inbox VALUES (1, 0, 0, 0), (2, 2, 7, 0);
        INSERT INTO message VALUES (2, 1, 1, 6, 'one'), (2, 2, 1, 7, 'two');
        """
    )
    old.close()
    store = database.open()
    sent = [Message(2, 1, 1, 6, "one"), Message(2, 2, 1, 7, "two")]
    assert run_now(read_inbox(store, 2)) == sent
    edited = result_of(store.revise(Revision(1, 2, 2, "new")))
    assert run_now(read_inbox(store, 2)) == [sent[0], edited]
    result_of(store.block(2, 1))
    [refused] = result_of(store.append([Draft(1, 2, "x")]))
    assert isinstance(refused, Blocked)
