"""A standby that takes over has everything, and the former primary follows it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postgres_server import connected, rows
from tests.soak.replication import Pair


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    made.start()
    yield made
    made.destroy()


def test_servers_change_places(pair: Pair) -> None:
    dsn = pair.urls("postgres") + " target_session_attrs=read-write"
    with connected(dsn) as db:
        rows(db, "CREATE TABLE number AS SELECT 1 AS value")
    for value in (2, 3):
        before = pair.url()
        pair.promote()
        assert pair.url() != before
        with connected(dsn) as db:
            rows(db, "INSERT INTO number VALUES (%s)", value)
        pair.rebuild()
    with connected(dsn) as db:
        assert rows(db, "SELECT value FROM number ORDER BY value") == [(1,), (2,), (3,)]
