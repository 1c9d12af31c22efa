"""A sharded PostgreSQL in a simulation: two servers, between which shards move, and NATS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final
from unittest.mock import patch

from chatd.nats import connector as nats_connector
from chatd.postgres.pool import Pool
from chatd.store.sharded.layout import ShardedLayout
from tests.doubles import Now
from tests.simulation.database import Named
from tests.simulation.key_clients import KeylessSender, KeyReuser
from tests.simulation.nats import SimulatedNats, connector
from tests.simulation.network import Network
from tests.simulation.node import Node
from tests.simulation.postgres import PostgresServer, Session, Statement
from tests.simulation.postgres_database import PostgresDatabase, PostgresNode
from tests.simulation.real_postgres import FIRST, SECOND, RealPostgres, real_postgres
from tests.simulation.tape import Tape

CONNECTIONS: Final = 2
"""Of each daemon to each server, so that most steps are not about making them."""

AfterBatch = Callable[[Session], None]

_GROUPS: Final = {FIRST: 1, SECOND: 2}
_DIVISION_BY_ZERO: Final = "22012"
"""What the guard of a lane fails with."""


class ShardedNode(PostgresNode):
    """A daemon whose store is sharded."""

    def __init__(self, name: str, network: Network, now: Now, seconds: float) -> None:
        super().__init__(name, network, now, seconds, bus="nats://simulated")

    @property
    def is_working(self) -> bool:
        layout: Any = self.store._layout
        if not isinstance(layout, ShardedLayout):
            return super().is_working
        return any(not each.is_idle for each in layout._lanes.executors)


class ShardedServer(PostgresServer):
    """Both servers; it knows what is said of claims and of batches."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.is_worker_away = False
        self.after_batch: AfterBatch | None = None
        """The answer to the next batch is lost, and this is done."""
        self.holders: dict[object, list[str]] = {}
        """The ids of the calls that have made claims, by the reactor of their process."""
        self._moved: set[str] = set()
        """The ids of batches whose shards were not where they were sent."""

    def is_away(self, session: Session) -> bool:
        return super().is_away(session) or (self.is_worker_away and session.schema == SECOND)

    def set_worker_away(self, away: bool) -> None:
        """Whether the server that is not the coordinator is down."""
        self.is_worker_away = away
        if away:
            for session in tuple(self.sessions):
                if session.schema == SECOND:
                    session.break_off()

    def run(self, session: Session, statement: Statement) -> None:
        super().run(session, statement)
        given, error = statement.parameters, statement.error
        if "DELETE FROM claim" in statement.sql and "ORDER BY at" in statement.sql:
            self._reached["claims deleted as too old"] += bool(statement.cursor.rows)
        if not isinstance(given, dict):
            return
        if statement.appends:
            if error is not None and error.pgcode == _DIVISION_BY_ZERO:
                self._moved.add(given["id"])
            elif given["id"] in self._moved:
                self._reached["batch sent again after its shards had moved"] += 1
            if self.after_batch is not None and error is None and session in self.sessions:
                then, self.after_batch = self.after_batch, None
                session.break_off()
                then(session)
        elif "texts" in given:
            self._reached["batch looked up after a lost answer"] += error is None
        elif "holder" in given and "fingerprints" in given and error is None:
            self.holders.setdefault(session.reactor, []).append(given["holder"])
            found = {bytes(row[2]).hex() for row in statement.cursor.rows}
            others = any(each not in given["fingerprints"] for each in found)
            self._reached["key claimed for another recipient"] += others


