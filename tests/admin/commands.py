"""Runs administrators' commands in this process, and what they need of a daemon."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from chatd.admin.errors import AdminError
from chatd.admin.runner import COMMANDS
from chatd.cli.parser import parser
from chatd.compose.databases import admin_socket_path
from chatd.compose.storage import compose_store_and_bus
from chatd.config import Settings, load
from chatd.domain.administration import Administration
from chatd.interfaces import IStore
from chatd.metrics import Metrics
from chatd.process.admin_socket import AdminSocket


class Commands:
    """Runs commands on the database `db`."""

    def __init__(self, db: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.settings = load({"db": db}, {})[0]
        self._capsys = capsys
        self.running: IStore | None = None
        """The store of the daemon that runs in this process, if there is one."""

    @asynccontextmanager
    async def store(self) -> AsyncIterator[IStore]:
        """The store of the daemon, or one that is open within the block."""
        from twisted.internet import reactor

        if self.running is not None:
            yield self.running
            return
        store, _ = compose_store_and_bus(self.settings, reactor, Metrics())
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    async def run(self, *arguments: str) -> str:
        """Run a command; returns its output."""
        from twisted.internet import reactor

        args = parser().parse_args(arguments)
        await COMMANDS[args.command, args.action](args, self.settings, reactor)
        return self._capsys.readouterr().out

    async def json(self, *arguments: str) -> list[dict[str, Any]]:
        """Run a command; returns the objects that it prints."""
        return [json.loads(line) for line in (await self.run(*arguments, "--json")).splitlines()]

    async def fail(self, status: int, *arguments: str) -> str:
        """Run a command that fails with this status; returns why."""
        with pytest.raises(AdminError) as caught:
            await self.run(*arguments)
        assert caught.value.status == status
        return str(caught.value)


@asynccontextmanager
async def daemon_of(settings: Settings) -> AsyncIterator[IStore]:
    """What a daemon has open: the store, and the administrator's socket."""
    from twisted.internet import reactor

    store, bus = compose_store_and_bus(settings, reactor, Metrics())
    await store.open()
    path = admin_socket_path(settings)
    assert path is not None
    socket = AdminSocket(path, Administration(store, bus), reactor)
    socket.start()
    try:
        yield store
    finally:
        await socket.stop()
        await store.close()
