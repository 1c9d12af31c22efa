"""Access to the database for administrators, whether a daemon runs or not.

PostgreSQL is used directly: daemons are notified by the database, or over the bus of the settings.
A SQLite database that no daemon has open is opened as the daemon would; if one has, the work is
left to it by its socket. Either way the same code does it, and one process at a time has the
database open.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

from twisted.internet.task import deferLater

from chatd.admin.errors import AdminError
from chatd.admin.remote import connect, refused
from chatd.compose.administration import compose_administration
from chatd.compose.databases import admin_socket_path
from chatd.config import Settings
from chatd.domain.administration import Administration, Reply, Request
from chatd.errors import DatabaseInUse, DomainError, StartError

WAIT_SECONDS: Final = 5.0
"""How long a daemon that is just starting or stopping is waited for."""
RETRY_SECONDS: Final = 0.1


class Access(Protocol):
    """Performs requests."""

    async def perform(self, request: Request) -> Reply:
        """Perform a request; raises `AdminError`."""
        ...


@asynccontextmanager
async def access(settings: Settings, reactor: Any) -> AsyncIterator[Access]:
    """Access to the database of the settings; raises `AdminError` and `ConfigError`."""
    deadline = reactor.seconds() + WAIT_SECONDS
    path = admin_socket_path(settings)
    while True:
        try:
            store, administration = await compose_administration(settings, reactor)
        except DatabaseInUse as problem:
            assert path is not None
            remote = await connect(path, reactor)
            if remote is None and reactor.seconds() >= deadline:
                raise AdminError(f"{problem}, and that does not answer at {path}") from None
        except StartError as problem:
            raise AdminError(str(problem)) from None
        else:
            try:
                yield _Direct(administration)
            finally:
                await administration.stop()
                await store.close()
            return
        if remote is not None:
            try:
                yield remote
            finally:
                remote.close()
            return
        await deferLater(reactor, RETRY_SECONDS)


class _Direct:
    """Access to a database that this process has opened."""

    def __init__(self, administration: Administration) -> None:
        self._administration = administration

    async def perform(self, request: Request) -> Reply:
        try:
            return await self._administration.perform(request)
        except DomainError as error:
            raise refused(error.code, error.detail) from None