class ShardedDatabase(PostgresDatabase):
    """The servers, NATS, and the daemons that use them."""

    max_nodes = 3
    clients = ((KeyReuser, 2), (KeyReuser, 3), (KeylessSender, 1), (KeylessSender, 4))
    server: ShardedServer

    def __init__(
        self, seed: int, tape: Tape, network: Network, now: Now, reached: Counter[str]
    ) -> None:
        super().__init__(seed, tape, network, now, reached)
        self._nats = SimulatedNats()
        self._shards = _shards(self.server.real)
        self._messages = self._present("message")
        self._inboxes = self._present("inbox")

    def _make_server(self, seed: int) -> PostgresServer:
        real = real_postgres(sharded=True)
        return ShardedServer(self._tape, seed, self._now, self._reached, real)

    def _present(self, table: str) -> str:
        """What stands for a table in FROM: its shards, each where it is now."""
        number = [each for each, _ in self._shards[0]].index(table)
        parts = [
            f"SELECT * FROM {schema}.{lane[number][0]}_{lane[number][1]} WHERE EXISTS ("
            f"SELECT FROM {FIRST}.pg_dist_placement"
            f" WHERE shardid = {lane[number][1]} AND groupid = {group})"
            for lane in self._shards
            for schema, group in _GROUPS.items()
        ]
        return f"({' UNION ALL '.join(parts)})"

    @contextmanager
    def running(self) -> Iterator[None]:
        defaults: Any = Pool.__init__.__kwdefaults__
        with (
            super().running(),
            patch.object(nats_connector, "Connector", connector(self._nats)),
            patch.dict(defaults, size=CONNECTIONS),
        ):
            yield

    def new_node(self, name: str, seconds: float) -> Node:
        return ShardedNode(name, self._network, self._now, seconds)

    def actions(self) -> list[Named]:
        return [*super().actions(), *self._nats.actions()]

    def faults(self, nodes: list[Node]) -> list[Named]:
        found = super().faults(nodes)
        if self.server.is_down or self.server.hangs:
            return found
        found += [("worker away or back", self._toggle_worker)] * (
            4 if self.server.is_worker_away else 1
        )
        if self._nats.connections:
            found.append(("NATS connection lost", self._lose_nats))
        if not any(session.has_transaction for session in self.server.sessions):
            found += [("shards moved", self._move_any)] * 2
            if self.server.after_batch is None:
                for then in (self._move_lane_of, self._take_away):
                    found += [("answer to be lost", partial(self._lose_answer, then))] * 3
        return found

    def _toggle_worker(self) -> None:
        self.server.set_worker_away(not self.server.is_worker_away)

    def _lose_nats(self) -> None:
        self._tape.choice(self._nats.connections).abort("lost")

    def _lose_answer(self, then: AfterBatch) -> None:
        """The answer to the next batch is lost after the commit, and something else happens."""
        self.server.after_batch = then

    def _move_lane_of(self, session: Session) -> None:
        self._reached["answer lost, and shards moved"] += 1
        assert session.statement is not None
        sql = session.statement.sql
        self._move(next(lane for lane in self._shards if f"ARRAY[{dict(lane)['message']}]" in sql))

    def _take_away(self, session: Session) -> None:
        if session.schema == SECOND:
            self._reached["answer lost, and worker away"] += 1
            self.server.set_worker_away(True)

    def _move_any(self) -> None:
        self._move(self._tape.choice(self._shards))

    def _move(self, lane: list[tuple[str, int]]) -> None:
        """Move the shards of a lane to the other server; what was there remains, as with Citus."""
        real = self.server.real
        [[group]] = real.rows(
            f"SELECT groupid FROM {FIRST}.pg_dist_placement WHERE shardid = {lane[0][1]}"
        )
        source, target = (FIRST, SECOND) if group == 1 else (SECOND, FIRST)
        statements = []
        for table, shard_id in lane:
            name = f"{table}_{shard_id}"
            statements += [
                f"DELETE FROM {target}.{name}",
                f"INSERT INTO {target}.{name} TABLE {source}.{name}",
            ]
        ids = ", ".join(str(shard_id) for _, shard_id in lane)
        statements += [
            f"UPDATE {schema}.pg_dist_placement SET groupid = {_GROUPS[target]}"
            f" WHERE shardid IN ({ids})"
            for schema in _GROUPS
        ]
        real.rows("; ".join(statements))

    def is_busy(self, node: Node) -> bool:
        return super().is_busy(node) or self._nats.is_busy(node.clock)

    def tells_all(self, node: Node) -> bool:
        # Wake-ups may be lost with NATS; what is found later than that is checked at the end.
        return False

    def killed(self, node: Node) -> None:
        holders = self.server.holders.pop(node.clock, [])
        if holders and self._has_claims_without_messages(holders):
            self._reached["crash between claim and message"] += 1
        super().killed(node)

    def _has_claims_without_messages(self, holders: list[str]) -> bool:
        ids = ", ".join(f"'{holder}'" for holder in holders)
        found = self.server.real.rows(
            f"SELECT 1 FROM {self._present('claim')} AS claim LEFT JOIN"
            f" {self._present('idempotency')} AS used USING (sent_by, key)"
            f" WHERE holder IN ({ids}) AND used.seq IS NULL"
        )
        return bool(found)

    def ended(self, node: Node) -> None:
        self._nats.killed(node.clock)
        super().ended(node)

    def mend(self, nodes: list[Node]) -> None:
        self.server.is_worker_away = False
        self.server.after_batch = None
        super().mend(nodes)


def _shards(real: RealPostgres) -> list[list[tuple[str, int]]]:
    """Table and number of the shards of each lane; the lanes in the order of their hashes."""
    rows = real.rows(
        f"SELECT shardminvalue::integer, relname, shardid FROM {FIRST}.pg_dist_shard"
        " JOIN pg_class ON pg_class.oid = logicalrelid ORDER BY 1, 2"
    )
    lanes: dict[int, list[tuple[str, int]]] = {}
    for first, table, shard_id in rows:
        lanes.setdefault(first, []).append((table, shard_id))
    return list(lanes.values())
