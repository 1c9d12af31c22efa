"""The guard of lanes: shards that move while they are used."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from pytest_twisted import async_yield_fixture, ensureDeferred
from twisted.internet.defer import gatherResults

from chatd.errors import StartError, StoreUnavailable
from chatd.model import Appended, InboxSlice, ReadAfter, ReadConversation
from chatd.store.postgres.store import PostgresStore
from chatd.store.sharded import layout
from tests.contracts.helpers import add_accounts, digest, draft, owners, read_inbox, send
from tests.examples import examples
from tests.postgres_server import Databases, connected, rows, sleep
from tests.store.postgres.stores import losing_results, store_at
from tests.store.sharded.cluster import Cluster, given
from tests.store.sharded.daemon_role import OWNER, ROLE, url_of_role
from tests.store.sharded.made_up_citus import make_up_citus, shard
from tests.store.sharded.stores import sharded_store_at
from tests.store.sharded.two_servers import TwoServers

Servers = Cluster | TwoServers


@pytest.fixture(scope="session")
def two_servers_template(postgres: Databases, postgres_template: str) -> str:
    """The name of a template database whose lanes are on two servers."""
    name = postgres.create(postgres_template)
    with connected(postgres.url(name)) as db:
        make_up_citus(db, nodes=2)
        shard(db)
    return name


@pytest.fixture
def made_up_servers(postgres: Databases, two_servers_template: str) -> Iterator[TwoServers]:
    names = [postgres.create(two_servers_template) for _ in range(2)]
    yield TwoServers(postgres, *names)
    for name in names:
        postgres.drop(name)


@pytest.fixture
def servers(request: pytest.FixtureRequest, cluster: Cluster | None) -> Servers:
    """The real cluster, or two made-up servers."""
    if cluster is None:
        made_up: TwoServers = request.getfixturevalue("made_up_servers")
        return made_up
    cluster.reset()
    return cluster


async def opened_stores(servers: Servers, count: int = 2, role: str = OWNER) -> list[PostgresStore]:
    """The stores of some processes."""
    url = servers.urls[1] if role == OWNER else url_of_role(servers.urls[1])
    opened = [sharded_store_at(url, locate=servers.locate) for _ in range(count)]
    for store in opened:
        await store.open()
    return opened


@async_yield_fixture
async def processes(
    request: pytest.FixtureRequest, servers: Servers
) -> AsyncIterator[list[PostgresStore]]:
    opened = await opened_stores(servers, role=getattr(request, "param", OWNER))
    yield opened
    for store in opened:
        await store.close()


async def pair(servers: Servers, store: PostgresStore) -> tuple[int, int]:
    """Two accounts on different servers."""
    users = await add_accounts(store, *(f"user{number}" for number in range(12)))
    first = {servers.place(each): each for each in users}
    one, two, *_ = [user_id for _, user_id in sorted(first.items())]
    return one, two


# Nothing that is made up delegates a function to another server.
@pytest.mark.parametrize("processes", [OWNER] if given() is None else [OWNER, ROLE], indirect=True)
@ensureDeferred
async def test_nothing_is_lost_or_doubled_while_shards_move(
    servers: Servers, processes: list[PostgresStore]
) -> None:
    one, two = await pair(servers, processes[0])
    sent = []
    for turn in range(examples(4, deep=8)):
        drafts = [
            (store, draft(one, to, f"{turn}.{number}", f"{turn}.{number}.{to}"))
            for number in range(4)
            for store in processes
            for to in (one, two)
        ]
        running = [store.append([each]) for store, each in drafts]
        servers.move((one, two)[turn % 2])
        for (store, each), [result] in zip(drafts, await gatherResults(running), strict=True):
            # A move of a real server blocks this process for seconds.
            unknown = isinstance(result, StoreUnavailable)
            [known] = await store.append([each]) if unknown else [result]
            assert isinstance(known, Appended)
            sent.append(known.message)
    # Both processes have sent each of them, with the same key.
    assert len(set(sent)) == len(sent) / 2
    fresh = sharded_store_at(servers.urls[1], locate=servers.locate)
    await fresh.open()
    for user_id in (one, two):
        expected = {each for each in sent if each.received_by == user_id}
        for store in (*processes, fresh):
            assert set(await read_inbox(store, user_id)) == expected
    await fresh.close()


@ensureDeferred
async def test_a_process_that_has_not_heard_of_a_move_reads_and_writes_where_the_shards_are(
    servers: Servers, processes: list[PostgresStore]
) -> None:
    one, two = await pair(servers, processes[0])
    for store in processes:
        await send(store, one, two, "before")
    servers.move(two)
    [moved] = await opened_stores(servers, 1)
    after = await send(moved, one, two, "after")
    [found] = await processes[0].read([ReadAfter(two, 2, 10)])
    assert found is not None
    assert found.messages == (after,)
    servers.move(one)
    assert await processes[1].delete_account(one)
    [fresh] = await opened_stores(servers, 1)
    for each in (*processes, fresh):
        assert await each.account(one) is None
    await gatherResults([moved.close(), fresh.close()])
    conversation = await processes[0].conversation(ReadConversation(two, one, 10))
    assert conversation is not None
    assert not conversation.peer_exists
    assert len(conversation.messages) == 3


@ensureDeferred
async def test_a_batch_whose_result_was_lost_before_its_shards_moved_is_stored_once(
    servers: Servers, processes: list[PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await pair(servers, processes[0])
    store = processes[0]
    await send(store, one, two, "the statement is prepared")
    discard = type(store.pool).discard

    def move_then_discard(self: object, *args: object) -> None:
        servers.move(two)
        discard(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(type(store.pool), "discard", move_then_discard)
    with losing_results(store, 1):
        message = await send(store, one, two, "once")
    assert message.seq == 2
    [fresh] = await opened_stores(servers, 1)
    for each in (store, fresh):
        assert [message.text for message in await read_inbox(each, two)][1:] == ["once"]
    await fresh.close()


@ensureDeferred
async def test_what_is_sent_while_shards_are_locked_waits_and_goes_where_they_are_then(
    made_up_servers: TwoServers,
) -> None:
    servers = made_up_servers
    [store] = await opened_stores(servers, 1)
    one, two = await pair(servers, store)
    with servers.moving(two):
        appending = store.append([draft(one, two, "x")])
        reading = store.read([ReadAfter(two, 0, 10)])
        await send(store, one, one, "the other lane goes on")
        with connected(servers.urls[1]) as db:
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            while rows(db, waiting) != [(2,)]:
                await sleep(0.01)
        assert not appending.called
        assert not reading.called
    [result] = await appending
    assert isinstance(result, Appended)
    assert await reading in ([InboxSlice(0, ())], [InboxSlice(1, (result.message,), 0)])
    [fresh] = await opened_stores(servers, 1)
    assert await read_inbox(fresh, two) == [result.message]
    await gatherResults([store.close(), fresh.close()])


@ensureDeferred
async def test_only_users_of_a_server_that_is_away_are_affected(
    made_up_servers: TwoServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = made_up_servers
    processes = await opened_stores(servers)
    # The test is not about how long a server is waited for.
    monkeypatch.setattr(layout, "REACH_SECONDS", 0.1)
    one, two = await pair(servers, processes[0])
    [store, _] = processes
    [three, *_] = [each for each in range(1, 13) if servers.place(each) == 1 and each != one]
    await store.add_token(one, digest("token"))
    servers.urls[2] = "host=/nowhere"
    late = sharded_store_at(servers.urls[1], deadline=0.5, locate=servers.locate)
    await late.open()
    await late.check()
    message = await send(late, one, three, "x", "key")
    assert await read_inbox(late, three) == [message]
    assert await owners(late, digest("token")) == [one]
    results = await late.append([draft(one, two, "x"), draft(one, three, "y")])
    assert isinstance(results[0], StoreUnavailable)
    assert isinstance(results[1], Appended)
    results = await late.append([draft(two, one, "x", "key"), draft(three, one, "y", "key")])
    assert isinstance(results[0], StoreUnavailable)
    assert isinstance(results[1], Appended)
    for work in (late.account(two), late.read([ReadAfter(two, 0, 1)])):
        with pytest.raises(StoreUnavailable):
            await work
    with pytest.raises(StoreUnavailable):
        # It may be at the server that is away.
        await late.sessions([digest("another")])
    await gatherResults([each.close() for each in (late, *processes)])


@ensureDeferred
async def test_a_sharded_database_needs_a_bus(servers: Servers) -> None:
    with pytest.raises(StartError, match="--bus nats://"):
        await store_at(servers.urls[1]).open()


@ensureDeferred
async def test_shards_that_are_missing_are_noticed(made_up_servers: TwoServers) -> None:
    servers = made_up_servers
    with connected(servers.urls[1]) as db:
        rows(db, "DELETE FROM pg_dist_shard WHERE shardminvalue = '-2147483648'")
    store = sharded_store_at(servers.urls[1], locate=servers.locate)
    with pytest.raises(StartError, match="some shards"):
        await store.open()
    await store.close()
