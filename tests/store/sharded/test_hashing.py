"""The hash of ids, and the shards that it leads to."""

from __future__ import annotations

import pytest

from chatd.model import MAX_INTEGER
from chatd.store.sharded.hashing import hash_bigint
from chatd.store.sharded.tables import SLOT, username_slot
from tests.postgres_server import Databases

VALUES = [0, 1, -1, 2, 4711, 2**31, 2**32, 2**40 + 7, -(2**40), MAX_INTEGER, -MAX_INTEGER]


def test_the_hash_is_that_of_postgresql(postgres: Databases) -> None:
    found = postgres.admin("SELECT each, hashint8(each) FROM unnest(%s::bigint[]) AS each", VALUES)
    assert found == [(value, hash_bigint(value)) for value in VALUES]


@pytest.mark.parametrize("name", ["ann", "x", "o'neil-4"])
def test_a_username_has_one_slot(postgres: Databases, name: str) -> None:
    sql = f"SELECT {SLOT} FROM (VALUES (%s)) AS account (username_folded)"
    assert postgres.admin(sql, name) == [(username_slot(name),)]


def test_ids_are_spread_evenly() -> None:
    halves = [hash_bigint(each) < 0 for each in range(1, 1001)]
    assert 450 < sum(halves) < 550
