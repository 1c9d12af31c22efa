"""Two databases that play the two servers of a made-up Citus, and moves of shards between them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

from chatd.postgres.address import Address, parse
from chatd.store.sharded.hashing import hash_bigint
from chatd.store.sharded.shards import Server
from tests.postgres_server import Databases, connected, rows

EXCLUSIVE = 7
"""The mode of the lock that Citus takes before it changes where a shard is."""


class TwoServers:
    """`database` is the coordinator and the first server; `other` was copied from it."""

    def __init__(self, databases: Databases, database: str, other: str) -> None:
        self.urls = {1: databases.url(database), 2: databases.url(other)}
        with connected(self.urls[2]) as db:
            rows(db, "UPDATE pg_dist_local_group SET groupid = 2")

    def locate(self, coordinator: Address, server: Server) -> Address:
        """See `PostgresStore`."""
        return parse(self.urls[int(server.host.removeprefix("node"))])

    def place(self, user_id: int) -> int:
        """The number of the server that has the shards of a user."""
        with connected(self.urls[1]) as db:
            [[place]] = rows(
                db,
                "SELECT groupid FROM pg_dist_placement JOIN pg_dist_shard USING (shardid)"
                " WHERE logicalrelid = 'message'::regclass"
                " AND %s BETWEEN shardminvalue::integer AND shardmaxvalue::integer",
                hash_bigint(user_id),
            )
            return int(place)

    def move(self, user_id: int) -> None:
        """Move the shards of a user's lane to the other server, as Citus does."""
        with self.moving(user_id):
            pass

    @contextlib.contextmanager
    def moving(self, user_id: int) -> Iterator[None]:
        """The same; the body runs while the shards are locked.

        The rows at the former place remain, so that whoever still reads or writes there differs.
        """
        source = self.place(user_id)
        target = 3 - source
        with connected(self.urls[source]) as old, connected(self.urls[target]) as new:
            shards = rows(
                old,
                "SELECT logicalrelid::text || '_' || shardid, shardid FROM pg_dist_shard"
                " WHERE %s BETWEEN shardminvalue::integer AND shardmaxvalue::integer",
                hash_bigint(user_id),
            )
            ids = [shard_id for _, shard_id in shards]
            for db in (old, new):
                rows(db, "BEGIN")
                rows(db, "SELECT lock_shard_metadata(%s, %s::bigint[])", EXCLUSIVE, sorted(ids))
            yield
            for name, _ in shards:
                rows(new, f"DELETE FROM {name}")
                _copy(old, new, name)
            for db in (old, new):
                rows(
                    db,
                    "UPDATE pg_dist_placement SET groupid = %s WHERE shardid = ANY(%s::bigint[])",
                    target,
                    ids,
                )
                rows(db, "COMMIT")


def _copy(old: Any, new: Any, table: str) -> None:
    data = io.BytesIO()
    with old.cursor() as source, new.cursor() as target:
        source.copy_expert(f"COPY {table} TO STDOUT", data)
        data.seek(0)
        target.copy_expert(f"COPY {table} FROM STDIN", data)
