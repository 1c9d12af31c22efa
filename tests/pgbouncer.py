"""A real PgBouncer for the tests, in transaction pooling before their own PostgreSQL.

It is Debian's, which `scripts/test` installs. Where there is none the tests fail; skipping would
look like passing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import psycopg2

from tests.postgres_server import Server, connected, rows, unprivileged

START_SECONDS: Final = 15.0
SIZE: Final = 3
"""Connections to the server for one database: fewer than one daemon alone opens to the pooler."""

_SETTINGS: Final = """
[databases]
* = host={server}

[pgbouncer]
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 200
server_login_retry = 1
listen_addr =
listen_port = 6432
unix_socket_dir = {folder}
auth_type = trust
auth_file = {folder}/users
admin_users = chatd
"""


class PgBouncer:
    """One pooler, on a Unix socket only; `start` it first, `destroy` it last."""

    def __init__(self, server: Server) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="chatd-pooler-", dir="/tmp"))
        self._program = program()
        self._process: subprocess.Popen[bytes] | None = None
        self._identity = unprivileged()
        self._settings = self.folder / "pgbouncer.ini"
        self._settings.write_text(
            _SETTINGS.format(server=server.folder, folder=self.folder, size=SIZE)
        )
        (self.folder / "users").write_text('"chatd" ""')
        if self._identity:
            os.chown(self.folder, self._identity["user"], self._identity["group"])

    def url(self, database: str) -> str:
        """The database through the pooler, as `--db` takes it."""
        return f"postgresql://chatd@:6432/{database}?host={self.folder}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        assert self._process is None
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, self._settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **self._identity,
            )
        ends = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < ends:
            with contextlib.suppress(psycopg2.OperationalError):
                self.command("SHOW VERSION")
                return
            time.sleep(0.02)
        raise RuntimeError(f"PgBouncer does not start:\n{self.log()}")

    def command(self, text: str) -> list[tuple[Any, ...]]:
        """What its console answers."""
        with connected(self.url("pgbouncer")) as db:
            return rows(db, text)

    def log(self) -> str:
        """What it has written."""
        return (self.folder / "log").read_text("utf-8", "replace")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it at once, whatever is under way."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(START_SECONDS)

    def destroy(self) -> None:
        """Stop it and delete everything."""
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


def program() -> str:
    """Where PgBouncer is; raises `LookupError` where there is none."""
    # Debian puts it where only root looks.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    if found := shutil.which("pgbouncer", path=path):
        return found
    raise LookupError("the tests need PgBouncer: on Debian, apt-get install pgbouncer")
