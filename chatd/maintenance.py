"""What administrators do with a whole database: the interface of its implementations, and values.

These calls block: they are for commands, and never run in a daemon.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct


class MaintenanceError(Exception):
    """Work on a database failed and had no effect; the text is one line for the operator."""


class DatabaseStatus(Struct, frozen=True):
    """What a database holds; sizes are in bytes.

    `used_by` says which daemons have it open. `log_bytes` is the size of SQLite's write-ahead log,
    None on PostgreSQL. `free_bytes` is the part of `bytes` that holds nothing and is used for what
    comes next; on PostgreSQL it is estimated from the statistics of the last ANALYZE, for tables
    without their indexes. The counts are None if the schema is not `schema_needed`. `messages` are
    those in inboxes, `removed` those that the retention period has removed. `backed_up_at` is the
    moment that the newest copy of `backup` shows; None if there is none.
    """

    location: str
    schema: int
    schema_needed: int
    used_by: str | None
    bytes: int
    log_bytes: int | None
    free_bytes: int | None
    accounts: int | None
    disabled: int | None
    messages: int | None
    removed: int | None
    oldest_message_at: int | None
    to_be_purged: int | None
    backed_up_at: int | None


class Maintenance(Protocol):
    """Maintenance of one database; all methods raise `MaintenanceError`."""

    def status(self) -> DatabaseStatus:
        """What the database holds."""
        ...

    def backup(self, target: str) -> None:
        """Copy the database to the new file `target`, while daemons use it.

        The copy is that of one moment, which is recorded in the database. If it fails, nothing is
        left behind.
        """
        ...

    def restore(self, source: str) -> str:
        """Replace the database by a copy that `backup` made; returns where the old one is kept.

        Refuses while a daemon uses the database. The restored one has a new history, so that
        cursors from before are answered with 410.
        """
        ...

    def check(self) -> list[str]:
        """Check that what is stored is consistent; returns what is not, a line each."""
        ...

    def vacuum(self, *, full: bool = False) -> None:
        """Return the space that holds nothing to the disk.

        PostgreSQL returns only what is at the end of its files, unless it is `full`: then it writes
        each table anew, and daemons wait meanwhile. SQLite always returns all.
        """
        ...
