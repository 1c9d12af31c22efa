"""Model-based test of the sharded layout, on a made-up map of shards."""

from __future__ import annotations

import pytest
from hypothesis import settings

from chatd.interfaces import IStore
from chatd.store.postgres import store
from tests.examples import examples
from tests.postgres_server import Databases
from tests.store.postgres.test_model import PostgresMachine
from tests.store.sharded.stores import sharded_store_at


class ShardedMachine(PostgresMachine):
    """A new database for each example."""

    def open_store(self, *, known_only: bool = False) -> IStore:
        opened = sharded_store_at(self.databases.url(self.database), known_only=known_only)
        self.run(opened.open())
        return opened


class TestShardedModel(ShardedMachine.TestCase):  # type: ignore[valid-type,misc]
    """The machine as a test case."""

    settings = settings(max_examples=examples(4, deep=20), stateful_step_count=40)

    @pytest.fixture(autouse=True)
    def _server(
        self, postgres: Databases, sharded_template: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store, "CHECK_SECONDS", 30.0)
        ShardedMachine.databases = postgres
        ShardedMachine.template = sharded_template
