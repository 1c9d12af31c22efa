"""What opening a database would do to it, without doing it."""

from __future__ import annotations

import contextlib

import psycopg2

from chatd.errors import StartError
from chatd.postgres.address import Address
from chatd.postgres.connection import reason
from chatd.store.migrations import migrations, pending
from chatd.store.postgres.schema import EXISTS, VERSION


def describe(address: Address) -> str:
    """One line; raises `StartError` if the database could not be used. Blocks."""
    where = f"the database {address.location}"
    known = migrations("postgres")
    try:
        with contextlib.closing(_connect(address)) as connection, connection.cursor() as cursor:
            cursor.execute(EXISTS)
            [exists] = cursor.fetchone()
            version = 0
            if exists:
                cursor.execute(VERSION)
                [version] = cursor.fetchone()
    except psycopg2.Error as problem:
        raise StartError(f"cannot use {where}: {reason(problem)}") from None
    missing = pending(known, version, where)
    if not version:
        return f"create the tables of {where} with schema version {known[-1].version}"
    if missing:
        return f"upgrade {where} from schema version {version} to {missing[-1].version}"
    return f"use {where}, whose schema version is {version}"


def _connect(address: Address) -> psycopg2.extensions.connection:
    *others, last = address.attempts
    for attempt in others:
        with contextlib.suppress(psycopg2.OperationalError):
            return psycopg2.connect(attempt, connect_timeout=int(address.connect_seconds) or 1)
    return psycopg2.connect(last, connect_timeout=int(address.connect_seconds) or 1)
