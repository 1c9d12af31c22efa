"""Maintenance of a PostgreSQL database: status, backup, restore, check and vacuum.

See `Maintenance`. Copies are made by pg_dump and put back by pg_restore, which have to be those of
the server's release or of a newer one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

from chatd.errors import StartError
from chatd.maintenance import DatabaseStatus, MaintenanceError
from chatd.postgres.address import Address
from chatd.postgres.connection import reason
from chatd.runtime.partial_file import partial_file
from chatd.store.consistency import POSTGRES, POSTGRES_COUNTS, POSTGRES_OWN
from chatd.store.migrations import Migration, pending
from chatd.store.postgres.plain import NOW
from chatd.store.postgres.schema import LOCK
from chatd.store.sharded.schema import IS_SHARDED
from chatd.store.sharded.shards import READ_SHARDS, Server, address_of, shard_map
from chatd.store.sharded.tables import DISTRIBUTED

STOPPING_SECONDS: Final = 1.0
"""For how long the connections of a daemon that has just stopped may still be seen."""

_SCHEMA: Final = "SELECT current_schema(), to_regclass('schema_version') IS NOT NULL"
_USERS: Final = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
    AND application_name LIKE 'chatd%'
"""
# What rows of the average width would take less than the table does: each has 28 bytes of headers,
# and each page of 8 KB one of 24 bytes.
_FREE: Final = """
SELECT coalesce(sum(
    greatest(0, pg_relation_size(oid) - 8192 * ceil(rows * width / 8168))), 0)::bigint
FROM (
    SELECT oid, reltuples AS rows, 28 + 8 * ceil((
        SELECT coalesce(sum((1 - null_frac) * avg_width), 0) FROM pg_stats
        WHERE schemaname = current_schema() AND tablename = relname) / 8) AS width
    FROM pg_class
    WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND reltuples >= 0
) AS analyzed
"""
_TABLES: Final = """
SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = current_schema() ORDER BY tablename
"""
# A process of a version that knows nothing of bytes, and went on after the upgrade, counts none.
_MISCOUNTED: Final = """
SELECT user_id FROM inbox LEFT JOIN (
    SELECT received_by, sum(octet_length(text)) AS size
    FROM message JOIN inbox ON user_id = received_by AND seq > removed_seq GROUP BY received_by
) AS held ON received_by = user_id
WHERE NOT closed AND text_bytes <> coalesce(size, 0)
"""
# In statements of their own: the second one sees what was committed before the lock was taken.
_LOCK_INBOX: Final = "SELECT FROM inbox WHERE user_id = %s FOR NO KEY UPDATE"
_COUNT_BYTES: Final = """
UPDATE inbox SET text_bytes = (
    SELECT coalesce(sum(octet_length(text)), 0) FROM message
    WHERE received_by = user_id AND seq > removed_seq
) WHERE user_id = %s
"""


