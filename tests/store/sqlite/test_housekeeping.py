"""Background deletion of old keys and of deleted accounts' data."""

from __future__ import annotations

from itertools import pairwise

import pytest

from chatd.errors import StoreUnavailable
from chatd.model import Appended, Draft, ReadAfter, TokenOptions
from chatd.store.results import KEY_SECONDS
from chatd.store.sqlite import accounts as sqlite_accounts
from chatd.store.sqlite import housekeeping
from chatd.store.sqlite.housekeeping import HOUSEKEEPING_SECONDS, RETENTION_SECONDS
from chatd.store.sqlite.store import SqliteStore
from tests.conftest import LoggedFailures
from tests.contracts.helpers import (
    add_accounts,
    add_token,
    appended,
    digest,
    draft,
    read_inbox,
    send,
)
from tests.doubles import result_of
from tests.store.sqlite.database import (
    Database,
    count,
    message_count,
    run_now,
    step_until,
)


def test_a_large_deleted_inbox_is_purged_in_steps(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_accounts, "PURGE_STEP", 200)
    store = database.open_stepped()
    writer, reader = database.workers["writer"], database.workers["reader"]
    while writer.step():
        pass
    step_until(writer, store.add_account("ann", "a@x", "h"))
    step_until(writer, store.add_account("bob", "b@x", "h"))
    step_until(writer, store.append([Draft(1, 2, "x")] * 700))
    deletion = store.delete_account(2)
    writer.step()
    assert result_of(deletion) is True
    found = store.read([ReadAfter(2, 0, 100)])
    reader.step()
    assert result_of(found) == [None]
    left = [message_count(database)]
    # Other writes are executed between the steps.
    while writer.pending:
        sent = store.append([Draft(2, 1, "x")])
        writer.step()
        left.append(message_count(database))
        writer.step()
        assert isinstance(result_of(sent)[0], Appended)
    assert left[0] == 700
    assert all(before - after <= 200 for before, after in pairwise(left))
    assert count(database, "SELECT count(*) FROM message WHERE received_by = 2") == 0
    assert count(database, "SELECT count(*) FROM purge") == 0
    closing_store = store.close()
    while writer.step() or reader.step():
        pass
    result_of(closing_store)


def test_purging_is_resumed_after_a_restart(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_accounts, "PURGE_STEP", 200)
    store = database.open_stepped()
    writer, reader = database.workers["writer"], database.workers["reader"]
    while writer.step():
        pass
    step_until(writer, store.add_account("ann", "a@x", "h"))
    step_until(writer, store.append([Draft(1, 1, "x")] * 1000))
    store.delete_account(1)
    writer.step()
    writer.step()
    assert message_count(database) == 800
    closed = store.close()
    while writer.step() or reader.step():
        pass
    result_of(closed)
    assert 0 < message_count(database) <= 800
    database.open()
    assert message_count(database) == 0
    assert count(database, "SELECT count(*) FROM purge") == 0


def test_a_deletion_that_ends_while_closing_starts_no_purge(
    database: Database,
) -> None:
    store = database.open_stepped()
    writer, reader = database.workers["writer"], database.workers["reader"]
    while writer.step():
        pass
    step_until(writer, store.add_account("ann", "a@x", "h"))
    deletion = store.delete_account(1)
    closed = store.close()
    while writer.step() or reader.step():
        pass
    assert result_of(deletion) is True
    result_of(closed)
    assert writer.stopped
    assert reader.stopped
    assert not writer.pending


def test_keys_are_deleted_after_48_hours(database: Database) -> None:
    store = database.open()
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    first = run_now(send(store, ann, bob, "once", "key"))
    # In steps, so that housekeeping runs as often as in reality.
    for _ in range(48):
        database.clock.pump([HOUSEKEEPING_SECONDS] * 60)
        if database.clock.seconds() < KEY_SECONDS:
            [result] = result_of(store.append([draft(ann, bob, "once", "key")]))
            assert result == Appended(first, True)
    database.clock.pump([HOUSEKEEPING_SECONDS] * 2)
    [result] = result_of(store.append([draft(ann, bob, "once", "key")]))
    assert appended(result).seq == 2
    assert count(database, "SELECT count(*) FROM idempotency") == 1


def test_any_number_of_old_keys_is_deleted_at_once(database: Database) -> None:
    store = database.open()
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    for start in range(0, 5000, 500):
        result_of(
            store.append([draft(ann, bob, "x", f"{start + number}") for number in range(500)])
        )
    database.clock.advance(KEY_SECONDS + 2 * HOUSEKEEPING_SECONDS)
    assert count(database, "SELECT count(*) FROM idempotency") == 0
    assert message_count(database) == 5000


def with_old_keys(database: Database, keys: int) -> SqliteStore:
    """A store whose threads and clock the test controls, where old keys are about to be deleted."""
    store = database.open_stepped()
    writer = database.workers["writer"]
    while writer.step():
        pass
    for name in ("ann", "bob"):
        step_until(writer, store.add_account(name, "a@x", "h"))
    drafts = [draft(1, 2, "x", f"{number}") for number in range(keys)]
    step_until(writer, store.append(drafts))
    database.sql("UPDATE idempotency SET sent_at = sent_at - ?", KEY_SECONDS * 1_000_000)
    database.clock.advance(HOUSEKEEPING_SECONDS)
    return store


