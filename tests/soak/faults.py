"""The faults of a soak: each does harm and mends it again."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.postgres_server import Databases
from tests.soak.deployment import Deployment, Node
from tests.soak.small_disk import SmallDisk

SUSPENDED_SECONDS: Final = (0.2, 3.0)
DOWN_SECONDS: Final = (0.0, 1.0)
FULL_SECONDS: Final = (0.5, 3.0)
CUTTING_SECONDS: Final = (0.5, 2.0)
FIRST_CUT_BYTES: Final = 1500


class Faults:
    """Chooses faults for one deployment, and counts them."""

    def __init__(self, reactor: Any, deployment: Deployment, dice: random.Random) -> None:
        self._reactor = reactor
        self._deployment = deployment
        self._dice = dice
        self.done: Counter[str] = Counter()

    async def once(self) -> None:
        """Do one fault; afterwards all processes run."""
        name, fault = self._dice.choice(self.possible())
        self.done[name] += 1
        await fault()

    def possible(self) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        """Names and functions of what can be done to this deployment."""
        found: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        for node in self._deployment.nodes:
            found += [
                ("SIGSTOP", partial(self._suspend, node)),
                ("links cut", partial(self._cut, node)),
                ("cut at any byte", partial(self._cut_bytes, node)),
            ]
            if node.is_restarted:
                found += [
                    ("kill -9", partial(self._kill, node)),
                    ("SIGTERM", partial(self._stop, node)),
                ]
        if self._deployment.disk is not None:
            found.append(("disk full", partial(self._fill, self._deployment.disk)))
        if self._deployment.servers is not None:
            found += [
                ("PostgreSQL killed", partial(self._restart, signal.SIGKILL)),
                ("PostgreSQL restarted", partial(self._restart, signal.SIGINT)),
                ("PostgreSQL standby promoted", self._promote),
                ("backends terminated", self._terminate),
            ]
        return found

    async def _pause(self, seconds: tuple[float, float]) -> None:
        await deferLater(self._reactor, self._dice.uniform(*seconds))

    async def _suspend(self, node: Node) -> None:
        node.signal(signal.SIGSTOP)
        try:
            await self._pause(SUSPENDED_SECONDS)
        finally:
            node.signal(signal.SIGCONT)

    async def _cut(self, node: Node) -> None:
        assert node.proxy is not None
        node.proxy.cut()

    async def _cut_bytes(self, node: Node) -> None:
        assert node.proxy is not None
        node.proxy.bytes_until_cut = FIRST_CUT_BYTES
        try:
            await self._pause(CUTTING_SECONDS)
        finally:
            node.proxy.bytes_until_cut = None

    async def _kill(self, node: Node) -> None:
        await deferToThread(node.kill)
        await self._pause(DOWN_SECONDS)
        await deferToThread(node.start)

    async def _stop(self, node: Node) -> None:
        self._deployment.problems += await deferToThread(node.stop)
        await self._pause(DOWN_SECONDS)
        await deferToThread(node.start)

    async def _fill(self, disk: SmallDisk) -> None:
        await deferToThread(disk.fill)
        try:
            await self._pause(FULL_SECONDS)
        finally:
            await deferToThread(disk.free)

    async def _restart(self, how: signal.Signals) -> None:
        servers = self._deployment.servers
        assert servers is not None
        await deferToThread(servers.stop, how)
        await self._pause(DOWN_SECONDS)
        await deferToThread(servers.start)

    async def _promote(self) -> None:
        servers = self._deployment.servers
        assert servers is not None
        await deferToThread(servers.promote)
        await self._pause(DOWN_SECONDS)
        await deferToThread(servers.rebuild)

    async def _terminate(self) -> None:
        servers = self._deployment.servers
        assert servers is not None
        await deferToThread(
            Databases(servers.url()).admin,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name LIKE 'chatd%' AND pid <> pg_backend_pid()",
        )
