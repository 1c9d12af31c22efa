"""Fixtures of the administrators' commands: databases, with a daemon and without."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pytest_twisted import async_yield_fixture

from tests.admin.commands import Commands, daemon_of
from tests.doubles import new_database
from tests.postgres_server import Databases

STOPPED = "sqlite, stopped"
RUNNING = "sqlite, running"
POSTGRES = "postgresql"


@async_yield_fixture(params=[STOPPED, RUNNING, POSTGRES])
async def commands(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[Commands]:
    """Commands on a new database of each kind."""
    if request.param == POSTGRES:
        databases: Databases = request.getfixturevalue("postgres")
        name: str = request.getfixturevalue("emptied_postgres_database")
        yield Commands(databases.url(name), capsys)
        return
    path = tmp_path / "chatd.db"
    path.write_bytes(new_database())
    commands = Commands(f"sqlite:{path}", capsys)
    if request.param == STOPPED:
        yield commands
        return
    async with daemon_of(commands.settings) as store:
        commands.running = store
        yield commands


@pytest.fixture
def postgres_empty(postgres: Databases) -> Iterator[str]:
    """The URL of a PostgreSQL database without tables."""
    name = postgres.create()
    yield postgres.url(name)
    postgres.drop(name)