def test_old_keys_are_deleted_for_a_third_of_the_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "DELETE_STEP", 10)
    store = with_old_keys(database, 35)
    writer = database.workers["writer"]
    # What else is done at that time.
    while writer.pending > 1:
        writer.step()
    left: list[int] = []
    while left[-1:] != [0]:
        # The step, for which others wait, takes half a second.
        database.clock.advance(0.5)
        writer.step()
        left.append(count(database, "SELECT count(*) FROM idempotency"))
        # Then they have the thread for twice as long.
        database.clock.advance(0.99)
        assert not writer.pending
        database.clock.advance(0.02)
    assert sorted(set(left), reverse=True) == [25, 15, 5, 0]
    close(database, store)


def test_a_store_that_closes_does_not_delete_all_old_keys_before(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "DELETE_STEP", 10)
    store = with_old_keys(database, 100)
    before = database.clock.seconds()
    close(database, store)
    assert database.clock.seconds() == before
    assert 70 <= count(database, "SELECT count(*) FROM idempotency") < 100


def close(database: Database, store: SqliteStore) -> None:
    """Close a store whose threads the test steps."""
    closed = store.close()
    writer, *others = database.workers.values()
    while writer.step() or any(worker.step() for worker in others):
        pass
    result_of(closed)


def test_a_failure_of_housekeeping_is_logged(
    database: Database, logged_failures: LoggedFailures
) -> None:
    store = database.open()
    store._write_db.execute("PRAGMA query_only = ON")
    database.clock.advance(HOUSEKEEPING_SECONDS)
    # Without old keys nothing is written, so there is no failure.
    store._write_db.execute("PRAGMA query_only = OFF")
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    run_now(send(store, ann, bob, "x", "key"))
    logged_failures.flush(StoreUnavailable)
    store._write_db.execute("PRAGMA query_only = ON")
    database.clock.advance(KEY_SECONDS + HOUSEKEEPING_SECONDS)
    # Old keys and expired tokens.
    failure, _ = logged_failures.flush(StoreUnavailable)
    assert "the database cannot do this now" in failure.getErrorMessage()
    store._write_db.execute("PRAGMA query_only = OFF")
    database.clock.advance(HOUSEKEEPING_SECONDS)
    assert count(database, "SELECT count(*) FROM idempotency") == 0


def test_a_clock_that_is_set_forward_deletes_nothing_that_is_new(database: Database) -> None:
    """By mistake, or by a machine that has lost the time."""
    store = database.open()
    store.keep = KEY_SECONDS * 1_000_000
    ann, bob = run_now(add_accounts(store, "ann", "bob"))
    sent = run_now(send(store, ann, bob, "x", "key"))
    database.now.offset = 365 * 86_400_000_000
    database.clock.advance(RETENTION_SECONDS)
    database.now.offset = 0
    database.clock.advance(RETENTION_SECONDS)
    assert result_of(store.append([draft(ann, bob, "x", "key")])) == [Appended(sent, True)]
    assert run_now(read_inbox(store, bob)) == [sent]
    database.clock.advance(2 * KEY_SECONDS)
    assert count(database, "SELECT count(*) FROM idempotency") == 0
    assert count(database, "SELECT count(*) FROM message") == 0


def test_expired_tokens_are_deleted(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "DELETE_STEP", 2)
    store = database.open()
    [ann] = run_now(add_accounts(store, "ann"))
    for number in range(5):
        result_of(store.add_token(ann, digest(f"{number}"), TokenOptions(lifetime=1)))
    later = TokenOptions(lifetime=3_600_000_000)
    kept = [
        run_now(add_token(store, ann, "later", later)),
        run_now(add_token(store, ann, "endless")),
    ]
    assert count(database, "SELECT count(*) FROM token") == 7
    database.clock.advance(HOUSEKEEPING_SECONDS)
    assert count(database, "SELECT count(*) FROM token") == 2
    assert result_of(store.tokens(ann)) == kept[::-1]


def test_the_last_backup_is_known_within_a_minute(database: Database) -> None:
    store = database.open()
    assert store.backed_up_at() is None
    store._write_db.execute("UPDATE history SET backed_up_at = 7")
    database.clock.advance(HOUSEKEEPING_SECONDS)
    assert store.backed_up_at() == 7
    result_of(store.close())
    database.opened.clear()
    assert database.open().backed_up_at() == 7


def test_several_deleted_accounts_are_purged_one_step_at_a_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_accounts, "PURGE_STEP", 10)
    store = database.open_stepped()
    writer = database.workers["writer"]
    while writer.step():
        pass
    for name in ("ann", "bob", "cat", "dan"):
        step_until(writer, store.add_account(name, "a@x", "h"))
    for user_id in (2, 3, 4):
        step_until(writer, store.append([Draft(1, user_id, "x")] * 30))
    deletions = [store.delete_account(user_id) for user_id in (2, 3, 4)]
    for deletion in deletions:
        step_until(writer, deletion)
    steps = 0
    while writer.pending:
        # What is sent meanwhile waits for one step.
        assert writer.pending == 1
        writer.step()
        steps += 1
    assert steps > 9
    assert message_count(database) == 0
    closing = store.close()
    while writer.step() or database.workers["reader"].step():
        pass
    result_of(closing)
