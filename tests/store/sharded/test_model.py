"""Model-based test of the sharded layout, on a made-up map of shards or a real cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest
from hypothesis import settings

from chatd.interfaces import IStore
from chatd.store.postgres import store
from tests.examples import examples
from tests.model_sync import SyncStoreMachine
from tests.store.postgres.test_model import PostgresMachine
from tests.store.sharded.cluster import Cluster
from tests.store.sharded.stores import sharded_store_at


class ShardedMachine(PostgresMachine):
    """A new database for each example, or that of the real cluster."""

    cluster: ClassVar[Cluster | None]

    def __init__(self) -> None:
        if self.cluster is not None:
            self.cluster.reset()
            # This class makes no databases then.
            SyncStoreMachine.__init__(self)
        else:
            super().__init__()
        self.put_back_rows: Callable[[], None] | None = None

    @property
    def url(self) -> str:
        """The address of the database."""
        return self.databases.url(self.database) if self.cluster is None else self.cluster.url

    def open_store(self, *, known_only: bool = False) -> IStore:
        opened = sharded_store_at(self.url, known_only=known_only)
        self.run(opened.open())
        return opened

    def copy_database(self) -> None:
        if self.cluster is None:
            super().copy_database()
        else:
            self.put_back_rows = self.cluster.copy()

    def put_back_database(self) -> None:
        if self.put_back_rows is None:
            super().put_back_database()
        else:
            self.put_back_rows()

    def discard(self) -> None:
        if self.cluster is None:
            super().discard()


class ShardedModel:
    """Where the machine's databases come from."""

    @pytest.fixture(autouse=True)
    def _server(
        self,
        request: pytest.FixtureRequest,
        cluster: Cluster | None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(store, "CHECK_SECONDS", 30.0)
        ShardedMachine.cluster = cluster
        if cluster is None:
            ShardedMachine.databases = request.getfixturevalue("postgres")
            ShardedMachine.template = request.getfixturevalue("sharded_template")


class TestShardedModel(ShardedModel, ShardedMachine.TestCase):  # type: ignore[valid-type,misc]
    """The machine as a test case."""

    settings = settings(max_examples=examples(2, deep=20), stateful_step_count=40)
