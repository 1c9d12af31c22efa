"""The sharded layout for a role that may not use shards: a function runs all statements."""

from __future__ import annotations

from typing import Final

import psycopg2
import pytest
from hypothesis import settings
from pytest_twisted import ensureDeferred
from twisted.logger import globalLogPublisher

from chatd.errors import StartError
from chatd.interfaces import IStore
from chatd.model import Appended
from chatd.store.sharded import delegated
from chatd.store.sharded.hashing import hash_bigint
from chatd.store.sharded.schema import SIGNATURE, delegation
from tests.contracts.helpers import OpenStore, add_accounts, draft, read_inbox, send
from tests.contracts.store import StoreContract
from tests.contracts.store_append import AppendContract, IdempotencyContract
from tests.contracts.store_contacts import BlocksContract
from tests.examples import DEEP, examples
from tests.postgres_server import connected, rows, sleep
from tests.store.sharded.daemon_role import ROLE, url_of_role
from tests.store.sharded.stores import sharded_store_at
from tests.store.sharded.test_model import ShardedMachine, ShardedModel


class WritingContract(AppendContract, IdempotencyContract, BlocksContract):
    """What a function could do differently."""


_Contract: Final = StoreContract if settings.get_current_profile_name() == DEEP else WritingContract


@pytest.mark.parametrize("store_url", [ROLE], indirect=True)
class TestDelegatedStore(_Contract):  # type: ignore[valid-type,misc]
    """The contract; all of it with `--deep`."""


class DelegatedMachine(ShardedMachine):
    """The model, for the role."""

    def open_store(self, *, known_only: bool = False) -> IStore:
        opened = sharded_store_at(url_of_role(self.url), known_only=known_only)
        self.run(opened.open())
        return opened


class TestDelegatedModel(ShardedModel, DelegatedMachine.TestCase):  # type: ignore[valid-type,misc]
    """The machine as a test case."""

    settings = settings(max_examples=examples(1, deep=10), stateful_step_count=40)


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("SELECT 1", [(7,)]),
        ("DELETE FROM seen; SELECT 1;", [(7,)]),
        ("WITH a AS (DELETE FROM seen RETURNING 1) UPDATE seen SET x = (SELECT 1)", []),
        ("WITH a AS (DELETE FROM seen) SELECT 1 FROM a", [(7,)]),
        ("INSERT INTO seen SELECT 1 RETURNING user_id", [(7,)]),
        ("INSERT INTO seen SELECT 'RETURNING'", []),
    ],
)
def test_rows_are_those_of_the_statement_itself(sql: str, found: list[tuple[int]]) -> None:
    assert delegated.rows_of(sql, [('[{"a": 7}]',)]) == found


@ensureDeferred
async def test_a_role_may_do_nothing_but_call_the_function(sharded_url: str) -> None:
    url = url_of_role(sharded_url)
    with connected(url) as db:
        for statement in (
            "SELECT * FROM message",
            "SELECT lock_shard_metadata(5, (SELECT array_agg(shardid) FROM pg_dist_shard))",
        ):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                rows(db, statement)
        for statement in (
            "DROP TABLE message",
            "UPDATE message SET text = ''",
            "SELECT 1; SELECT 2",
        ):
            with pytest.raises(psycopg2.errors.InvalidCursorDefinition):
                rows(db, "SELECT chatd_run_in_lane(0, ARRAY[%s])", statement)
    with connected(sharded_url) as db:
        rows(db, f"REVOKE EXECUTE ON FUNCTION {SIGNATURE} FROM {ROLE}")
    store = sharded_store_at(url)
    with pytest.raises(StartError, match=f"the role {ROLE} neither owns the tables"):
        await store.open()
    await store.close()


@ensureDeferred
async def test_it_is_logged_how_statements_are_run(sharded_url: str) -> None:
    lines: list[str] = []

    def observe(event: dict[str, object]) -> None:
        if "way" in event:
            lines.append(f"{event['role']} {event['may']}: {event['way']}")

    globalLogPublisher.addObserver(observe)  # type: ignore[arg-type]
    try:
        for url in (sharded_url, url_of_role(sharded_url)):
            store = sharded_store_at(url)
            await store.open()
            assert (len(store.pools) == 1) is (ROLE in url)
            await store.close()
    finally:
        globalLogPublisher.removeObserver(observe)  # type: ignore[arg-type]
    assert "owns: statements go directly" in lines[0]
    assert f"{ROLE} does not own: a function" in lines[1]


@ensureDeferred
async def test_the_function_is_made_where_an_older_version_has_sharded_the_database(
    sharded_url: str,
) -> None:
    with connected(sharded_url) as db:
        rows(db, f"DROP FUNCTION {SIGNATURE}")
    store = sharded_store_at(sharded_url)
    await store.open()
    await store.close()
    for_role = sharded_store_at(url_of_role(sharded_url))
    await for_role.open()
    await add_accounts(for_role, "ann")
    await for_role.close()
    with connected(sharded_url) as db, pytest.raises(psycopg2.errors.DuplicateFunction):
        rows(db, delegation()[0])


@pytest.mark.parametrize("store_url", [ROLE], indirect=True)
@ensureDeferred
async def test_a_batch_that_finds_its_shards_gone_is_sent_again_with_the_same_id(
    open_store: OpenStore, sharded_url: str, cluster: object
) -> None:
    if cluster is not None:
        # tests/store/sharded/test_lanes.py moves shards there.
        return
    store = await open_store()
    one, two = await add_accounts(store, "one", "two")
    await send(store, one, two, "before", "key")
    moved = (
        "UPDATE pg_dist_placement SET groupid = %s FROM pg_dist_shard AS shard"
        " WHERE shard.shardid = pg_dist_placement.shardid"
        f" AND {hash_bigint(two)} BETWEEN shardminvalue::integer AND shardmaxvalue::integer"
    )
    with connected(sharded_url) as db:
        rows(db, "INSERT INTO pg_dist_node VALUES (2, 'node2', 5432, 'primary')")
        rows(db, moved, 2)
        appending = store.append([draft(one, two, "x", "another"), draft(one, two, "y")])
        await sleep(0.2)
        assert not appending.called
        rows(db, moved, 1)
        first, second = await appending
        rows(db, "DELETE FROM pg_dist_node WHERE groupid = 2")
        [[batches]] = rows(db, "SELECT count(*) FROM batch")
    assert isinstance(first, Appended)
    assert isinstance(second, Appended)
    assert [each.text for each in await read_inbox(store, two)] == ["before", "x", "y"]
    assert batches <= 2
