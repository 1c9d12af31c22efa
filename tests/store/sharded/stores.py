"""Stores of the sharded layout for tests."""

from __future__ import annotations

from typing import Any

from chatd.postgres.address import Address
from chatd.store.postgres.store import PostgresStore
from chatd.store.sharded.shards import Server
from tests.store.postgres.stores import Announcer, store_at


def sharded_store_at(url: str, **options: Any) -> PostgresStore:
    """A store whose servers are all the one of the coordinator."""

    def locate(coordinator: Address, server: Server) -> Address:
        return coordinator

    return store_at(url, **{"announcer": Announcer(), "locate": locate, **options})
