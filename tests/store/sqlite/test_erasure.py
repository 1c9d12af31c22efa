"""Erasures in SQLite: what is sent too late, keys, and texts in the write-ahead log."""

from __future__ import annotations

from chatd.model import Draft, Erased, ErasedMessage, IdempotencyKey, ReadAfter
from chatd.store.erasure_statements import ERASE_MESSAGES, LATE_SECONDS
from chatd.store.sqlite.chats import INDEX_STEP
from chatd.store.sqlite.housekeeping import HOUSEKEEPING_SECONDS
from chatd.store.sqlite.store import SqliteStore
from tests.doubles import result_of
from tests.store.sqlite.database import Database, count


def add_accounts(store: SqliteStore, *names: str) -> list[int]:
    return [result_of(store.add_account(name, "e@x", "hash")).id for name in names]


def steps(store: SqliteStore, user_id: int | None) -> list[ErasedMessage]:
    """What is erased until nothing is left for now."""
    found: list[ErasedMessage] = []
    more = True
    while more:
        erased = result_of(store.erase(user_id))
        found += erased.messages
        more = erased.more
    return found


def test_what_was_under_way_is_deleted_a_minute_later(database: Database) -> None:
    store = database.open()
    ann, bob, cat = add_accounts(store, "ann", "bob", "cat")
    result_of(store.append([Draft(ann, bob, "before")]))
    result_of(store.delete_account(ann, erase=True))
    assert steps(store, ann) == [ErasedMessage(bob, 1, ann)]
    result_of(store.append([Draft(ann, bob, "under way"), Draft(ann, cat, "to somebody new")]))
    assert steps(store, None) == []
    database.clock.advance(LATE_SECONDS)
    assert steps(store, None) == [ErasedMessage(bob, 2, ann), ErasedMessage(cat, 1, ann)]
    assert count(database, "SELECT count(*) FROM erasure") == 0
    database.clock.advance(LATE_SECONDS)
    assert result_of(store.erase()) == Erased()


def test_messages_in_the_index_and_after_it_are_deleted(database: Database) -> None:
    store = database.open()
    ann, bob = add_accounts(store, "ann", "bob")
    for total in (INDEX_STEP, 3):
        result_of(store.append([Draft(ann, bob, "x")] * total))
    result_of(store.delete_account(ann, erase=True))
    assert len(result_of(store.erase(ann)).messages) == ERASE_MESSAGES
    assert len(steps(store, ann)) == INDEX_STEP + 3 - ERASE_MESSAGES
    [inbox] = result_of(store.read([ReadAfter(bob, 0, 1000)]))
    assert inbox is not None
    assert {message.text for message in inbox.messages} == {""}


def test_no_file_contains_the_text_or_the_key_afterwards(database: Database) -> None:
    store = database.open()
    ann, bob = add_accounts(store, "ann", "bob")
    result_of(store.append([Draft(ann, bob, "a secret text", IdempotencyKey("a key", b"x" * 32))]))
    result_of(store.delete_account(ann, erase=True))
    assert steps(store, ann) == [ErasedMessage(bob, 1, ann)]
    assert count(database, "SELECT count(*) FROM idempotency") == 0
    database.clock.advance(HOUSEKEEPING_SECONDS)
    files = list(database.path.parent.glob(database.path.name + "*"))
    assert not any(b"a secret text" in file.read_bytes() for file in files)
