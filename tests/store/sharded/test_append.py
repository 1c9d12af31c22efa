"""Keys, senders and names across lanes: what is done in two transactions."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults

from chatd.errors import (
    Blocked,
    IdempotencyKeyReused,
    StoreUnavailable,
    UsernameTaken,
    UserNotFound,
)
from chatd.interfaces import IStore
from chatd.model import ALL_CHANGES, Appended, ReadAfter, Revision
from chatd.model_sync import ReadChanges
from chatd.store.sharded import outbox
from chatd.store.sharded.claims import CLAIM_SECONDS
from chatd.store.sharded.lanes import LaneExecutor
from tests.contracts.helpers import OpenStore, add_accounts, draft, read_inbox, send
from tests.examples import examples
from tests.postgres_server import connected, rows, sleep
from tests.store.postgres.stores import losing_results, two_stores
from tests.store.sharded.daemon_role import by_owner_and_role


async def apart(store: IStore) -> tuple[int, int, int]:
    """Two accounts of one lane, and one of another."""
    users = await add_accounts(store, *(f"user{number}" for number in range(12)))
    one, two = [each for each in users if store.lane(each) == store.lane(users[0])][:2]
    return one, two, next(each for each in users if store.lane(each) != store.lane(one))


class Failing:
    """Lets the statements fail whose text has a word; they take effect or not."""

    def __init__(self, patch: pytest.MonkeyPatch, word: str, *, after: bool) -> None:
        self.failed = 0
        run = LaneExecutor.run

        def fail(lane: LaneExecutor, sql: str, *arguments: Any, **options: Any) -> Deferred[Any]:
            if word not in sql:
                return run(lane, sql, *arguments, **options)

            async def lose() -> Any:
                self.failed += 1
                if after:
                    await run(lane, sql, *arguments, **options)
                raise StoreUnavailable("lost", 1)

            return Deferred.fromCoroutine(lose())

        patch.setattr(LaneExecutor, "run", fail)


@by_owner_and_role
@ensureDeferred
async def test_a_key_is_used_once_whoever_uses_it_where(open_store: OpenStore) -> None:
    stores = await two_stores(open_store)
    one, two, three = await apart(stores[0])
    for turn in range(examples(5, deep=10)):
        calls = [
            store.append([draft(sender, to, f"{turn}", f"{turn}.{number}")])
            for number in range(3)
            for to in (two, three, two)
            for store in stores
            for sender in (one, three)
        ]
        results = [result for [result] in await gatherResults(calls)]
        fresh = [each for each in results if isinstance(each, Appended) and not each.replayed]
        assert len(fresh) == 6
        reused = [each for each in results if isinstance(each, IdempotencyKeyReused)]
        replays = [each for each in results if isinstance(each, Appended) and each.replayed]
        assert len(fresh) + len(reused) + len(replays) == len(results)
        assert {each.message for each in replays} <= {each.message for each in fresh}


@by_owner_and_role
@ensureDeferred
async def test_a_send_that_died_before_its_message_was_stored_can_be_repeated(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_store()
    one, _, three = await apart(store)
    for after in (False, True):
        with monkeypatch.context() as patch:
            Failing(patch, "INSERT INTO message", after=after)
            [result] = await store.append([draft(one, three, "x", f"key {after}")])
            assert isinstance(result, StoreUnavailable)
        other = await store.append([draft(one, one, "x", f"key {after}")])
        assert isinstance(other[0], IdempotencyKeyReused)
        [result] = await store.append([draft(one, three, "x", f"key {after}")])
        assert isinstance(result, Appended)
        assert result.replayed is after
    assert len(await read_inbox(store, three)) == 2


@by_owner_and_role
@ensureDeferred
async def test_a_claim_goes_with_a_refusal_unless_another_send_has_found_it(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_store()
    one, two, three = await apart(store)
    for _ in range(2):
        [result] = await store.append([draft(one, 4711, "x", "key")])
        assert isinstance(result, UserNotFound)
    await send(store, one, three, "x", "key")

    # The refused send is held before it removes its claim; another one has found it meanwhile.
    held: list[Deferred[None]] = []
    run = LaneExecutor.run

    def hold(lane: LaneExecutor, sql: str, *arguments: Any, **options: Any) -> Deferred[Any]:
        if "DELETE FROM claim" not in sql:
            return run(lane, sql, *arguments, **options)
        held.append(Deferred())
        return held[-1].addCallback(lambda _: run(lane, sql, *arguments, **options))

    monkeypatch.setattr(LaneExecutor, "run", hold)
    await store.block(three, two)
    refused = store.append([draft(two, three, "x", "key")])
    while not held:
        await sleep(0.01)
    await store.unblock(three, two)
    stored = await send(store, two, three, "x", "key")
    held[0].callback(None)
    assert isinstance((await refused)[0], Blocked)
    [result] = await store.append([draft(two, one, "y", "key")])
    assert isinstance(result, IdempotencyKeyReused)
    [result] = await store.append([draft(two, three, "x", "key")])
    assert result == Appended(stored, replayed=True)


@by_owner_and_role
@ensureDeferred
async def test_of_one_call_a_refused_use_of_a_key_makes_way_for_the_next(
    open_store: OpenStore,
) -> None:
    store = await open_store()
    one, two, three = await apart(store)
    results = await store.append(
        [draft(one, to, f"{to}", "key") for to in (4711, three, two, 4711, three)]
    )
    assert isinstance(results[0], UserNotFound)
    assert isinstance(results[1], Appended)
    assert isinstance(results[2], IdempotencyKeyReused)
    assert isinstance(results[4], Appended)
    assert results[4].replayed
    assert await read_inbox(store, two) == []


@ensureDeferred
async def test_claims_and_keys_expire(open_store: OpenStore, sharded_url: str) -> None:
    store = await open_store(housekeeping_seconds=0.05)  # type: ignore[call-arg]
    one, _, three = await apart(store)
    await send(store, one, three, "x", "key")
    await send(store, one, three, "x", "new")
    with connected(sharded_url) as db:
        for table, column in (("claim", "at"), ("idempotency", "sent_at")):
            sql = f"UPDATE {table} SET {column} = {column} - %s WHERE key = 'key'"
            rows(db, sql, CLAIM_SECONDS * 1_000_000)
        for table in ("claim", "idempotency"):
            while rows(db, f"SELECT 1 FROM {table} WHERE key = 'key'"):
                await sleep(0.02)
            assert rows(db, f"SELECT key FROM {table}") == [("new",)]
    await send(store, one, one, "another", "key")


async def changes_of(store: IStore, user_id: int) -> list[tuple[str, int, str]]:
    found = await store.sync.changes(ReadChanges(user_id, ALL_CHANGES, 100))
    assert found is not None
    return [
        (each.kind, each.message.seq, each.message.text)  # type: ignore[union-attr]
        for each in found.changes
    ]


@ensureDeferred
async def test_senders_are_told_by_others_if_a_process_dies_after_the_commit(
    open_store: OpenStore,
    monkeypatch: pytest.MonkeyPatch,
    sharded_url: str,
) -> None:
    store = await open_store()
    one, _, three = await apart(store)
    await store.sync.synchronise(one)
    with monkeypatch.context() as patch:
        failing = Failing(patch, "news AS MATERIALIZED", after=False)
        await send(store, one, three, "first")
        await store.revise(Revision(one, three, 1, "edited"))
        assert failing.failed == 2
    assert await changes_of(store, one) == []
    monkeypatch.setattr(outbox, "_RECOVER_AFTER_SECONDS", 0)
    monkeypatch.setattr(outbox, "RECOVER_SECONDS", 0.1)
    other = await open_store()
    expected = [("sent", 1, "edited"), ("changed", 1, "edited")]
    while (found := sorted(await changes_of(other, one), reverse=True)) != expected:
        assert all(each in expected for each in found)
        await sleep(0.02)
    with connected(sharded_url) as db:
        while rows(db, "SELECT 1 FROM batch WHERE NOT told"):
            await sleep(0.02)


@ensureDeferred
async def test_batches_whose_senders_were_told_are_deleted(
    open_store: OpenStore,
    monkeypatch: pytest.MonkeyPatch,
    sharded_url: str,
) -> None:
    monkeypatch.setattr(outbox, "FLUSH_SECONDS", 0.05)
    store = await open_store()
    one, two, three = await apart(store)
    await store.append([draft(one, to, "x") for to in (one, two, three)])
    with connected(sharded_url) as db:
        while rows(db, "SELECT 1 FROM batch"):
            await sleep(0.02)


@ensureDeferred
async def test_what_is_sent_while_an_account_begins_to_have_changes_is_told_once(
    open_store: OpenStore,
) -> None:
    stores = await two_stores(open_store)
    one, two, three = await apart(stores[0])
    turns = itertools.cycle(stores)
    sending = [
        next(turns).append([draft(sender, to, f"{number}", None)])
        for number in range(10)
        for sender, to in ((one, two), (one, three), (three, one))
    ]
    synchronising = [store.sync.synchronise(one) for store in stores]
    sent = [result.message for [result] in await gatherResults(sending)]  # type: ignore[union-attr]
    assert await gatherResults(synchronising) == [True, True]
    found = await stores[0].sync.changes(ReadChanges(one, ALL_CHANGES, 100))
    assert found is not None
    told = [each.message for each in found.changes]  # type: ignore[union-attr]
    assert set(told) == {each for each in sent if each.sent_by == one}
    assert len(told) == 20


@by_owner_and_role
@ensureDeferred
async def test_results_that_were_lost_are_repeated_safely(open_store: OpenStore) -> None:
    store = await open_store()
    one, _, three = await apart(store)
    await store.sync.synchronise(one)
    for times in range(1, 5):
        with losing_results(store, times):  # type: ignore[arg-type]
            results = await store.append(
                [draft(one, three, f"{times}", f"{times}"), draft(one, one, f"{times}")]
            )
        assert all(isinstance(each, Appended) and not each.replayed for each in results)
    assert [each.text for each in await read_inbox(store, three)] == ["1", "2", "3", "4"]
    assert [each.text for each in await read_inbox(store, one)] == ["1", "2", "3", "4"]
    with losing_results(store, 1):  # type: ignore[arg-type]
        new = await store.add_account("new", "new@b", "hash")
    assert await store.account_named("new") == new


@ensureDeferred
async def test_a_name_whose_registration_died_can_be_taken(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_store()
    with monkeypatch.context() as patch:
        Failing(patch, "INSERT INTO inbox", after=False)
        with pytest.raises(StoreUnavailable):
            await store.add_account("ann", "ann@a", "hash")
    assert await store.account_named("ann") is None
    ann = await store.add_account("Ann", "ann@b", "hash")
    assert await store.account_named("ann") == ann
    with pytest.raises(UsernameTaken):
        await store.add_account("ANN", "ann@c", "hash")
    await store.delete_account(ann.id)
    with pytest.raises(UsernameTaken):
        await store.add_account("ann", "ann@c", "hash")


@ensureDeferred
async def test_a_registration_that_is_overtaken_fails(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = await two_stores(open_store)
    for number in range(5):
        found: list[object] = await gatherResults(
            [
                store.add_account(f"name{number}", f"{count}@a", f"{count}").addErrback(
                    lambda failure: failure.trap(UsernameTaken)
                )
                for count, store in enumerate(stores * 2)
            ]
        )
        [account] = [each for each in found if each is not UsernameTaken]
        assert await stores[0].account_named(f"name{number}") == account
        states = await stores[1].admin.accounts(0, 100)
        assert len(states) == number + 1


@ensureDeferred
async def test_the_owner_of_a_token_is_asked_first(open_store: OpenStore) -> None:
    store = await open_store()
    one, _, three = await apart(store)
    digest = b"d" * 32
    await store.add_token(one, digest)
    [session] = await store.sessions([digest], {digest: one})
    assert session is not None
    assert session.user_id == one
    # Only that of the lane that is named.
    assert await store.sessions([digest], {digest: three}) == [None]
    assert await store.sessions([digest]) == [session]
    await store.record_seen({}, {digest: 7})
    assert [each.last_used_at for each in await store.tokens(one)] == [7]
    assert await store.read([ReadAfter(one, 0, 1)]) != [None]
