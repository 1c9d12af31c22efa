"""Sending and reading while connections are terminated and the server is restarted."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeAlias

import pytest
from pytest_twisted import async_yield_fixture, ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from chatd.errors import StoreUnavailable
from chatd.interfaces import IStore
from chatd.model import Appended, Draft, Message, ReadAfter
from chatd.store.postgres.store import PostgresStore
from tests.contracts.helpers import add_accounts, draft, read_inbox
from tests.examples import examples
from tests.postgres_server import Server, connected, rows, sleep
from tests.store.postgres.stores import store_at

SENDERS = 8
RECOVERY_SECONDS = 5.0
PAUSE_SECONDS = examples(40, deep=0) / 1000
"""Between the sends of each sender; with longer ones, few are under way when something fails."""
TERMINATIONS = examples(100, deep=400)

Chaos: TypeAlias = Callable[[Server, str], Coroutine[Deferred[Any], Any, None]]


@async_yield_fixture
async def stores(own_server: Server, own_database: str) -> AsyncIterator[list[PostgresStore]]:
    """The stores of two processes on a server that the test may stop."""
    stores = [store_at(own_server.url(own_database)) for _ in range(2)]
    for store in stores:
        await store.open()
    yield stores
    for store in stores:
        await store.close()


class Traffic:
    """Concurrent senders and readers, with a record of what they were acknowledged."""

    def __init__(self, stores: list[PostgresStore], ids: list[int]) -> None:
        self.stores = stores
        self.ids = ids
        self.random = random.Random(7)
        self.acknowledged: list[Message] = []
        self.unknown: list[str] = []
        self.followed: dict[int, list[Message]] = {user_id: [] for user_id in ids}
        self.running = True

    def begin(self) -> list[Deferred[None]]:
        work = [self.send(number) for number in range(SENDERS)]
        work += [self.follow(user_id) for user_id in self.ids]
        return [Deferred.fromCoroutine(each) for each in work]

    async def send(self, sender: int) -> None:
        number = 0
        while self.running:
            number += 1
            text = f"{sender}.{number}"
            to = self.random.choice(self.ids)
            # The first sender never has a key: whenever the server is stopped for long, the outcome
            # of one of its sends is unknown.
            keyed = sender > 0 and number % 2 == 0
            one = draft(self.ids[0], to, text, text if keyed else None)
            result = await self.attempt([one, Draft(self.ids[0], 4711, "nobody")])
            while result is None and keyed:
                # After a 503 a client repeats its send, possibly to another process.
                result = await self.attempt([one])
            if result is None:
                self.unknown.append(text)
            else:
                assert isinstance(result, Appended)
                self.acknowledged.append(result.message)
            await sleep(PAUSE_SECONDS)

    async def attempt(self, drafts: list[Draft]) -> Any:
        try:
            return (await self.random.choice(self.stores).append(drafts))[0]
        except StoreUnavailable:
            await sleep(0.05)
            return None

    async def follow(self, user_id: int) -> None:
        seen = self.followed[user_id]
        while self.running:
            try:
                store = self.random.choice(self.stores)
                [found] = await store.read([ReadAfter(user_id, len(seen), 100)])
            except StoreUnavailable:
                await sleep(0.05)
                continue
            assert found is not None
            seen += found.messages
            await sleep(examples(30, deep=10) / 1000)

    async def prove(self, store: IStore) -> None:
        """Check that no message is lost or duplicated, and that all inboxes are dense."""
        texts: Counter[str] = Counter()
        stored: set[Message] = set()
        for user_id, seen in self.followed.items():
            whole = await read_inbox(store, user_id)
            assert whole[: len(seen)] == seen
            times = [message.sent_at for message in whole]
            assert times == sorted(times)
            stored.update(whole)
            texts.update(message.text for message in whole)
        assert set(self.acknowledged) <= stored
        assert set(texts.values()) == {1}
        assert texts.keys() <= {message.text for message in self.acknowledged} | set(self.unknown)


async def terminate_backends(server: Server, database: str) -> None:
    for _ in range(30):
        await sleep(0.03)
        with connected(server.url()) as db:
            rows(
                db,
                "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity"
                " WHERE datname = %s ORDER BY random() LIMIT 2) AS picked",
                database,
            )


async def terminate_writers(server: Server, database: str) -> None:
    """Terminate server processes while they are inserting messages."""
    with connected(server.url()) as db:
        for _ in range(TERMINATIONS):
            await sleep(0.002)
            rows(
                db,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
                " AND state = 'active' AND query LIKE '%%INSERT INTO message%%' LIMIT 1",
                database,
            )


async def restart_fast(server: Server, database: str) -> None:
    for _ in range(2):
        await sleep(0.3)
        server.stop(signal.SIGINT)
        await sleep(0.3)
        server.start()


async def crash(server: Server, database: str) -> None:
    for _ in range(2):
        await sleep(0.3)
        server.stop(signal.SIGKILL)
        await sleep(0.3)
        server.start()


async def inject_conflicts(server: Server, database: str) -> None:
    """Let commits fail with serialization failures and deadlocks."""
    with connected(server.url(database)) as db:
        rows(db, CONFLICTS)
        await sleep(1)
        rows(db, "DROP TRIGGER conflict ON message")


CONFLICTS = """
CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF random() < 0.15 THEN
        RAISE EXCEPTION 'injected' USING ERRCODE = CASE WHEN random() < 0.5
            THEN 'serialization_failure' ELSE 'deadlock_detected' END;
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER conflict AFTER INSERT ON message DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION conflict();
"""


@pytest.mark.parametrize(
    "chaos",
    [terminate_backends, terminate_writers, restart_fast, crash, inject_conflicts],
)
@ensureDeferred
async def test_no_message_is_lost_or_duplicated(
    own_server: Server, own_database: str, stores: list[PostgresStore], chaos: Chaos
) -> None:
    ids = await add_accounts(stores[0], "ann", "bob", "cat", "dan")
    traffic = Traffic(stores, ids)
    running = traffic.begin()
    await sleep(0.2)
    await chaos(own_server, own_database)
    before = len(traffic.acknowledged)
    await sleep(0.5)
    traffic.running = False
    await gatherResults(running)
    assert len(traffic.acknowledged) > before > SENDERS
    # All statements were retried within their deadline, so no outcome is unknown.
    assert traffic.unknown == []
    await traffic.prove(stores[0])


async def is_ready(store: IStore) -> bool:
    try:
        await store.check()
    except StoreUnavailable:
        return False
    return True


@ensureDeferred
async def test_sends_stay_repeatable_in_an_outage_longer_than_the_deadline(
    own_server: Server, own_database: str
) -> None:
    stores = [store_at(own_server.url(own_database), deadline=0.3) for _ in range(2)]
    for store in stores:
        await store.open()
    traffic = Traffic(stores, await add_accounts(stores[0], "ann", "bob"))
    running = traffic.begin()
    await sleep(0.3)
    own_server.stop(signal.SIGKILL)
    with pytest.raises(StoreUnavailable):
        await stores[0].check()
    await sleep(1)
    own_server.start()
    clock = 0.0
    before = len(traffic.acknowledged)
    while len(traffic.acknowledged) < before + SENDERS:
        await sleep(0.05)
        clock += 0.05
        assert clock < RECOVERY_SECONDS
    traffic.running = False
    await gatherResults(running)
    for store in stores:
        while not await is_ready(store):
            await sleep(0.05)
            clock += 0.05
            assert clock < RECOVERY_SECONDS
    assert traffic.unknown
    await traffic.prove(stores[0])
    for store in stores:
        await store.close()


@ensureDeferred
async def test_a_send_with_a_key_that_timed_out_on_the_server_is_stored_once(
    own_server: Server, own_database: str
) -> None:
    url = own_server.url(own_database)
    store = store_at(url, deadline=0.3)
    await store.open()
    ann, bob = await add_accounts(store, "ann", "bob")
    with connected(url) as db:
        rows(db, "BEGIN")
        rows(db, "UPDATE inbox SET last_seq = last_seq WHERE user_id = %s", bob)
        with pytest.raises(StoreUnavailable, match="outcome is unknown"):
            await store.append([draft(ann, bob, "x", "key")])
        # The server process is still waiting for the lock; its client is gone.
        rows(db, "COMMIT")
    results = [(await store.append([draft(ann, bob, "x", "key")]))[0] for _ in range(2)]
    assert all(isinstance(result, Appended) for result in results)
    [message] = await read_inbox(store, bob)
    assert {result.message for result in results if isinstance(result, Appended)} == {message}
    await store.close()
