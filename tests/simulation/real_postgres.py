"""A real PostgreSQL for simulations: it runs the product's SQL, and nothing of it depends on time.

In front of the catalogue, the search path of all sessions has functions in place of those that
would make runs differ: `clock_timestamp` and `random` are what the session was told before the
statement, and `pg_notify` gives the notice to whoever runs the statement, as a message.
"""

from __future__ import annotations

import atexit
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg2
import psycopg2.extensions

from chatd.store.migrations import migrations
from tests.postgres_server import Databases, Server, connected
from tests.store.sharded.made_up_citus import make_up_citus, shard

NOTICE: Final = "simulated notice "
MAX_PAYLOAD: Final = 7999
"""Bytes of a notice that PostgreSQL accepts."""

_FUNCTIONS: Final = f"""
CREATE SCHEMA simulated;
CREATE FUNCTION simulated.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
    $$ SELECT timestamptz 'epoch'
        + current_setting('simulated.now')::bigint * interval '1 microsecond' $$;
CREATE FUNCTION simulated.random() RETURNS float8 LANGUAGE sql VOLATILE AS
    $$ SELECT current_setting('simulated.random')::float8 $$;
CREATE FUNCTION simulated.pg_notify(channel text, payload text) RETURNS void
    LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF octet_length(payload) > {MAX_PAYLOAD} THEN
        RAISE EXCEPTION 'payload string too long';
    END IF;
    RAISE NOTICE '{NOTICE}%', payload;
END $$;
"""
_SESSION: Final = """
UNLISTEN *;
DEALLOCATE ALL;
RESET ALL;
SET search_path = simulated, {path}, pg_catalog;
SET synchronous_commit = off;
SET statement_timeout = '10s'
"""
"""The timeout would end a simulation in which statements wait for each other."""

FIRST: Final = "public"
SECOND: Final = "second"
"""The schemas of the two servers of a sharded database; the first one is the coordinator, too."""
_PATHS: Final = {FIRST: FIRST, SECOND: f"{SECOND}, {FIRST}"}


# Those that have rows of their own: the tables that are made of shards have none.
_TABLES: Final = f"""
SELECT oid::regclass::text, relnamespace::regnamespace || '_' || relname FROM pg_class
WHERE relkind = 'r' AND relnamespace::regnamespace::text IN ('{FIRST}', '{SECOND}')
    AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = pg_class.oid)
ORDER BY 2
"""
_SECOND: Final = (
    f"""
DO $$
DECLARE
    shard record;
    renamed text;
BEGIN
    FOR shard IN SELECT logicalrelid::regclass::text AS logical, shardid,
            logicalrelid::regclass || '_' || shardid AS name FROM pg_dist_shard LOOP
        EXECUTE format('CREATE TABLE {SECOND}.%I (LIKE {FIRST}.%I INCLUDING ALL)',
            shard.name, shard.name);
        FOR renamed IN SELECT conname FROM pg_constraint
            WHERE conrelid = ('{SECOND}.' || shard.name)::regclass AND contype = 'p' LOOP
            EXECUTE format('ALTER TABLE {SECOND}.%I RENAME CONSTRAINT %I TO %I', shard.name,
                renamed, shard.logical || '_pkey_' || shard.shardid);
        END LOOP;
    END LOOP;
END $$
""",
    f"CREATE TABLE {SECOND}.pg_dist_local_group AS SELECT 2 AS groupid",
    f"CREATE TABLE {SECOND}.pg_dist_placement AS TABLE {FIRST}.pg_dist_placement",
)
"""Make the second server: shards, and what it knows of them."""


class Notices:
    """Takes the messages of a session in the place of psycopg2's list, and keeps the notices."""

    def __init__(self) -> None:
        self.payloads: list[str] = []

    def append(self, message: str) -> None:
        """Called by psycopg2 with a message of the server."""
        _, found, payload = message.partition(NOTICE)
        if found:
            self.payloads.append(payload.removesuffix("\n"))


