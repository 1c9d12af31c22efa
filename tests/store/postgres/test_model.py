"""Model-based test of the PostgreSQL store."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import pytest
import pytest_twisted
from hypothesis import settings
from twisted.internet.defer import Deferred

from chatd.interfaces import IStore
from chatd.store.postgres import store
from tests.examples import examples
from tests.model_sync import SyncStoreMachine
from tests.postgres_server import Databases
from tests.store.postgres.stores import store_at

T = TypeVar("T")


class PostgresMachine(SyncStoreMachine):
    """A new database for each example; the server's clock cannot be changed."""

    databases: ClassVar[Databases]
    template: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.database = self.databases.create(self.template)
        self.copy_name: str | None = None

    def open_store(self, *, known_only: bool = False) -> IStore:
        opened = store_at(self.databases.url(self.database), known_only=known_only)
        self.run(opened.open())
        return opened

    def run(self, deferred: Deferred[T]) -> T:
        result: Any = pytest_twisted.blockon(deferred)
        return result  # type: ignore[no-any-return]

    def copy_database(self) -> None:
        self.drop_copy()
        self.copy_name = self.databases.create(self.database)

    def put_back_database(self) -> None:
        assert self.copy_name is not None
        self.databases.put_back(self.copy_name, self.database)

    def drop_copy(self) -> None:
        if self.copy_name is not None:
            self.databases.drop(self.copy_name)

    def discard(self) -> None:
        self.drop_copy()
        self.databases.drop(self.database)


class TestPostgresModel(PostgresMachine.TestCase):  # type: ignore[valid-type,misc]
    """The machine as a test case."""

    settings = settings(max_examples=examples(7, deep=20), stateful_step_count=40)

    @pytest.fixture(autouse=True)
    def _server(
        self, postgres: Databases, postgres_template: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The test is not about how soon a busy machine is ready.
        monkeypatch.setattr(store, "CHECK_SECONDS", 30.0)
        PostgresMachine.databases = postgres
        PostgresMachine.template = postgres_template
