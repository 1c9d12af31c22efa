"""Fixtures of the tests of the SQLite store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles import result_of
from tests.store.sqlite.database import (
    Database,
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path)
    yield database
    for store in database.opened:
        result_of(store.close())
    assert not database.clock.getDelayedCalls()