class PostgresMaintenance:
    """A `Maintenance` of the database at `address`, whose schema `known` leads to.

    If its tables are sharded, `locate` makes the addresses of the other servers.
    """

    def __init__(
        self,
        address: Address,
        known: list[Migration],
        locate: Callable[[Address, Server], Address] = address_of,
    ) -> None:
        self._address = address
        self._known = known
        self._locate = locate
        self._dsn = ""

    def status(self) -> DatabaseStatus:
        """See `Maintenance`; only the schema is known if it is not the present one."""
        with self._connect() as db:
            version = _version(db)
            needed = self._known[-1].version
            counts: list[int | None] = [None] * 7
            if version == needed:
                # Sums are decimal numbers to psycopg2.
                counts = [None if each is None else int(each) for each in self._counts(db)]
            [[users]] = _rows(db, _USERS)
            [[size]] = _rows(db, "SELECT pg_database_size(current_database())")
            [[free]] = _rows(db, _FREE)
            return DatabaseStatus(
                self._address.location,
                version,
                needed,
                f"{users} connections" if users else None,
                size,
                None,
                free,
                *counts,
            )

    def backup(self, target: str) -> None:
        """See `Maintenance`; the copy is in pg_dump's custom format."""
        if os.path.exists(target):
            raise MaintenanceError(f"{target} exists already")
        with self._connect() as db:
            version = _version(db)
            _refuse_sharded(db)
            [[schema, _]] = _rows(db, _SCHEMA)
            [[now]] = _rows(db, NOW)
        try:
            with partial_file(target) as (_, descriptor):
                self._run("pg_dump", ["-Fc", f"--schema={schema}"], stdout=descriptor)
        except OSError as error:
            raise MaintenanceError(f"cannot write {target}: {error.strerror}") from None
        if version == self._known[-1].version:
            unrecorded = f"the copy is made, but cannot be recorded in {self._address.location}"
            with self._connect() as db, _errors(unrecorded), db, db.cursor() as cursor:
                cursor.execute("UPDATE history SET backed_up_at = %s", (now,))

    def restore(self, source: str) -> str:
        """See `Maintenance`; the old tables are kept in another schema of the same database."""
        if not os.path.isfile(source):
            raise MaintenanceError(f"there is no copy {source}")
        _program("pg_restore")
        with self.offline() as db:
            _refuse_sharded(db)
            [[schema, _]] = _rows(db, _SCHEMA)
            quoted = f'"{schema}"'
            aside = f"{schema}_replaced_{time.strftime('%Y%m%dt%H%M%Sz', time.gmtime())}"
            with _errors(f"cannot restore {source}"), db, db.cursor() as cursor:
                cursor.execute(f'ALTER SCHEMA {quoted} RENAME TO "{aside}"')
                cursor.execute(f"CREATE SCHEMA {quoted}")
            try:
                options = [f"--schema={schema}", "--no-owner", "--no-privileges"]
                self._run(
                    "pg_restore",
                    [*options, "--single-transaction", "--exit-on-error", source],
                )
                with _errors(f"cannot restore {source}"), db, db.cursor() as cursor:
                    cursor.execute("SELECT version FROM schema_version")
                    pending(self._known, cursor.fetchall()[0][0], source)
                    # The daemon that opens it makes a new one.
                    cursor.execute("UPDATE history SET epoch = NULL")
            except BaseException:
                with db, db.cursor() as cursor:
                    cursor.execute(f"DROP SCHEMA {quoted} CASCADE")
                    cursor.execute(f'ALTER SCHEMA "{aside}" RENAME TO {quoted}')
                raise
        return f"the schema {aside}"

    def check(self) -> list[str]:
        """See `Maintenance`; from one snapshot."""
        with self._connect() as db, _errors(f"cannot check {self._address.location}"):
            db.set_session(isolation_level="REPEATABLE READ", readonly=True)
            pending(self._known, _version(db), self._address.location, upgrade=False)
            if _is_sharded(db):
                return self._check_lanes(db)
            return [text for statement in POSTGRES for (text,) in _rows(db, statement)]

    def _counts(self, db: Any) -> list[Any]:
        if not _is_sharded(db):
            return list(_rows(db, POSTGRES_COUNTS)[0])
        found = [rows[0] for rows in self._in_lanes(db, [POSTGRES_COUNTS])]
        accounts, disabled, messages, removed, oldest, purged, _ = zip(*found, strict=True)
        times = [each for each in oldest if each is not None]
        sums = [sum(each) for each in (accounts, disabled, messages, removed)]
        # Other programs copy the servers of a cluster, and tell nothing here.
        return [*sums, min(times, default=None), sum(purged), None]

    def _check_lanes(self, db: Any) -> list[str]:
        return [text for rows in self._in_lanes(db, POSTGRES_OWN) for (text,) in rows]

    def _in_lanes(self, db: Any, statements: Sequence[str]) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of statements in every lane."""
        names = "{" + ",".join(DISTRIBUTED) + "}"
        with db.cursor() as cursor:
            cursor.execute(READ_SHARDS, (names,))
            lanes = shard_map(cursor.fetchall()).lanes
        for lane in lanes:
            [dsn] = self._locate(self._address, lane.server).attempts[:1]
            with contextlib.closing(psycopg2.connect(dsn)) as server:
                for statement in statements:
                    yield _rows(server, lane.guard + lane.statement(statement))
                    server.rollback()

    @contextlib.contextmanager
    def offline(self) -> Iterator[Any]:
        """A connection to the database, while no daemon uses it or starts."""
        with self._connect() as db:
            ends = time.monotonic() + STOPPING_SECONDS
            while (users := _rows(db, _USERS)[0][0]) and time.monotonic() < ends:
                # What is known of other connections is kept for a transaction.
                db.rollback()
                time.sleep(0.05)
            if users:
                raise MaintenanceError(
                    f"chatd uses {self._address.location} by {users} connections: stop it first"
                )
            # Keeps daemons from starting meanwhile, which would create tables.
            [[locked]] = _rows(db, f"SELECT pg_try_advisory_lock({LOCK})")
            if not locked:
                raise MaintenanceError(f"a daemon is starting on {self._address.location}")
            try:
                yield db
            finally:
                # The server notices only later that a connection was closed.
                with contextlib.suppress(psycopg2.Error):
                    db.rollback()
                    _rows(db, f"SELECT pg_advisory_unlock({LOCK})")

    def vacuum(self, *, full: bool = False) -> None:
        """See `Maintenance`; daemons go on meanwhile, unless it is `full`."""
        with self._connect() as db, _errors(f"cannot vacuum {self._address.location}"):
            _version(db)
            # No such version has written to shards.
            for (user_id,) in [] if _is_sharded(db) else _rows(db, _MISCOUNTED):
                db.rollback()
                with db.cursor() as cursor:
                    cursor.execute(_LOCK_INBOX, (user_id,))
                    cursor.execute(_COUNT_BYTES, (user_id,))
                db.commit()
            tables = [name for (name,) in _rows(db, _TABLES)]
            db.rollback()
            db.autocommit = True
            with db.cursor() as cursor:
                for table in tables:
                    cursor.execute(f"VACUUM ({'FULL, ' if full else ''}ANALYZE) {table}")

    @contextlib.contextmanager
    def _connect(self) -> Iterator[Any]:
        problem = ""
        for attempt in self._address.attempts:
            dsn = make_dsn(attempt, connect_timeout=max(2, int(self._address.connect_seconds)))
            dsn = make_dsn(dsn, application_name="administration of chatd")
            try:
                db = psycopg2.connect(dsn)
            except psycopg2.Error as error:
                problem = reason(error)
                continue
            # That of the connection does not contain the password.
            self._dsn = dsn
            with contextlib.closing(db), _errors(f"cannot use {self._address.location}"):
                yield db
            return
        raise MaintenanceError(f"cannot reach {self._address.location}: {problem}")

    def _run(self, program: str, arguments: list[str], **options: Any) -> None:
        """Run a program of PostgreSQL on the database that was connected to last.

        The password is in its environment, which other users cannot read.
        """
        parameters = parse_dsn(self._dsn)
        environment = dict(os.environ)
        password = parameters.pop("password", None)
        if password is not None:
            environment["PGPASSWORD"] = password
        found = subprocess.run(
            [_program(program), f"--dbname={make_dsn(**parameters)}", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            **options,
        )
        if found.returncode:
            lines = found.stderr.strip().splitlines() or [f"{program} failed"]
            raise MaintenanceError(lines[0])


def _is_sharded(db: Any) -> bool:
    [[is_sharded]] = _rows(db, IS_SHARDED)
    return bool(is_sharded)


def _refuse_sharded(db: Any) -> None:
    if _is_sharded(db):
        raise MaintenanceError(
            "the database is sharded, and this copies one server only: use backups of the servers"
        )


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise MaintenanceError(f"{name} is missing: it comes with PostgreSQL's client programs")
    return path


def _version(db: Any) -> int:
    """The version of the schema; raises `MaintenanceError` if there is none."""
    [[_, exists]] = _rows(db, _SCHEMA)
    if not exists:
        raise MaintenanceError("the database has no tables of chatd")
    version: int = _rows(db, "SELECT version FROM schema_version")[0][0]
    return version


def _rows(db: Any, statement: str) -> list[tuple[Any, ...]]:
    with db.cursor() as cursor:
        cursor.execute(statement)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows


@contextlib.contextmanager
def _errors(what: str) -> Iterator[None]:
    """Turn errors of the block into `MaintenanceError`."""
    try:
        yield
    except StartError as error:
        raise MaintenanceError(str(error)) from None
    except psycopg2.Error as error:
        raise MaintenanceError(f"{what}: {reason(error)}") from None
