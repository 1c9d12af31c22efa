"""The PostgreSQL bus: the contract, several processes, and lost connections."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import AsyncIterator
from typing import TypeAlias

import pytest
from pytest_twisted import async_yield_fixture, ensureDeferred
from twisted.internet.defer import Deferred

import chatd.bus.postgres
from chatd.bus.postgres import PostgresBus
from chatd.errors import MessageNotFound, NotTheSender, StartError, StoreUnavailable
from chatd.model import AccountChange, Appended, Draft, InboxSlice, ReadAfter, Revision
from chatd.postgres.address import parse
from chatd.postgres.connection import Connection
from chatd.postgres.notify_payloads import SPLIT_BYTES, Listener, NodeId
from chatd.runtime.backoff import Backoff
from chatd.store import token_statements
from chatd.store.inbox_cache import TAIL_LENGTH
from chatd.store.postgres import missed_removals
from chatd.store.postgres.retry import DEADLINE_SECONDS
from chatd.store.postgres.store import PostgresStore
from tests.contracts.bus import BusContract, OpenBus, Recorder
from tests.contracts.helpers import (
    add_accounts,
    add_token,
    appended,
    digest,
    draft,
    read_conversation,
    read_inbox,
    send,
)
from tests.postgres_server import Databases, Server, connected, rows, sleep


def bus_at(
    url: str, node_id: NodeId | None = None, listener: Listener | None = None
) -> PostgresBus:
    """A bus like that of the daemon."""
    from twisted.internet import reactor

    return PostgresBus(
        parse(url, "chatd bus"),
        reactor=reactor,
        node_id=node_id or NodeId(),
        random=random.random,
        listener=listener,
    )


@async_yield_fixture
async def open_bus(postgres: Databases, emptied_postgres_database: str) -> AsyncIterator[OpenBus]:
    opened: list[PostgresBus] = []

    async def open_one() -> PostgresBus:
        opened.append(bus_at(postgres.url(emptied_postgres_database)))
        return opened[-1]

    yield open_one
    for bus in opened:
        await bus.stop()


class TestPostgresBus(BusContract):
    """The contract."""


class Process:
    """The store and the bus of a process, with a recorder as the bus's subscriber."""

    def __init__(self, url: str, deadline: float = DEADLINE_SECONDS) -> None:
        from twisted.internet import reactor

        self.url = url
        self.node_id = node_id = NodeId()
        self.recorder = Recorder()
        self.store = PostgresStore(
            parse(url),
            reactor=reactor,
            now=lambda: time.time_ns() // 1000,
            node_id=node_id,
            deadline=deadline,
        )
        self.bus = bus_at(url, node_id, self.store)

    async def open(self) -> None:
        await self.store.open()
        await self.bus.start(self.recorder)

    async def wait_for_notices(self) -> None:
        """Wait until all earlier notices have arrived, by sending a last one."""
        with connected(self.url) as db:
            rows(db, "SELECT pg_notify('chatd', 'x:m:[4711,1]')")
        await self.recorder.until_woken(4711)
        del self.recorder.woken[4711]

    async def close(self) -> None:
        await self.bus.stop()
        await self.store.close()


@async_yield_fixture
async def processes(
    postgres: Databases, postgres_database: str
) -> AsyncIterator[tuple[Process, Process]]:
    pair = Process(postgres.url(postgres_database)), Process(postgres.url(postgres_database))
    for process in pair:
        await process.open()
    yield pair
    for process in pair:
        await process.close()


Pair: TypeAlias = tuple[Process, Process]


@ensureDeferred
async def test_a_commit_wakes_other_processes_but_not_its_own(processes: Pair) -> None:
    one, two = processes
    ann, bob, cat = await add_accounts(one.store, "ann", "bob", "cat")
    await one.store.append([Draft(ann, bob, "x"), Draft(ann, 4711, "x"), Draft(ann, bob, "y")])
    await two.recorder.until_woken(bob)
    await two.store.append([Draft(ann, cat, "x")])
    await one.recorder.until_woken(cat)
    assert two.recorder.woken == {bob: 1}
    assert one.recorder.woken == {cat: 1}


