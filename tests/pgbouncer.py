"""A real PgBouncer for the tests, in front of a temporary PostgreSQL.

`scripts/test` installs it on Debian. Tests fail, rather than being skipped, where it is missing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from typing import Any, Final

import psycopg2

from tests.postgres_server import Server, connected, rows, temporary_folder, unprivileged

START_SECONDS: Final = 15.0
SIZE: Final = 3
"""Server connections per database: fewer than a single daemon opens to the pooler."""
USERS: Final = ("chatd", "chatd_daemon")

_SETTINGS: Final = """
[databases]
* = host={server}

[pgbouncer]
pool_mode = {mode}
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
    """A pooler that listens on a Unix socket only; call `destroy` in the end.

    With the mode "session", a client has a server connection of its own until it disconnects.
    """

    def __init__(self, server: Server, mode: str = "transaction", size: int = SIZE) -> None:
        self.folder = temporary_folder("chatd-pooler-")
        self._program = program()
        self._process: subprocess.Popen[bytes] | None = None
        self._identity = unprivileged()
        self._settings = self.folder / "pgbouncer.ini"
        self._settings.write_text(
            _SETTINGS.format(server=server.folder, folder=self.folder, mode=mode, size=size)
        )
        (self.folder / "users").write_text("".join(f'"{user}" ""\n' for user in USERS))

    def url(self, database: str) -> str:
        """The value of `--db` for a database behind the pooler."""
        return f"postgresql://chatd@:6432/{database}?host={self.folder}"

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
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
        """The result of a command on its admin console."""
        with connected(self.url("pgbouncer")) as db:
            return rows(db, text)

    def log(self) -> str:
        """Its log."""
        return (self.folder / "log").read_text("utf-8", "replace")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop it at once, without waiting for clients."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(START_SECONDS)

    def destroy(self) -> None:
        """Stop it and delete everything."""
        self.stop(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


def program() -> str:
    """The path of PgBouncer; raises `LookupError` if it is not installed."""
    # Debian installs it in a folder that is only on the PATH of root.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    if found := shutil.which("pgbouncer", path=path):
        return found
    raise LookupError("the tests need PgBouncer: on Debian, apt-get install pgbouncer")
