"""Creating, checking and migrating the schema of a PostgreSQL database."""

from __future__ import annotations

from typing import Any, Final

import psycopg2
from twisted.internet.error import ConnectionDone

from chatd.errors import StartError
from chatd.postgres.address import Address
from chatd.postgres.connection import Connector, Rows, Unreachable, reason
from chatd.store.epoch import new_epoch
from chatd.store.migrations import Migration, pending

# Key of the advisory lock under which processes migrate one after another: "chatd" in ASCII.
LOCK: Final = 0x6368617464

VERSION: Final = "SELECT version FROM schema_version"
EXISTS: Final = "SELECT to_regclass('schema_version') IS NOT NULL"
_OTHER_TABLES: Final = (
    "SELECT count(*) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
    " WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"
)
# Differs for a database that was restored from a dump or copied from a template.
_MADE_IN: Final = (
    "SELECT (SELECT system_identifier FROM pg_control_system()) || '/' || oid"
    " FROM pg_database WHERE datname = current_database()"
)


async def prepare(
    address: Address, reactor: Any, known: list[Migration], *, upgrade: bool = True
) -> str:
    """Create or migrate the database and return its epoch; raises `StartError`.

    Also if `upgrade` is False and there is something to create or to migrate.
    """
    where = f"the database {address.location}"
    try:
        connection = await Connector(address, reactor).connect()
    except Unreachable as problem:
        raise StartError(f"cannot reach {where}: {problem}") from None
    try:
        # Closing the connection rolls back.
        await connection.query("begin")
        epoch = await _prepare_locked(connection.query, known, where, upgrade)
        await connection.query("commit")
    except (psycopg2.Error, ConnectionDone) as problem:
        raise StartError(f"cannot use {where}: {reason(problem)}") from None
    finally:
        connection.abort()
    return epoch


async def version(run: Any) -> int:
    """The version of the schema; `run` runs a statement and returns its rows."""
    found: Rows = await run(VERSION)
    number: int = found[0][0]
    return number


async def _prepare_locked(run: Any, known: list[Migration], where: str, upgrade: bool) -> str:
    # Released at the end of the transaction; works with transaction poolers, too.
    await run("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
    [[encoding]] = await run("SHOW server_encoding")
    if encoding != "UTF8":
        raise StartError(f"{where} has the encoding {encoding}: chatd needs UTF8")
    [[exists]] = await run(EXISTS)
    if exists:
        found = await version(run)
    else:
        [[other_tables]] = await run(_OTHER_TABLES)
        if other_tables:
            raise StartError(f"{where} holds tables that were not made by chatd")
        found = 0
    for migration in pending(known, found, where, upgrade=upgrade):
        await run(migration.sql)
        await run("UPDATE schema_version SET version = %s", (migration.version,))
    [[made_in]] = await run(_MADE_IN)
    [[epoch, epoch_made_in]] = await run("SELECT epoch, made_in FROM history")
    if epoch is None or epoch_made_in != made_in:
        epoch = new_epoch()
        await run("UPDATE history SET epoch = %s, made_in = %s", (epoch, made_in))
    return str(epoch)
