"""Which shards there are, and where they are: read from the metadata of Citus.

A lane is the shards of all tables for one range of hashes: they are co-located, so they are always
on one server, and move together.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import count
from typing import Any, Final

from msgspec import Struct
from psycopg2.extensions import make_dsn, parse_dsn

from chatd.errors import StartError
from chatd.postgres.address import Address
from chatd.store.sharded.hashing import hash_bigint
from chatd.store.sharded.tables import DISTRIBUTED, on_shards

# Unlike Citus, a test may have several servers of one address, which are databases.
READ_SHARDS: Final = """
SELECT shardminvalue::integer, shardmaxvalue::integer, nodename, nodeport,
    logicalrelid::regclass::text, shard.shardid
FROM pg_dist_shard AS shard
JOIN pg_dist_placement AS placement ON placement.shardid = shard.shardid
JOIN pg_dist_node AS node ON node.groupid = placement.groupid AND node.noderole = 'primary'
WHERE logicalrelid = ANY(%s::regclass[])
"""

# The first one waits while the shard is being moved away, and keeps it from being moved until the
# transaction has ended. The second one, which sees what was committed until then, fails unless the
# shard is still here.
_GUARD: Final = """
SELECT lock_shard_metadata(5, ARRAY[{shard}]::bigint[]);
SELECT 1 / count(*) FROM pg_dist_placement AS placement
JOIN pg_dist_local_group AS here ON here.groupid = placement.groupid
WHERE placement.shardid = {shard};
"""
MOVED: Final = ("22012", "42P01")
"""SQLSTATEs of a statement whose shards are not there: division by zero, undefined table."""


class Server(Struct, frozen=True):
    """A server that holds shards."""

    host: str
    port: int


def address_of(coordinator: Address, server: Server) -> Address:
    """The address of a server, with the user, password and options of that of the coordinator."""
    given = parse_dsn(coordinator.attempts[0])
    given.pop("hostaddr", None)
    dsn = make_dsn(**{**given, "host": server.host, "port": server.port})
    return Address(f"{server.host}:{server.port}", (dsn,), coordinator.connect_seconds)


class Lane(Struct, frozen=True, dict=True):
    """The shards of the rows whose owners' ids have hashes from `first` to `last`."""

    first: int
    last: int
    server: Server
    shards: tuple[tuple[str, str], ...]
    """The name of the shard of each table."""
    shard_id: int
    """The shard of `message`, which stands for all."""

    @cached_property
    def guard(self) -> str:
        """Statements that fail unless the shards are here, and that keep them here."""
        return _GUARD.format(shard=self.shard_id)

    @cached_property
    def key(self) -> int:
        """A number whose hash is in this lane, as that of an owner."""
        return next(each for each in count() if self.first <= hash_bigint(each) <= self.last)

    @cached_property
    def _texts(self) -> dict[str, str]:
        return {}

    def statement(self, sql: str) -> str:
        """The statement on the shards of this lane."""
        text = self._texts.get(sql)
        if text is None:
            text = self._texts[sql] = on_shards(sql, dict(self.shards))
        return text


class ShardMap:
    """All lanes, in the order of their hashes."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self.lanes = sorted(lanes, key=lambda lane: lane.first)
        self._firsts = [lane.first for lane in self.lanes]

    def index(self, user_id: int) -> int:
        """The place of the lane of that owner."""
        return bisect_right(self._firsts, hash_bigint(user_id)) - 1

    def find(self, lane: Lane) -> Lane | None:
        """The lane as it is in this map; None if its shards were split."""
        place = bisect_right(self._firsts, lane.first) - 1
        found = self.lanes[place]
        return found if (found.first, found.last) == (lane.first, lane.last) else None


def shard_map(rows: Sequence[tuple[Any, ...]]) -> ShardMap:
    """The map of the rows of `READ_SHARDS`; raises `StartError` if it cannot be used."""
    found: dict[tuple[int, int], dict[str, int]] = {}
    servers: dict[tuple[int, int], set[Server]] = {}
    for first, last, host, port, table, shard_id in rows:
        name = table.rpartition(".")[2].strip('"')
        found.setdefault((first, last), {})[name] = shard_id
        servers.setdefault((first, last), set()).add(Server(host, port))
    lanes = []
    for key, ids in found.items():
        if len(servers[key]) != 1 or ids.keys() != DISTRIBUTED.keys():
            raise StartError(
                "the tables of chatd are not co-located in the database: run chatd db shard"
            )
        [server] = servers[key]
        names = tuple((table, f"{table}_{shard_id}") for table, shard_id in ids.items())
        lanes.append(Lane(*key, server, names, ids["message"]))
    result = ShardMap(lanes)
    if [lane.first for lane in result.lanes] != [
        -(2**31),
        *(lane.last + 1 for lane in result.lanes[:-1]),
    ]:
        raise StartError("some shards of the database are missing")
    return result