class Backend:
    """A session, which runs one statement after another and waits for each."""

    def __init__(self, dsn: str) -> None:
        self._db = psycopg2.connect(dsn)
        self._db.autocommit = True
        self._notices: Any = Notices()
        self._db.notices = self._notices
        self.in_transaction = False

    @property
    def pid(self) -> int:
        """The process id of the session's server process."""
        number: int = self._db.info.backend_pid
        return number

    def reset(self, schema: str = FIRST) -> None:
        """Become like a new session on a server; a transaction is rolled back."""
        with self._db.cursor() as cursor:
            if self.in_transaction:
                cursor.execute("rollback")
                self.in_transaction = False
            cursor.execute(_SESSION.format(path=_PATHS[schema]))

    def run(
        self, sql: str, parameters: Any = None, *, now: int = 0, random: float = 0.0
    ) -> tuple[Any, list[Any], list[str]]:
        """Description and rows of the result, and the notices sent; raises `psycopg2.Error`.

        `now` is the server's time in microseconds since the Unix epoch.
        """
        self._notices.payloads = []
        with self._db.cursor() as cursor:
            try:
                if sql in ("begin", "commit", "rollback"):
                    cursor.execute(sql)
                else:
                    text = cursor.mogrify(sql, parameters)
                    settings = f"SET simulated.now = '{now}'; SET simulated.random = '{random!r}'; "
                    cursor.execute(settings.encode() + text)
            finally:
                status = self._db.info.transaction_status
                self.in_transaction = status != psycopg2.extensions.TRANSACTION_STATUS_IDLE
            found = cursor.fetchall() if cursor.description is not None else []
            return cursor.description, found, self._notices.payloads

    def error(self, state: str) -> psycopg2.Error:
        """An error of the server with this SQLSTATE."""
        try:
            self.run(f"DO $$ BEGIN RAISE EXCEPTION 'simulated' USING ERRCODE = '{state}'; END $$")
        except psycopg2.Error as error:
            return error
        raise AssertionError("it does not fail")


class RealPostgres:
    """The server, its one database, and copies of what is in it.

    If it is sharded, two servers are made up, each of which has the tables in a schema of its own.
    """

    def __init__(self, *, sharded: bool = False) -> None:
        self._server = Server()
        self._server.start()
        databases = Databases(self._server.url())
        self._dsn = databases.url(databases.create())
        self._idle: list[Backend] = []
        with self.backend() as backend:
            backend.run("SET search_path = public")
            for migration in migrations("postgres"):
                backend.run(migration.sql)
                backend.run(f"UPDATE schema_version SET version = {migration.version}")
            if sharded:
                with connected(self._dsn) as db:
                    make_up_citus(db, nodes=2)
                    shard(db)
                backend.run(f"CREATE SCHEMA {SECOND}")
                for statement in _SECOND:
                    backend.run(statement)
            backend.run(_FUNCTIONS)
            sequences = backend.run("SELECT sequencename FROM pg_sequences ORDER BY 1")[1]
            # Each with the name of its copies.
            self._tables = dict(backend.run(_TABLES)[1])
            self._sequences = [name for (name,) in sequences]
            for copy in ("empty", "copied"):
                backend.run(f"CREATE SCHEMA {copy}")
                for name, copied in self._tables.items():
                    backend.run(f"CREATE TABLE {copy}.{copied} (LIKE {name})")
                backend.run(f"CREATE TABLE {copy}.sequence_values (name text, value bigint)")
        self._own = self.borrow()
        self.save("empty")

    def borrow(self, schema: str = FIRST) -> Backend:
        """A session on a server, as if it was new."""
        backend = self._idle.pop() if self._idle else Backend(self._dsn)
        backend.reset(schema)
        return backend

    def give_back(self, backend: Backend) -> None:
        """Take a session back; its transaction is rolled back."""
        if backend.in_transaction:
            backend.reset()
        self._idle.append(backend)

    @contextmanager
    def backend(self) -> Iterator[Backend]:
        """A session for a while."""
        backend = self.borrow()
        try:
            yield backend
        finally:
            self.give_back(backend)

    def rows(self, sql: str) -> list[Any]:
        """The rows that a query returns."""
        return self._own.run(sql)[1]

    def save(self, copy: str = "copied") -> None:
        """Make a copy of what is in the database."""
        statements = [f"DELETE FROM {copy}.sequence_values"]
        for name, copied in self._tables.items():
            statements += [f"DELETE FROM {copy}.{copied}",
                           f"INSERT INTO {copy}.{copied} TABLE {name}"]  # fmt: skip
        statements += [
            f"INSERT INTO {copy}.sequence_values"
            f" SELECT '{name}', CASE WHEN is_called THEN last_value END FROM public.{name}"
            for name in self._sequences
        ]
        self._own.run("; ".join(statements))

    def put_back(self, copy: str = "copied") -> None:
        """Replace what is in the database by a copy."""
        statements = []
        for name, copied in self._tables.items():
            statements += [
                f"DELETE FROM {name}",
                f"INSERT INTO {name} OVERRIDING SYSTEM VALUE TABLE {copy}.{copied}",
            ]
        statements.append(
            "SELECT setval(('public.' || name)::regclass, coalesce(value, 1), value IS NOT NULL)"
            f" FROM {copy}.sequence_values"
        )
        self._own.run("; ".join(statements))

    def clear(self) -> None:
        """Remove everything, and the room that it took."""
        tables = ", ".join(f"{name}, copied.{copied}" for name, copied in self._tables.items())
        self._own.run(f"TRUNCATE {tables}")
        self.put_back("empty")

    def destroy(self) -> None:
        """Stop the server and delete everything."""
        self._server.destroy()


@functools.cache
def real_postgres(*, sharded: bool = False) -> RealPostgres:
    """A server of this process, which is stopped when the process exits."""
    made = RealPostgres(sharded=sharded)
    atexit.register(made.destroy)
    return made
