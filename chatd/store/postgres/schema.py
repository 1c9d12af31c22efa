"""Creating, checking and migrating the schema of a PostgreSQL database."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import psycopg2
from twisted.internet.error import ConnectionDone

from chatd.errors import StartError
from chatd.postgres.address import Address
from chatd.postgres.connection import Connector, Rows, Unreachable, reason
from chatd.store.epoch import new_epoch
from chatd.store.migrations import Migration, pending
from chatd.store.sharded.schema import (
    IS_SHARDED,
    LACKS_FUNCTION,
    SEQUENTIALLY,
    delegation,
    distribution,
)

# Key of the advisory lock under which processes migrate one after another: "chatd" in ASCII.
LOCK: Final = 0x6368617464

VERSION: Final = "SELECT version FROM schema_version"
EXISTS: Final = "SELECT to_regclass('schema_version') IS NOT NULL"
_OTHER_TABLES: Final = (
    "SELECT count(*) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
    " WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"
    # Those of extensions are nobody's data.
    " AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass"
    " AND objid = c.oid AND deptype = 'e')"
)
# Where `chatd db restore` keeps what it replaces.
_KEPT: Final = """
SELECT max(n.nspname::text) FROM pg_namespace AS n JOIN pg_class AS c ON c.relnamespace = n.oid
WHERE c.relname = 'schema_version' AND starts_with(n.nspname, current_schema() || '_replaced_')
"""
# Differs for a database that was restored from a dump or copied from a template.
_MADE_IN: Final = (
    "SELECT (SELECT system_identifier FROM pg_control_system()) || '/' || oid"
    " FROM pg_database WHERE datname = current_database()"
)


class Prepared(NamedTuple):
    """A database that can be used: its epoch, and whether its tables are sharded."""

    epoch: str
    is_sharded: bool


async def prepare(
    address: Address, reactor: Any, known: list[Migration], *, upgrade: bool = True
) -> Prepared:
    """Create or migrate the database; raises `StartError`.

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
        prepared = await _prepare_locked(connection.query, known, where, upgrade)
        await connection.query("commit")
    except (psycopg2.Error, ConnectionDone) as problem:
        raise StartError(f"cannot use {where}: {reason(problem)}") from None
    finally:
        connection.abort()
    return prepared


async def version(run: Any) -> int:
    """The version of the schema; `run` runs a statement and returns its rows."""
    found: Rows = await run(VERSION)
    number: int = found[0][0]
    return number


async def _prepare_locked(run: Any, known: list[Migration], where: str, upgrade: bool) -> Prepared:
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
        [[kept]] = await run(_KEPT)
        if kept is not None:
            raise StartError(
                f"{where} is empty, but its schema {kept} is not: a restore was interrupted;"
                " repeat it, or drop or rename that schema"
            )
        found = 0
    [[is_sharded]] = await run(IS_SHARDED)
    if is_sharded:
        await run(SEQUENTIALLY)
    for migration in pending(known, found, where, upgrade=upgrade):
        await run(migration.sql)
        await run("UPDATE schema_version SET version = %s", (migration.version,))
        if is_sharded:
            for statement in distribution():
                await run(statement)
    if is_sharded and upgrade:
        [[lacks_function]] = await run(LACKS_FUNCTION)
        for statement in delegation() if lacks_function else ():
            await run(statement)
    [[made_in]] = await run(_MADE_IN)
    [[epoch, epoch_made_in]] = await run("SELECT epoch, made_in FROM history")
    if epoch is None or epoch_made_in != made_in:
        epoch = new_epoch()
        await run("UPDATE history SET epoch = %s, made_in = %s", (epoch, made_in))
    return Prepared(str(epoch), is_sharded)
