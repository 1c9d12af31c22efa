"""The measurement of conversations and positions, with small numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from bench.conversations import Row, measure_new, new_database, table
from tests.postgres_server import Databases

pytestmark = pytest.mark.usefixtures("forked_servers")


@pytest.mark.parametrize("scheme", ["sqlite", "postgres"])
@ensureDeferred
async def test_calls_are_measured(postgres: Databases, tmp_path: Path, scheme: str) -> None:
    db = f"sqlite:{tmp_path}/c" if scheme == "sqlite" else postgres.url("postgres")
    rows: list[Row] = []
    for conversations, messages in ((1, 10), (60, 130)):
        with new_database(db, f"chatd_bench_{conversations}") as url:
            rows.append(await measure_new(reactor, url, conversations, messages, calls=5))
    assert list(tmp_path.iterdir()) == []
    lines = table(rows).splitlines()
    assert len(lines) == 4
    assert lines[3].startswith("| 60 | 130 | ")
    for row in rows:
        assert len(row.costs) == 6
        assert all(0 < each.least <= each.median <= each.p99 for each in row.costs.values())
