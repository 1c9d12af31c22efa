"""The database that `--db` names."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING

from chatd.config import ConfigError, Settings
from chatd.store.sqlite.inspection import describe as describe_sqlite

if TYPE_CHECKING:
    from chatd.postgres.address import Address


def is_postgres(db: str) -> bool:
    """Whether `--db` names a PostgreSQL: by libpq's URL, or by its `keyword=value` pairs."""
    return re.match(r"postgres(ql)?://|\w+\s*=", db) is not None


def sqlite_path(db: str) -> str | None:
    """The file that `--db` names; None if it is no SQLite database. Raises `ConfigError`."""
    scheme, _, path = db.partition(":")
    if scheme != "sqlite" or not path:
        return None
    try:
        os.path.abspath(path)
    except FileNotFoundError:
        raise ConfigError(f"db: {path} is in no folder: the working folder was removed") from None
    return path


def postgres_addresses(settings: Settings) -> list[Address]:
    """The addresses of `--db` and `--listen-db`; raises `ConfigError`, also without txpostgres."""
    try:
        from chatd.postgres.address import parse
        from chatd.postgres.connection import Connection as _  # noqa: F401
    except ImportError as missing:
        raise ConfigError(
            f"db: PostgreSQL needs {missing.name}: in a clone of chatd, "
            ".venv/bin/pip install -e '.[postgres]'"
        ) from None
    addresses = []
    for option, text, application in (
        ("db", settings.db, "chatd"),
        ("listen-db", settings.listen_db or settings.db, "chatd bus"),
    ):
        try:
            addresses.append(parse(text, application))
        except ValueError as wrong:
            # The value may hold a password, so it is not repeated.
            raise ConfigError(f"{option}: {wrong}") from None
    return addresses


def unknown_database() -> ConfigError:
    # The value may hold a password, so it is not repeated.
    return ConfigError("db: neither sqlite:PATH nor postgresql://...")


def describe_database(settings: Settings) -> str:
    """What opening the database of `--db` would do to it; raises `StartError` if it cannot be."""
    if is_postgres(settings.db):
        from chatd.store.postgres.inspection import describe as describe_postgres

        return describe_postgres(postgres_addresses(settings)[0])
    return describe_sqlite(settings.db.partition(":")[2])


def admin_socket_path(settings: Settings) -> str | None:
    """Where the daemon has its administrator's socket; None on PostgreSQL, which needs none."""
    path = sqlite_path(settings.db)
    return None if path is None else os.path.realpath(path) + ".admin"


def microseconds() -> int:
    """The wall clock, in microseconds since the Unix epoch."""
    return time.time_ns() // 1000
