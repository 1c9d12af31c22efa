"""The store on PostgreSQL beside the model of a store."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import pytest
import pytest_twisted
from hypothesis import settings
from twisted.internet.defer import Deferred

from chatd.interfaces import IStore
from tests.examples import examples
from tests.model_machine import StoreMachine
from tests.postgres_server import Databases
from tests.store.postgres.test_store import store_at

T = TypeVar("T")


class PostgresMachine(StoreMachine):
    """Everything at once, in a database of its own. Time is the server's and stays as it is."""

    databases: ClassVar[Databases]
    template: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.database = self.databases.create(self.template)

    def open_store(self) -> IStore:
        store = store_at(self.databases.url(self.database))
        self.run(store.open())
        return store

    def run(self, deferred: Deferred[T]) -> T:
        result: Any = pytest_twisted.blockon(deferred)
        return result  # type: ignore[no-any-return]

    def discard(self) -> None:
        self.databases.drop(self.database)


class TestPostgresModel(PostgresMachine.TestCase):  # type: ignore[valid-type,misc]
    """The walk of the machine."""

    settings = settings(max_examples=examples(12, deep=50), stateful_step_count=40)

    @pytest.fixture(autouse=True)
    def _server(self, postgres: Databases, postgres_template: str) -> None:
        PostgresMachine.databases = postgres
        PostgresMachine.template = postgres_template
