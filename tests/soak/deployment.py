"""What a soak runs against: daemons behind proxies, on SQLite or with a server of PostgreSQL.

Everything here that starts or ends a process blocks, and is called in a thread.
"""

from __future__ import annotations

import contextlib
import random
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from bench.processes import free_port
from tests.cutting_proxy import CuttingProxy, proxied
from tests.daemon import Daemon
from tests.postgres_server import Databases
from tests.soak.replication import Pair
from tests.soak.small_disk import SmallDisk

DRAIN_SECONDS = "1"
ENDED_WELL = (0, -signal.SIGTERM)


class Node:
    """A daemon and the proxy in front of it; one that is not restarted shows how memory grows.

    `forked`: it starts sooner, but shares memory with the server of forks.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        db: str,
        *options: str,
        is_restarted: bool,
        forked: bool = False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.is_restarted = is_restarted
        self._daemon = Daemon(
            folder,
            *("--db", db, "--drain-seconds", DRAIN_SECONDS, *options),
            port=free_port(),
            forked=forked,
        )
        self.proxy: CuttingProxy | None = None
        # An interrupted soak may stop a daemon that a fault is just starting.
        self._changing = threading.Lock()
        self.is_up = False

    @property
    def pid(self) -> int:
        """The process id."""
        return self._daemon.pid

    @property
    def port(self) -> int:
        """The port of the daemon, behind the proxy."""
        return self._daemon.port

    @property
    def url(self) -> str:
        """Where clients connect: the proxy."""
        assert self.proxy is not None
        return self.proxy.url

    @property
    def direct_url(self) -> str:
        """The daemon itself."""
        return self._daemon.url

    def start(self) -> None:
        """Start it, and wait until it listens."""
        with self._changing:
            self._daemon.start()
            self.is_up = True

    def kill(self) -> None:
        """`kill -9`."""
        with self._changing:
            self.is_up = False
            self._daemon.kill()

    def stop(self) -> list[str]:
        """SIGTERM, if it is up; returns what is wrong with the exit status."""
        with self._changing:
            if not self.is_up:
                return []
            self.is_up = False
            status = self._daemon.stop()
        return [] if status in ENDED_WELL else [f"{self.name} ended with status {status}"]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal that does not end the process."""
        self._daemon.signal(number)

    def problems(self) -> list[str]:
        """Failures in the log."""
        log = self._daemon.log.read_text("utf-8", "replace") if self._daemon.log.exists() else ""
        count = log.count("Traceback")
        return [f"{self.name}: {count} tracebacks in {self._daemon.log}"] if count else []


class Deployment:
    """Daemons with one database; its servers if they may be killed, its disk if it may be full."""

    def __init__(
        self,
        name: str,
        nodes: list[Node],
        servers: Pair | None = None,
        disk: SmallDisk | None = None,
    ) -> None:
        self.name = name
        self.nodes = nodes
        self.servers = servers
        self.disk = disk
        self.problems: list[str] = []

    def start(self) -> None:
        """Start the daemons."""
        if self.disk is not None and not self.disk.mount():
            self.disk = None
        for node in self.nodes:
            node.start()

    def stop(self) -> None:
        """Stop the daemons; what is wrong with their ends and logs is added to `problems`."""
        for node in self.nodes:
            self.problems += node.stop()
            self.problems += node.problems()
        if self.disk is not None:
            self.disk.unmount()


@asynccontextmanager
async def deployed(reactor: Any, made: Deployment, dice: random.Random) -> AsyncIterator[None]:
    """Start proxies and daemons, and stop them in the end."""
    async with AsyncExitStack() as stack:
        for node in made.nodes:
            node.proxy = await stack.enter_async_context(proxied(reactor, node.port, dice))
        try:
            await deferToThread(made.start)
            yield
        finally:
            await deferToThread(made.stop)


def on_sqlite(folder: Path, *, forked: bool = False, small: bool = False) -> list[Deployment]:
    """A daemon that is killed and restarted, and one that runs on, each with its own file.

    `small`: on disks that may be full, if this process may mount such.
    """
    made = []
    for name, is_restarted in (("sqlite", True), ("sqlite-steady", False)):
        here = folder / name
        data = here.resolve() / "data"
        data.mkdir(parents=True, exist_ok=True)
        db = f"sqlite:{data / 'chatd.db'}"
        # One finds out that the disk is full when it is, the other one before.
        reserve = ("--min-free-disk", "0") if is_restarted else ()
        node = Node(name, here, db, *reserve, is_restarted=is_restarted, forked=forked)
        made.append(Deployment(name, [node], disk=SmallDisk(data) if small else None))
    return made


def on_postgres(folder: Path, url: str, servers: Pair | None) -> Deployment:
    """Two daemons on one database, one of which is killed and restarted."""
    nodes = [
        Node(f"postgres-{name}", folder / f"postgres-{name}", url, is_restarted=is_restarted)
        for name, is_restarted in (("restarted", True), ("steady", False))
    ]
    return Deployment("postgres", nodes, servers)


@contextlib.contextmanager
def postgres_database(dsn: str | None) -> Iterator[tuple[str, Pair | None]]:
    """The URL of a new database, and the temporary servers it is on unless `dsn` names one."""
    if dsn is not None:
        databases = Databases(dsn)
        try:
            yield databases.url(databases.create()), None
        finally:
            databases.drop_all()
        return
    servers = Pair()
    try:
        servers.start()
        yield servers.urls(Databases(servers.url()).create()), servers
    finally:
        servers.destroy()
