"""Appending while a synchronous standby lags: nothing is acknowledged before it is there."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from chatd.model import Appended
from tests.contracts.helpers import add_accounts, draft, send
from tests.postgres_server import Server, connected, rows, sleep
from tests.store.postgres.stores import store_at

SECONDS = 30.0


class Replicated:
    """A server with a synchronous standby, whose replication can be paused."""

    def __init__(self) -> None:
        self.server = Server()
        self.standby: Server | None = None
        self.receiver: int | None = None

    def start(self) -> None:
        replicating = {"wal_level": "replica", "max_wal_senders": "5", "full_page_writes": "on"}
        self.server.start(**replicating)
        self.standby = self.server.standby()
        self.standby.start(**replicating)
        self.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.sql("SELECT pg_reload_conf()")
        ends = time.monotonic() + SECONDS
        while self.sql("SELECT sync_state FROM pg_stat_replication") != [("sync",)]:
            assert time.monotonic() < ends
            time.sleep(0.01)
        with connected(self.standby.url()) as db:
            [[self.receiver]] = rows(db, "SELECT pid FROM pg_stat_wal_receiver")

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with connected(self.server.url()) as db:
            return rows(db, statement)

    def pause(self) -> None:
        assert self.receiver is not None
        os.kill(self.receiver, signal.SIGSTOP)

    def resume(self) -> None:
        assert self.receiver is not None
        os.kill(self.receiver, signal.SIGCONT)

    async def until_waiting(self, count: int, without: int = 0) -> list[int]:
        """Return the processes that wait for the standby, once there are so many others."""
        ends = time.monotonic() + SECONDS
        while True:
            found = self.sql(
                "SELECT pid FROM pg_stat_activity"
                f" WHERE wait_event = 'SyncRep' AND pid <> {without}"
            )
            if len(found) == count:
                return [pid for (pid,) in found]
            assert time.monotonic() < ends, found
            await sleep(0.01)

    def destroy(self) -> None:
        if self.receiver is not None:
            self.resume()
        self.server.destroy()
        if self.standby is not None:
            self.standby.destroy()


@pytest.fixture
def replicated() -> Iterator[Replicated]:
    made = Replicated()
    try:
        made.start()
        yield made
    finally:
        made.destroy()


@ensureDeferred
async def test_nothing_is_acknowledged_before_the_standby_has_it(replicated: Replicated) -> None:
    one, two = [store_at(replicated.server.url(), deadline=SECONDS) for _ in range(2)]
    for store in (one, two):
        await store.open()
    ann, bob = await add_accounts(one, "ann", "bob")
    await send(one, ann, bob, "before")
    for number, key in enumerate((None, "key"), 2):
        drafts = [draft(ann, bob, "x", key)]
        replicated.pause()
        sending = one.append(drafts)
        [pid] = await replicated.until_waiting(1)
        # The server has committed, but neither the standby nor the client knows.
        replicated.sql(f"SELECT pg_terminate_backend({pid})")
        # The store looks up what became of the message, and the client sends it again elsewhere.
        await replicated.until_waiting(1, without=pid)
        assert await one.last_seqs([bob]) == {bob: number}
        repeating = [two.append(drafts)] if key else []
        await replicated.until_waiting(1 + len(repeating), without=pid)
        await sleep(0.1)
        assert not any(each.called for each in (sending, *repeating))
        replicated.resume()
        [sent] = await sending
        assert isinstance(sent, Appended)
        assert sent.message.seq == number
        for each in repeating:
            assert await each == [Appended(sent.message, replayed=True)]
    for store in (one, two):
        await store.close()