@ensureDeferred
async def test_replays_and_rejected_drafts_wake_nobody(processes: Pair) -> None:
    one, two = processes
    ann, bob, cat = await add_accounts(one.store, "ann", "bob", "cat")
    for _ in range(2):
        await one.store.append([draft(ann, bob, "x", "key"), Draft(ann, 4711, "x")])
    await one.store.append([Draft(ann, cat, "x")])
    await two.recorder.until_woken(cat)
    assert two.recorder.woken == {bob: 1, cat: 1}


@ensureDeferred
async def test_a_large_batch_is_split_into_several_notices(processes: Pair) -> None:
    one, two = processes
    ids = await add_accounts(one.store, *(f"user{number}" for number in range(SPLIT_BYTES // 16)))
    await one.store.append([Draft(ids[0], each, "x") for each in ids])
    await two.recorder.until_woken(*ids)
    assert two.recorder.woken == dict.fromkeys(ids, 1)


TEXTS = [
    'a "quoted" \\ text, [1,2]:m:\n\t\x01\x7f\u2028ä😀',
    # Texts just below and above the limit, including quotes and escapes.
    *("x" * length for length in (997, 998, 999, 1000, 1001)),
    *("ä" * length for length in (498, 499, 500)),
    *("\x01" * length for length in (166, 167, 1000)),
    "x" * 16384,
    *("y" * (length * 37 % 900) + "!" for length in range(80)),
]


@ensureDeferred
async def test_notices_contain_the_texts_of_messages_in_order(processes: Pair) -> None:
    one, two = processes
    ann, bob, cat = await add_accounts(one.store, "ann", "bob", "cat")
    drafts = [Draft(ann, to, text) for text in TEXTS for to in (bob, cat)]
    results = await one.store.append(drafts)
    await one.store.append([Draft(ann, ann, "last")])
    await two.recorder.until_woken(ann)
    sent = [result.message for result in results if isinstance(result, Appended)]
    assert len(sent) == len(drafts)
    for to in (bob, cat):
        last = len(TEXTS)
        known = two.store.read_cached(ReadAfter(to, last - TAIL_LENGTH, 100))
        assert known is not None
        assert (
            known.messages == tuple(each for each in sent if each.received_by == to)[-TAIL_LENGTH:]
        )


@ensureDeferred
async def test_long_texts_are_read_from_the_database(processes: Pair) -> None:
    one, two = processes
    ann, bob = await add_accounts(one.store, "ann", "bob")
    for seq, (text, is_quoted) in enumerate(
        [("x" * 998, True), ("x" * 999, False), ("\x01" * 167, False), ("ok", True)], 1
    ):
        await one.store.append([Draft(ann, bob, text)])
        await two.recorder.until(lambda recorder, seq=seq: recorder.woken[bob] == seq)  # type: ignore[misc]
        known = two.store.read_cached(ReadAfter(bob, seq - 1, 10), listening=True)
        assert (known is not None) is is_quoted
        end = two.store.read_cached(ReadAfter(bob, seq, 10), listening=True)
        assert end is not None
        assert (end.last_seq, end.messages) == (seq, ())
        [found] = await two.store.read([ReadAfter(bob, seq - 1, 10)])
        assert found is not None
        assert [message.text for message in found.messages] == [text]
        assert end.stamp == found.messages[0].sent_at


@ensureDeferred
async def test_a_listening_process_answers_from_memory(processes: Pair) -> None:
    one, two = processes
    ann, bob = await add_accounts(one.store, "ann", "bob")
    nothing = ReadAfter(bob, 0, 10)
    assert two.store.read_cached(nothing, listening=True) is None
    await two.store.read([nothing])
    assert two.store.read_cached(nothing, listening=True) == InboxSlice(0, ())
    assert two.store.read_cached(nothing) is None
    await one.store.append([Draft(ann, bob, "x")])
    await two.recorder.until_woken(bob)
    known = two.store.read_cached(nothing)
    assert known is not None
    assert [message.text for message in known.messages] == ["x"]
    # Another process may have returned a cursor before its notice arrived here.
    assert two.store.read_cached(ReadAfter(bob, 2, 10), listening=True) is None
    await one.store.delete_account(bob)
    await two.recorder.until(lambda recorder: recorder.revocations)
    assert two.store.read_cached(nothing, listening=True) is None


@ensureDeferred
async def test_after_a_reconnection_the_database_is_read(
    processes: Pair, postgres: Databases, postgres_database: str
) -> None:
    one, two = processes
    ann, bob = await add_accounts(one.store, "ann", "bob")
    nothing = ReadAfter(bob, 0, 10)
    await two.store.read([nothing])
    reading = two.store.read([nothing])
    postgres.terminate(postgres_database, "chatd bus")
    while not two.bus.problem():
        await sleep(0.001)
    assert two.store.read_cached(nothing, listening=True) is None
    await one.store.append([Draft(ann, bob, "x")])
    await two.recorder.until(lambda recorder: recorder.wake_all_calls)
    await reading
    assert two.bus.problem() is None
    # The read that was under way is not remembered, unless it was repeated since.
    known = two.store.read_cached(nothing, listening=True)
    assert known is None or known.last_seq == 1
    [found] = await two.store.read([nothing])
    assert found is not None
    assert found.last_seq == 1
    known = two.store.read_cached(ReadAfter(bob, 1, 10), listening=True)
    assert known is not None
    assert (known.last_seq, known.messages, known.stamp) == (1, (), found.messages[0].sent_at)
    await two.bus.stop()
    assert two.store.read_cached(ReadAfter(bob, 1, 10), listening=True) is None


@ensureDeferred
async def test_after_a_timed_out_append_the_cache_is_not_used(
    hasty: Process, postgres: Databases, postgres_database: str
) -> None:
    ann, bob = await add_accounts(hasty.store, "ann", "bob")
    nothing = ReadAfter(bob, 0, 10)
    await hasty.store.read([nothing])
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "BEGIN")
        rows(db, "SELECT FROM inbox WHERE user_id = %s FOR UPDATE", bob)
        with pytest.raises(StoreUnavailable, match="outcome is unknown"):
            await hasty.store.append([Draft(ann, bob, "late")])
        assert hasty.store.read_cached(nothing, listening=True) is None
        rows(db, "COMMIT")
    await hasty.recorder.until_woken(bob)
    known = hasty.store.read_cached(nothing)
    assert known is not None
    assert [message.text for message in known.messages] == ["late"]


@ensureDeferred
async def test_notices_arrive_in_order_of_commit(
    processes: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = processes
    order: list[int] = []
    ids = await add_accounts(one.store, *(f"user{number}" for number in range(50)))
    monkeypatch.setattr(two.recorder, "wake", order.extend)
    for each in ids:
        await one.store.append([Draft(ids[0], each, "x")])
    while len(order) < len(ids):
        await sleep(0.01)
    assert order == ids


@ensureDeferred
async def test_revocations_and_deletions_reach_other_processes(processes: Pair) -> None:
    one, two = processes
    ann, bob = await add_accounts(one.store, "ann", "bob")
    await one.store.add_token(ann, digest("1"))
    await one.store.delete_token(ann, digest("1"))
    assert await one.store.delete_token(ann, digest("1")) is False
    await two.recorder.until(lambda recorder: recorder.revocations)
    await one.store.delete_account(bob)
    await two.recorder.until(lambda recorder: len(recorder.revocations) > 1)
    assert two.recorder.revocations == [(ann, digest("1")), (bob, None)]
    assert one.recorder.revocations == []


@ensureDeferred
async def test_changes_of_tokens_and_passwords_reach_other_processes(
    processes: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = processes
    [ann] = await add_accounts(one.store, "ann")
    for name in ("0", "1", "2"):
        token = await add_token(one.store, ann, name)
    assert await one.store.delete_token_by_id(ann, token.id) is True
    assert await one.store.delete_token_by_id(ann, token.id) is False
    await two.recorder.until(lambda recorder: recorder.revocations)
    assert two.recorder.revocations == [(ann, digest("2"))]
    await one.store.delete_other_tokens(ann, None)
    # One notice, however many they are.
    await two.recorder.until(lambda recorder: len(recorder.session_changes) == 1)
    # Neither a new email nor a refused change ends a session.
    await one.store.change_account(AccountChange(ann, "hash of ann", email="x@y"))
    await one.store.change_account(AccountChange(ann, "another hash", "new hash"))
    await one.store.change_account(AccountChange(ann, "hash of ann", "new hash"))
    await two.recorder.until(lambda recorder: len(recorder.session_changes) == 2)
    # A token that takes nobody's place, and one that does.
    monkeypatch.setattr(token_statements, "MAX_TOKENS", 1)
    for name in ("3", "4"):
        await add_token(one.store, ann, name)
    await two.recorder.until(lambda recorder: len(recorder.session_changes) == 3)
    await two.wait_for_notices()
    assert two.recorder.session_changes == [ann, ann, ann]
    assert two.recorder.revocations == [(ann, digest("2"))]
    assert one.recorder.session_changes == []
    assert one.recorder.revocations == []


@ensureDeferred
async def test_removed_messages_are_forgotten_before_they_are_deleted(
    processes: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = processes
    ann, bob = await add_accounts(one.store, "ann", "bob")
    old = await send(one.store, ann, bob, "old")
    query = ReadAfter(bob, 0, 10)
    assert await two.store.read([query]) == [InboxSlice(1, (old,))]
    seen: list[InboxSlice | None] = []

    async def read_of_two(_: float) -> None:
        await two.wait_for_notices()
        assert two.store.read_cached(query, listening=True) is None
        assert two.store.removed == {bob: 1}
        seen.extend(await two.store.read([query]))

    monkeypatch.setattr(one.store._retention, "_pause", read_of_two)
    assert await one.store.admin.remove_old(old.sent_at + 1) == 1
    # What another process reads meanwhile is whole, and where the inbox begins is known to it.
    assert seen == [InboxSlice(1, (old,))]
    assert one.store.removed == two.store.removed == {bob: 1}
    # A notice that was missed is made up for by the next run.
    two.store.removed.clear()
    monkeypatch.setattr(two.store._retention, "_pause", read_of_two)
    assert await two.store.admin.remove_old(0) == 0
    assert two.store.removed == {bob: 1}


@pytest.fixture
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that were told late look for what was removed without a pause."""
    monkeypatch.setattr(missed_removals, "LOOK_SECONDS", 0.01)


@pytest.mark.usefixtures("looking_often")
@ensureDeferred
async def test_what_owners_remove_reaches_other_processes(
    processes: Pair,
    postgres: Databases,
    postgres_database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two = processes
    ann, bob, cat = await add_accounts(one.store, "ann", "bob", "cat")
    for process in processes:
        process.store.limits.messages = 2
    for text in ("1", "2"):
        await send(one.store, ann, bob, text)
    await two.store.read([ReadAfter(bob, 0, 10)])
    heard: Deferred[None] = Deferred()
    monkeypatch.setattr(one.store._retention, "_pause", lambda _: heard)
    assert await one.store.remove_oldest(bob, 2) is False
    await two.wait_for_notices()
    assert two.store.removed == {bob: 2}
    assert two.store.read_cached(ReadAfter(bob, 0, 10), listening=True) is None
    # There is room in every process, and the rows are deleted later.
    for process, seq in ((two, 3), (one, 4)):
        assert (await send(process.store, ann, bob, "room")).seq == seq
    with connected(postgres.url(postgres_database)) as db:
        assert rows(db, "SELECT count(*) FROM message") == [(4,)]
        said = await read_conversation(two.store, ann, bob)
        assert [message.text for message in said] == ["room", "room"]
        with pytest.raises(MessageNotFound):
            await two.store.revise(Revision(ann, bob, 2, "edited"))
        heard.callback(None)
        while rows(db, "SELECT count(*) FROM message") != [(2,)]:
            await sleep(0.01)
    # A notice that was missed is made up for when there is a connection again.
    await send(one.store, ann, cat, "1")
    with monkeypatch.context() as deaf:
        deaf.setattr(two.bus, "_listener", None)
        await one.store.remove_oldest(cat, 1)
        await two.wait_for_notices()
    assert cat not in two.store.removed
    postgres.terminate(postgres_database, "chatd bus")
    while two.store.removed.get(cat) != 1:
        await sleep(0.01)


@ensureDeferred
async def test_what_administrators_do_reaches_other_processes(processes: Pair) -> None:
    one, two = processes
    [ann] = await add_accounts(one.store, "ann")
    await one.store.admin.disable(4711)
    await one.store.admin.enable(ann)
    await one.store.admin.disable(ann)
    await one.store.admin.set_password(ann, "new hash")
    await two.recorder.until(lambda recorder: len(recorder.session_changes) == 2)
    await two.wait_for_notices()
    assert two.recorder.session_changes == [ann, ann]
    assert one.recorder.session_changes == []


@ensureDeferred
async def test_revisions_reach_other_processes_and_their_caches(processes: Pair) -> None:
    one, two = processes
    ann, bob = await add_accounts(one.store, "ann", "bob")
    [first, second] = [
        appended(each)
        for each in await one.store.append([Draft(ann, bob, "old"), Draft(ann, bob, "secret")])
    ]
    query = ReadAfter(bob, 0, 10)
    await two.recorder.until_woken(bob)
    for process in processes:
        await process.store.read([query])
        assert process.store.read_cached(query) == InboxSlice(2, (first, second))
    reading = two.store.read([query])
    edited = await one.store.revise(Revision(ann, bob, 1, "new"))
    known = one.store.read_cached(query)
    assert known is None or known.messages[0] == edited
    await two.recorder.until(lambda recorder: recorder.changes)
    assert two.store.read_cached(query) is None
    await reading
    known = two.store.read_cached(query)
    assert known is None or known.messages[0] == edited
    assert await two.store.read([query]) == [InboxSlice(2, (edited, second))]
    deleted = await two.store.revise(Revision(ann, bob, 2, None))
    await one.recorder.until(lambda recorder: recorder.changes)
    assert await one.store.read([query]) == [InboxSlice(2, (edited, deleted))]
    assert one.store.read_cached(query) == InboxSlice(2, (edited, deleted))
    # What changes nothing is not told, nor what is refused.
    await one.store.revise(Revision(ann, bob, 2, None))
    await one.store.revise(Revision(ann, bob, 1, "new"))
    with pytest.raises(NotTheSender):
        await one.store.revise(Revision(bob, bob, 1, "x"))
    for process in processes:
        await process.wait_for_notices()
    assert two.recorder.changes == [(bob, 1, ann)]
    assert one.recorder.changes == [(bob, 2, ann)]
    assert not one.recorder.woken


@ensureDeferred
async def test_what_others_revised_while_the_bus_was_down_is_not_cached(
    processes: Pair, postgres: Databases, postgres_database: str
) -> None:
    one, two = processes
    ann, bob = await add_accounts(one.store, "ann", "bob")
    query = ReadAfter(bob, 0, 10)
    await two.store.append([Draft(ann, bob, "old")])
    assert two.store.read_cached(query) is not None
    postgres.terminate(postgres_database, "chatd bus")
    while not two.bus.problem():
        await sleep(0.001)
    assert two.store.read_cached(query) is None
    edited = await one.store.revise(Revision(ann, bob, 1, "new"))
    await two.recorder.until(lambda recorder: recorder.wake_all_calls)
    assert two.store.read_cached(query) is None
    assert await two.store.read([query]) == [InboxSlice(1, (edited,))]


GIVEN_UP_SECONDS = 0.3


@async_yield_fixture
async def hasty(postgres: Databases, postgres_database: str) -> AsyncIterator[Process]:
    """A process with a short deadline for statements."""
    process = Process(postgres.url(postgres_database), GIVEN_UP_SECONDS)
    await process.open()
    yield process
    await process.close()


@ensureDeferred
async def test_a_timed_out_batch_that_is_committed_later_wakes_its_own_process(
    hasty: Process, postgres: Databases, postgres_database: str
) -> None:
    ann, bob, cat = await add_accounts(hasty.store, "ann", "bob", "cat")
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "BEGIN")
        rows(db, "SELECT FROM inbox WHERE user_id = %s FOR UPDATE", bob)
        with pytest.raises(StoreUnavailable, match="outcome is unknown"):
            await hasty.store.append([Draft(ann, bob, "late"), Draft(ann, ann, "late")])
        await hasty.store.append([Draft(ann, cat, "meanwhile")])
        assert not hasty.recorder.woken
        rows(db, "COMMIT")
    await hasty.recorder.until_woken(ann, bob)
    assert hasty.recorder.woken == {ann: 1, bob: 1}
    assert [each.text for each in await read_inbox(hasty.store, bob)] == ["late"]
    # Notices of successful calls are ignored by their own process.
    await hasty.store.append([Draft(ann, bob, "x")])
    await hasty.store.append([Draft(ann, cat, "x")])
    await hasty.wait_for_notices()
    assert hasty.recorder.woken == {ann: 1, bob: 1}


@ensureDeferred
async def test_a_timed_out_revision_that_is_committed_later_reaches_its_own_process(
    hasty: Process, postgres: Databases, postgres_database: str
) -> None:
    ann, bob = await add_accounts(hasty.store, "ann", "bob")
    await hasty.store.append([Draft(ann, bob, "old")])
    query = ReadAfter(bob, 0, 10)
    assert hasty.store.read_cached(query) is not None
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "BEGIN")
        rows(db, "SELECT FROM message FOR UPDATE")
        with pytest.raises(StoreUnavailable, match="outcome is unknown"):
            await hasty.store.revise(Revision(ann, bob, 1, "late"))
        await hasty.store.read([query])
        assert hasty.store.read_cached(query) is not None
        assert hasty.recorder.changes == []
        rows(db, "COMMIT")
    await hasty.recorder.until(lambda recorder: recorder.changes)
    assert hasty.recorder.changes == [(bob, 1, ann)]
    assert hasty.store.read_cached(query) is None
    assert [each.text for each in await read_inbox(hasty.store, bob)] == ["late"]


@ensureDeferred
async def test_timed_out_revocations_that_are_committed_later_reach_their_own_process(
    hasty: Process, postgres: Databases, postgres_database: str
) -> None:
    ann, bob = await add_accounts(hasty.store, "ann", "bob")
    await hasty.store.add_token(ann, digest("1"))
    with connected(postgres.url(postgres_database)) as db:
        rows(db, "BEGIN")
        rows(db, "SELECT FROM token FOR UPDATE")
        rows(db, "SELECT FROM account WHERE id = %s FOR UPDATE", bob)
        with pytest.raises(StoreUnavailable, match="outcome is unknown"):
            await hasty.store.delete_token(ann, digest("1"))
        with pytest.raises(StoreUnavailable, match="outcome is unknown"):
            await hasty.store.delete_account(bob)
        assert hasty.recorder.revocations == []
        rows(db, "COMMIT")
    await hasty.recorder.until(lambda recorder: len(recorder.revocations) > 1)
    assert set(hasty.recorder.revocations) == {(ann, digest("1")), (bob, None)}
    await hasty.wait_for_notices()
    assert len(hasty.recorder.revocations) == 2


@ensureDeferred
async def test_pings_arrive_even_if_the_node_id_changes(
    hasty: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A ping that a busy machine delays for longer counts as lost.
    monkeypatch.setattr(chatd.bus.postgres, "PING_SECONDS", 0.4)
    await hasty.bus.stop()
    bus = bus_at(hasty.url, hasty.node_id)
    lags: list[float] = []
    bus._observe_lag = lags.append
    await bus.start(hasty.recorder)
    while len(lags) < 6:
        hasty.node_id.renew()
        await sleep(0.003)
    assert bus.reconnects == 0
    await bus.stop()


def listeners(postgres: Databases, database: str) -> list[int]:
    """The ids of the server processes of listening connections."""
    return [
        pid
        for [pid] in postgres.admin(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = %s AND application_name = 'chatd bus'",
            database,
        )
    ]


@ensureDeferred
async def test_everybody_is_woken_after_a_reconnection(
    processes: Pair, postgres: Databases, postgres_database: str
) -> None:
    one, two = processes
    ann, bob = await add_accounts(one.store, "ann", "bob")
    assert postgres.terminate(postgres_database, "chatd bus") == 2
    while not two.bus.problem():
        await sleep(0.001)
    await one.store.append([Draft(ann, bob, "x")])
    await two.recorder.until(lambda recorder: recorder.wake_all_calls or recorder.woken)
    while two.bus.problem():
        await sleep(0.01)
    assert two.recorder.wake_all_calls == 1
    assert two.bus.reconnects == 1
    await one.store.append([Draft(ann, ann, "x")])
    await two.recorder.until_woken(ann)


@ensureDeferred
async def test_a_connection_without_pings_is_replaced(
    postgres: Databases, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chatd.bus.postgres, "PING_SECONDS", 0.1)
    bus, recorder = bus_at(postgres.url(postgres_database)), Recorder()
    lags: list[float] = []
    bus._observe_lag = lags.append
    await bus.start(recorder)
    while len(lags) < 3:
        await sleep(0.01)
    assert recorder.wake_all_calls == 0
    [pid] = listeners(postgres, postgres_database)
    # To the client a stopped server process is like a lost network connection.
    os.kill(pid, signal.SIGSTOP)
    try:
        await recorder.until(lambda recorder: recorder.wake_all_calls == 1)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert bus.problem() is None
    assert pid not in listeners(postgres, postgres_database) or bus.reconnects == 1
    await bus.stop()


@ensureDeferred
async def test_starting_fails_if_no_notices_arrive(
    postgres: Databases, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With a transaction pooler LISTEN succeeds, but on a connection that is then shared.
    monkeypatch.setattr(chatd.bus.postgres, "PING_SECONDS", 0.1)
    monkeypatch.setattr(chatd.bus.postgres, "_LISTEN", "SELECT 'LISTEN chatd'")
    bus = bus_at(postgres.url(postgres_database))
    with pytest.raises(StartError, match="--listen-db"):
        await bus.start(Recorder())
    assert bus.problem()
    await bus.stop()


@ensureDeferred
async def test_starting_fails_if_the_process_id_is_a_poolers(
    postgres: Databases, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "get_backend_pid", lambda _: 4711, raising=False)
    bus = bus_at(postgres.url(postgres_database))
    with pytest.raises(StartError, match="pooler is in between"):
        await bus.start(Recorder())
    assert listeners(postgres, postgres_database) == [] or bus.problem()


@ensureDeferred
async def test_reconnecting_through_a_pooler_is_not_accepted(
    postgres: Databases, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, recorder = bus_at(postgres.url(postgres_database)), Recorder()
    await bus.start(recorder)
    with monkeypatch.context() as patch:
        patch.setattr(Connection, "get_backend_pid", lambda _: 4711, raising=False)
        postgres.terminate(postgres_database)
        while "pooler" not in (bus.problem() or ""):
            await sleep(0.01)
        assert recorder.wake_all_calls == 0
    await recorder.until(lambda recorder: recorder.wake_all_calls)
    assert bus.problem() is None
    await bus.stop()


@ensureDeferred
async def test_starting_fails_if_the_server_is_unreachable() -> None:
    bus = bus_at("postgresql://ann:s3cret@127.0.0.1:1/chat")
    with pytest.raises(StartError, match="/chat") as caught:
        await bus.start(Recorder())
    assert "s3cret" not in str(caught.value)


@ensureDeferred
async def test_malformed_notices_are_ignored(
    processes: Pair, postgres: Databases, postgres_database: str
) -> None:
    one, two = processes
    with connected(postgres.url(postgres_database)) as db:
        for payload in ("", "hello", "x:z:1", "x:m:1,b"):
            rows(db, "SELECT pg_notify('chatd', %s)", payload)
    ann, bob = await add_accounts(one.store, "ann", "bob")
    await one.store.append([Draft(ann, bob, "x")])
    await two.recorder.until_woken(bob)
    assert two.recorder.woken == {bob: 1}


@pytest.mark.parametrize("seconds", [0.02, 0.5])
@ensureDeferred
async def test_the_bus_can_be_stopped_while_the_server_is_down(seconds: float) -> None:
    server = Server()
    server.start()
    bus = bus_at(server.url())
    await bus.start(Recorder())
    server.destroy()
    await sleep(seconds)
    assert bus.problem()
    await bus.stop()


@ensureDeferred
async def test_it_reconnects_at_once_when_the_database_is_back() -> None:
    server = Server()
    server.start()
    bus, recorder = bus_at(server.url()), Recorder()
    bus._backoff = Backoff(lambda: 0.5, first=3600.0, longest=3600.0)
    await bus.start(recorder)
    try:
        bus.reconnect_soon()
        assert bus.problem() is None
        server.stop()
        while bus._delay is None:
            await sleep(0.01)
        server.start()
        bus.reconnect_soon()
        await recorder.until(lambda recorder: recorder.wake_all_calls)
        assert bus.problem() is None
    finally:
        server.destroy()
        await bus.stop()


@ensureDeferred
async def test_starting_fails_if_listen_fails(
    postgres: Databases, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chatd.bus.postgres, "_LISTEN", "SELECT 1 / 0")
    with pytest.raises(StartError, match="division by zero"):
        await bus_at(postgres.url(postgres_database)).start(Recorder())
