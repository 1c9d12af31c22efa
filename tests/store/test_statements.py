"""Shared statements: conversion for each database, and query plans in SQLite."""

import sqlite3
from typing import Any

import pytest

from chatd.model import UNLIMITED
from chatd.store import statements, token_statements
from chatd.store.migrations import migrations
from chatd.store.sqlite import accounts as sqlite_accounts
from chatd.store.sqlite import chats as sqlite_chats
from chatd.store.statements import Statement, postgres, sqlite


@pytest.mark.parametrize(
    ("sql", "rendered"),
    [
        ("SELECT 1", "SELECT 1"),
        ("WHERE id = :user_id AND at<:at", "WHERE id = %(user_id)s AND at<%(at)s"),
        ("(:a,:b)", "(%(a)s,%(b)s)"),
        (":ids::bigint[]", "%(ids)s::bigint[]"),
        ("'{}'::text", "'{}'::text"),
        ("LIKE 'a%'", "LIKE 'a%%'"),
    ],
)
def test_parameters_are_converted_for_psycopg2(sql: str, rendered: str) -> None:
    assert postgres(sql) == rendered


@pytest.mark.parametrize(
    ("sql", "rendered"),
    [
        ("WHERE id = :user_id", "WHERE id = :user_id"),
        ("SELECT 1 FROM a FOR NO KEY UPDATE\nON CONFLICT", "SELECT 1 FROM a\nON CONFLICT"),
        ("LIMIT :step\n    FOR UPDATE SKIP LOCKED\n)", "LIMIT :step\n)"),
    ],
)
def test_row_locks_are_removed_for_sqlite(sql: str, rendered: str) -> None:
    assert sqlite(sql) == rendered


def test_conversations_are_read_from_indexes_in_order() -> None:
    values = dict.fromkeys(("received_by", "sent_by", "time", "seq", "limit"), 1)
    parts = {
        sqlite_chats.NEW_OF_CONVERSATION: [
            "SEARCH message USING PRIMARY KEY (received_by=? AND seq>?)"
        ],
        sqlite_chats.INDEXED_OF_CONVERSATION: [
            "SEARCH conversation USING PRIMARY KEY"
            " (received_by=? AND sent_by=? AND sent_at>? AND (sent_at,seq)<(?,?))",
            "SEARCH message USING PRIMARY KEY (received_by=? AND seq=?)",
        ],
    }
    for sql, searches in parts.items():
        plan = sqlite_plan(statements.Statement(sql, values, list))
        assert [line for line in plan if " message" in line or " conversation" in line] == searches
        assert not [line for line in plan if "B-TREE" in line], plan


def test_deleting_old_keys_does_not_scan() -> None:
    plan = sqlite_plan(statements.delete_old_keys(0, 1))
    assert "SEARCH idempotency USING PRIMARY KEY (sent_by=? AND key=?)" in plan
    assert not [line for line in plan if line.startswith("SCAN")], plan


def test_users_are_found_by_an_index_without_deleted_ones() -> None:
    plan = sqlite_plan(statements.find_users("an", 20))
    assert plan == [
        "SEARCH account USING INDEX account_directory (username_folded>? AND username_folded<?)"
    ]


def test_tokens_are_listed_from_an_index_in_order() -> None:
    plan = sqlite_plan(token_statements.tokens(1, 0, sqlite_accounts.TOKENS))
    assert sorted(plan) == [
        "SEARCH inbox USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH token USING INDEX token_user (user_id=?)",
    ]


def test_expired_tokens_are_found_by_an_index() -> None:
    plan = sqlite_plan(token_statements.delete_expired(0, 1))
    assert "SEARCH token USING INDEX token_expiry (expires_at<?)" in plan
    assert not [line for line in plan if line.startswith("SCAN")], plan


def test_tokens_beyond_the_bound_are_found_by_their_owner() -> None:
    for sql in (token_statements.REMOVE_EXCESS, token_statements.ADDED):
        plan = sqlite_plan(token_statements.add(1, b"", UNLIMITED, None, 0, sql))
        assert [line for line in plan if "token USING INDEX token_user (user_id=?" in line], plan
        assert not [line for line in plan if line.startswith("SCAN token")], plan


def sqlite_plan(statement: Statement[Any]) -> list[str]:
    db = sqlite3.connect(":memory:")
    for migration in migrations("sqlite"):
        db.executescript(migration.sql)
    explained = f"EXPLAIN QUERY PLAN {sqlite(statement.sql)}"
    plan = [row[3] for row in db.execute(explained, statement.parameters)]
    db.close()
    return plan
