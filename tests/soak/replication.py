"""A PostgreSQL with a synchronous standby that takes over, so that nothing acknowledged is lost."""

from __future__ import annotations

import signal
import time
from typing import Final

from tests.postgres_server import Server, connected, rows

SYNCHRONOUS_SECONDS: Final = 60.0

_REPLICATING: Final = {
    "wal_level": "replica",
    "max_wal_senders": "5",
    "full_page_writes": "on",
    "wal_retrieve_retry_interval": "200ms",
}


class Pair:
    """Two servers that change places, with the methods of one `Server`: those of the primary."""

    def __init__(self) -> None:
        self._primary = Server()
        self._standby: Server | None = None

    def start(self) -> None:
        """Start the primary, the first time with a standby."""
        self._primary.start(**_REPLICATING)
        if self._standby is None:
            self._standby = self._primary.standby()
            self._standby.start(**_REPLICATING)
            self._wait_synchronous()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the primary."""
        self._primary.stop(how)

    def url(self, database: str = "postgres") -> str:
        """Where the primary is now."""
        return self._primary.url(database)

    def urls(self, database: str) -> str:
        """The value of `--db`: both servers, of which the one that can be written to is used."""
        assert self._standby is not None
        folders = f"{self._primary.folder},{self._standby.folder}"
        return f"host={folders} user=chatd dbname={database}"

    def promote(self) -> None:
        """Kill the primary, and have the standby take over; until `rebuild` there is no other."""
        assert self._standby is not None
        self._primary.stop(signal.SIGKILL)
        self._primary, self._standby = self._standby, self._primary
        with connected(self._primary.url()) as db:
            rows(db, "SELECT pg_promote()")

    def rebuild(self) -> None:
        """The former primary becomes the standby, and commits wait for it again."""
        assert self._standby is not None
        self._standby.copy(self._primary)
        self._standby.start(**_REPLICATING)
        self._wait_synchronous()

    def _wait_synchronous(self) -> None:
        """From now on commits wait for the standby."""
        with connected(self._primary.url()) as db:
            rows(db, "ALTER SYSTEM SET synchronous_standby_names = '*'")
            rows(db, "SELECT pg_reload_conf()")
            ends = time.monotonic() + SYNCHRONOUS_SECONDS
            while rows(db, "SELECT sync_state FROM pg_stat_replication") != [("sync",)]:
                if time.monotonic() > ends:
                    raise RuntimeError("the standby does not follow the primary")
                time.sleep(0.05)

    def destroy(self) -> None:
        """Stop both and delete everything."""
        self._primary.destroy()
        if self._standby is not None:
            self._standby.destroy()
