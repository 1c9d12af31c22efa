"""Stores of the sharded layout for tests."""

from __future__ import annotations

from typing import Any

from chatd.postgres.address import Address
from chatd.store.postgres.store import PostgresStore
from chatd.store.sharded.shards import Server
from tests.store.postgres.stores import Announcer, store_at
from tests.store.sharded.cluster import given


def sharded_store_at(url: str, **options: Any) -> PostgresStore:
    """A store whose servers are all the one of the coordinator, unless there is a real cluster."""

    def locate(coordinator: Address, server: Server) -> Address:
        return coordinator

    if given() is None:
        options.setdefault("locate", locate)
    return store_at(url, **{"announcer": Announcer(), **options})
