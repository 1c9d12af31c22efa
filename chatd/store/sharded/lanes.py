"""Running statements where the shards are, whatever happens to the shards meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import psycopg2
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import Logger

from chatd.errors import StoreUnavailable
from chatd.postgres.connection import Rows
from chatd.runtime.awaitables import as_deferred
from chatd.store.postgres.retry import RetryingExecutor
from chatd.store.sharded import delegated
from chatd.store.sharded.shards import MOVED, READ_SHARDS, Lane, Server, ShardMap, shard_map
from chatd.store.sharded.tables import DISTRIBUTED
from chatd.store.statements import Statement, postgres

T = TypeVar("T")
R = TypeVar("R")

RELOAD_SECONDS: Final = 0.05
"""Between two attempts to find a shard that is moving."""

_log = Logger()


class LaneExecutor:
    """Runs statements on the shards of one lane; they name the tables, not the shards.

    Each statement runs behind the lane's guard, in one transaction: if the shards have moved away
    it has no effect, the map is read again, and the same statement is sent where they are now. So a
    batch keeps its id, and is stored once.
    """

    def __init__(self, lanes: Lanes, lane: Lane) -> None:
        self._lanes = lanes
        self._lane = lane

    @property
    def range(self) -> tuple[int, int]:
        """The first and the last hash of the lane."""
        return self._lane.first, self._lane.last

    def countdown(self, seconds: float | None) -> Callable[[], float]:
        """See `Executor`."""
        return self._lanes.coordinator.countdown(seconds)

    def execute(self, statement: Statement[T]) -> Deferred[T]:
        """See `Executor`."""
        rows = self.run(postgres(statement.sql), statement.parameters)
        return rows.addCallback(statement.result)

    def run(
        self,
        sql: str,
        parameters: Any = None,
        *,
        prepare: bool = False,
        deadline: float | None = None,
    ) -> Deferred[Rows]:
        """See `Executor`."""
        return Deferred.fromCoroutine(self._run(sql, parameters, prepare, deadline))

    async def _run(self, sql: str, parameters: Any, prepare: bool, deadline: float | None) -> Rows:
        left = self.countdown(deadline)
        while True:
            lane = self._lane
            try:
                return await self._lanes.run(lane, sql, parameters, prepare, left())
            except psycopg2.Error as error:
                if error.pgcode not in MOVED:
                    raise
                if not left():
                    raise StoreUnavailable("the shard is being moved", retry_after=1) from error
            await self._lanes.reload()
            found = self._lanes.map.find(lane)
            if found is None:
                raise StoreUnavailable("the shard was split", retry_after=1)
            self._lane = found
            if found == lane:
                await self._lanes.pause(min(RELOAD_SECONDS, left()))


class Lanes:
    """The lanes of a database, and the connections to their servers.

    `coordinator` is connected to `--db`. `connect` returns an executor, not open yet, for a server.
    If the role may not use the shards directly, all statements go through the coordinator, see
    `chatd.store.sharded.delegated`.
    """

    map: ShardMap

    def __init__(
        self,
        coordinator: RetryingExecutor,
        reactor: Any,
        connect: Callable[[Server], RetryingExecutor],
    ) -> None:
        self.coordinator = coordinator
        self._reactor = reactor
        self._connect = connect
        self._servers: dict[Server, RetryingExecutor] = {}
        self._executors: list[LaneExecutor] = []
        self._reloading: list[Deferred[None]] | None = None
        self._is_open = False
        self._is_delegated = False

    async def open(self) -> None:
        """Read where the shards are and start connecting; raises `StartError`."""
        await self.coordinator.open()
        self._is_open = True
        may = await self.coordinator.run(delegated.MAY)
        self._is_delegated = delegated.is_needed(may)
        _log.info(
            "{role} {may} the tables: {way}",
            role=may[0][2],
            may="does not own" if self._is_delegated else "owns",
            way="a function at the servers with the shards runs the statements"
            if self._is_delegated
            else "statements go directly to the servers with the shards",
        )
        await self._read()

    async def close(self) -> None:
        """Finish what is running, of several statements each, and close all connections."""
        while not all(each.is_idle for each in self.executors):
            for each in self.executors:
                await each.wait_idle()
            # What goes on has begun its next statement by now.
            await self.pause(0)
        self._is_open = False
        await gatherResults(
            [
                Deferred.fromCoroutine(each.close())
                for each in (*self._servers.values(), self.coordinator)
            ]
        )

    @property
    def executors(self) -> Sequence[RetryingExecutor]:
        """Those of the coordinator and of all servers."""
        return [self.coordinator, *self._servers.values()]

    def __len__(self) -> int:
        return len(self._executors)

    def __iter__(self) -> Iterator[LaneExecutor]:
        return iter(tuple(self._executors))

    def index(self, user_id: int) -> int:
        """The place of the lane of an owner."""
        return self.map.index(user_id)

    def of(self, user_id: int) -> LaneExecutor:
        """The lane of an owner."""
        return self._executors[self.map.index(user_id)]

    def group(self, items: Iterable[T], owner: Callable[[T], int]) -> dict[int, list[T]]:
        """The items by the place of the lane of their owner."""
        groups: dict[int, list[T]] = {}
        for item in items:
            groups.setdefault(self.map.index(owner(item)), []).append(item)
        return groups

    async def run_grouped(
        self,
        items: Iterable[T],
        owner: Callable[[T], int],
        work: Callable[[LaneExecutor, list[T]], Awaitable[R]],
    ) -> list[R]:
        """Do work on the items of each lane, at the same time; the first error is raised."""
        groups = self.group(items, owner)
        return await together(
            [work(self._executors[place], group) for place, group in groups.items()]
        )

    async def everywhere(self, sql: str, parameters: Mapping[str, Any]) -> Rows:
        """The rows of a statement on all lanes."""
        found = await together([each.run(postgres(sql), parameters) for each in self._executors])
        return [row for rows in found for row in rows]

    async def reachable(
        self, work: Callable[[LaneExecutor], Awaitable[R]]
    ) -> tuple[list[R], StoreUnavailable | None]:
        """The results of work in all lanes whose servers can be reached, and an error of others."""

        async def attempt(lane: LaneExecutor) -> R | StoreUnavailable:
            try:
                return await work(lane)
            except StoreUnavailable as error:
                return error

        found = await together([attempt(each) for each in self._executors])
        errors = [each for each in found if isinstance(each, StoreUnavailable)]
        results = [each for each in found if not isinstance(each, StoreUnavailable)]
        return results, errors[0] if errors else None

    def one_of_each_server(self) -> Collection[LaneExecutor]:
        """A lane of each server, for statements about the server."""
        servers = [lane.server for lane in self.map.lanes]
        return [self._executors[servers.index(each)] for each in dict.fromkeys(servers)]

    async def run(
        self, lane: Lane, sql: str, parameters: Any, prepare: bool, deadline: float
    ) -> Rows:
        """Run a statement behind the guard of a lane; `prepare` it if that is possible."""
        if self._is_delegated:
            statement, given = delegated.call(lane, sql, parameters)
            found = await self.coordinator.run(statement, given, deadline=deadline)
            return delegated.rows_of(sql, found)
        return await self._server(lane.server).run(
            lane.statement(sql), parameters, prepare=prepare, deadline=deadline, guard=lane.guard
        )

    def _server(self, server: Server) -> RetryingExecutor:
        """Connections to a server, which are made the first time."""
        executor = self._servers.get(server)
        if executor is None:
            executor = self._servers[server] = self._connect(server)
            if self._is_open:
                executor.start()
        return executor

    def pause(self, seconds: float) -> Deferred[None]:
        """Wait."""
        return deferLater(self._reactor, seconds)

    async def reload(self) -> None:
        """Read again where the shards are; what is asked meanwhile waits for the same answer."""
        if self._reloading is not None:
            waiter: Deferred[None] = Deferred()
            self._reloading.append(waiter)
            await waiter
            return
        waiters = self._reloading = []
        try:
            await self._read()
        finally:
            self._reloading = None
            for each in waiters:
                each.callback(None)

    async def _read(self) -> None:
        names = "{" + ",".join(DISTRIBUTED) + "}"
        self.map = shard_map(await self.coordinator.run(READ_SHARDS, (names,)))
        known = {each.range: each for each in self._executors}
        self._executors = [
            known.get((lane.first, lane.last)) or LaneExecutor(self, lane)
            for lane in self.map.lanes
        ]
        if not self._is_delegated:
            for lane in self.map.lanes:
                self._server(lane.server)


async def together(work: Collection[Awaitable[R]]) -> list[R]:
    """The results of work that runs at the same time; raises the first error."""
    try:
        return await gatherResults([as_deferred(each) for each in work], consumeErrors=True)
    except FirstError as first:
        error = first.subFailure.value
        assert error is not None
        raise error from None
