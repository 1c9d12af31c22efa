"""Turning a database of one server into the sharded layout, and back. No daemon may use it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import psycopg2

from chatd.maintenance import MaintenanceError
from chatd.postgres.connection import reason
from chatd.store.consistency import POSTGRES
from chatd.store.migrations import Migration
from chatd.store.postgres.maintenance import PostgresMaintenance
from chatd.store.postgres.silent import silent
from chatd.store.postgres.sync_sql import CATCH_UP
from chatd.store.sharded.schema import (
    IS_SHARDED,
    SEQUENTIALLY,
    UNTOLD,
    to_plain,
    to_sharded,
)
from chatd.store.statements import postgres

SHARDS_A_SERVER: Final = 4
"""How many shards of each table a server gets, unless it is said."""

_HAS_CITUS: Final = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')"
_SERVERS: Final = (
    "SELECT count(*) FROM pg_dist_node WHERE noderole = 'primary' AND shouldhaveshards"
)
# All of them have as many rows in both layouts.
_COUNTED: Final = (
    "account",
    "block",
    "change",
    "contact",
    "conversation_summary",
    "delivered",
    "erasure",
    "inbox",
    "message",
    "purge",
    "seen",
    "token",
)


class Sharding:
    """Changes the layout of a database, whose schema `known` leads to.

    All methods raise `MaintenanceError`, and have changed nothing then.
    """

    def __init__(self, maintenance: PostgresMaintenance, known: list[Migration]) -> None:
        self._maintenance = maintenance
        self._known = known

    def shard(self, shards: int | None) -> str:
        """Distribute the tables over the servers of Citus; returns what was done, for people.

        There are `shards` of each table, None: some for each server.
        """
        with self._maintenance.offline() as db, db.cursor() as cursor:
            cursor.execute(SEQUENTIALLY)
            if not _value(cursor, _HAS_CITUS):
                raise MaintenanceError("the database has no extension Citus: create it first")
            if _value(cursor, IS_SHARDED):
                raise MaintenanceError("the database is sharded already")
            self._check_version(cursor)
            servers = int(_value(cursor, _SERVERS))
            if not servers:
                raise MaintenanceError("Citus has no servers yet: add them first")
            for statement in POSTGRES:
                cursor.execute(statement)
                for (found,) in cursor.fetchall():
                    raise MaintenanceError(f"the database is not consistent: {found}")
            _settle(cursor)
            count = shards or servers * SHARDS_A_SERVER
            counts = self._change(cursor, to_sharded(count))
            db.commit()
        return f"{_told(counts)} are in {count} shards on {servers} servers"

    def unshard(self) -> str:
        """Bring all rows back to the coordinator; returns what was done, for people."""
        with self._maintenance.offline() as db, db.cursor() as cursor:
            cursor.execute(SEQUENTIALLY)
            if not _value(cursor, IS_SHARDED):
                raise MaintenanceError("the database is not sharded")
            self._check_version(cursor)
            untold = _value(cursor, UNTOLD)
            if untold:
                raise MaintenanceError(
                    f"{untold} transactions are not finished: let a daemon run for a minute"
                )
            counts = self._change(cursor, to_plain())
            db.commit()
        return f"{_told(counts)} are on the coordinator only"

    def _check_version(self, cursor: Any) -> None:
        cursor.execute("SELECT to_regclass('schema_version') IS NOT NULL")
        needed = self._known[-1].version
        exists = cursor.fetchall()[0][0]
        found = _value(cursor, "SELECT version FROM schema_version") if exists else None
        if found != needed:
            raise MaintenanceError(
                f"the schema has not version {needed}: run chatd db upgrade first"
            )

    def _change(self, cursor: Any, statements: Sequence[str]) -> dict[str, int]:
        """Execute the statements and count the rows, which have to be as many as before."""
        before = _counts(cursor)
        try:
            for statement in statements:
                cursor.execute(statement)
            after = _counts(cursor)
        except psycopg2.Error as error:
            raise MaintenanceError(f"the layout is as it was: {reason(error)}") from None
        if after != before:
            wrong = sorted(table for table in before if before[table] != after[table])
            raise MaintenanceError(f"the layout is as it was: rows were missing in {wrong}")
        return after


def _settle(cursor: Any) -> None:
    """Record what older transactions have done for accounts that begin to have changes."""
    cursor.execute("SELECT user_id FROM sync_state WHERE NOT settled")
    for (user_id,) in cursor.fetchall():
        found = True
        while found:
            cursor.execute(silent(postgres(CATCH_UP)), {"user_id": user_id, "settled": True})
            found = bool(cursor.fetchall())


def _counts(cursor: Any) -> dict[str, int]:
    return {table: int(_value(cursor, f"SELECT count(*) FROM {table}")) for table in _COUNTED}


def _value(cursor: Any, statement: str) -> Any:
    cursor.execute(statement)
    return cursor.fetchall()[0][0]


def _told(counts: dict[str, int]) -> str:
    return f"{counts['account']} accounts and {counts['message']} messages"
