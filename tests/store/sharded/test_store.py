"""The sharded layout: the contract of the store, on a made-up map of shards."""

from __future__ import annotations

from tests.contracts.store import StoreContract


class TestShardedStore(StoreContract):
    """The contract."""
