"""The cluster that CHATD_TEST_CITUS_DSN names: the tests of this folder use it if it is given.

It is the coordinator of a real Citus, in a database for the tests only; its user owns everything,
and reaches the other servers without a password. The tests share the database, one after another.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any, Final

from chatd.postgres.address import Address
from chatd.store.migrations import migrations
from chatd.store.sharded.hashing import hash_bigint
from chatd.store.sharded.schema import IS_SHARDED
from chatd.store.sharded.shards import Server, address_of
from chatd.store.sharded.tables import ALLOCATION, DISTRIBUTED
from tests.postgres_server import connected, rows
from tests.store.sharded.made_up_citus import shard

VARIABLE: Final = "CHATD_TEST_CITUS_DSN"
SHARDS: Final = 4

_TABLES: Final = (*DISTRIBUTED, ALLOCATION)


class Cluster:
    """A real cluster; `url` is that of its coordinator."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.urls = {1: url}
        with connected(url) as db:
            [[is_sharded]] = rows(db, IS_SHARDED)
            if not is_sharded:
                for migration in migrations("postgres"):
                    rows(db, migration.sql)
                    rows(db, "UPDATE schema_version SET version = %s", migration.version)
                shard(db, SHARDS)

    def reset(self) -> None:
        """Empty all tables."""
        with connected(self.url) as db:
            rows(db, f"TRUNCATE {', '.join(DISTRIBUTED)}")
            rows(db, f"UPDATE {ALLOCATION} SET next_id = 1")
            rows(db, "UPDATE history SET epoch = NULL")

    def copy(self) -> Callable[[], None]:
        """Copy all rows; returns what puts them back in place of those of that time."""
        copies = {table: io.BytesIO() for table in _TABLES}
        with connected(self.url) as db, db.cursor() as cursor:
            for table, data in copies.items():
                cursor.copy_expert(f"COPY (SELECT * FROM {table}) TO STDOUT", data)

        def put_back() -> None:
            with connected(self.url) as db, db.cursor() as cursor:
                rows(db, f"TRUNCATE {', '.join(DISTRIBUTED)}")
                rows(db, f"DELETE FROM {ALLOCATION}")
                for table, data in copies.items():
                    data.seek(0)
                    cursor.copy_expert(f"COPY {table} FROM STDIN", data)

        return put_back

    def locate(self, coordinator: Address, server: Server) -> Address:
        """See `PostgresStore`."""
        return address_of(coordinator, server)

    def place(self, user_id: int) -> int:
        """The group of the server that has the shards of a user."""
        return int(self._placement(user_id)[1])

    def move(self, user_id: int) -> None:
        """Move the shards of a user's lane to another server."""
        shard_id, group = self._placement(user_id)
        with connected(self.url) as db:
            nodes = rows(
                db,
                "SELECT groupid, nodename, nodeport FROM pg_dist_node WHERE shouldhaveshards",
            )
            [source] = [each[1:] for each in nodes if each[0] == group]
            target = next(each[1:] for each in nodes if each[0] != group)
            rows(
                db,
                "SELECT citus_move_shard_placement(%s, %s, %s, %s, %s, 'block_writes')",
                shard_id,
                *source,
                *target,
            )

    def _placement(self, user_id: int) -> tuple[Any, ...]:
        with connected(self.url) as db:
            [found] = rows(
                db,
                "SELECT shardid, groupid FROM pg_dist_placement JOIN pg_dist_shard USING (shardid)"
                " WHERE logicalrelid = 'message'::regclass"
                " AND %s BETWEEN shardminvalue::integer AND shardmaxvalue::integer",
                hash_bigint(user_id),
            )
            return found


def given() -> str | None:
    """The address of the cluster, None if there is none."""
    return os.environ.get(VARIABLE)
