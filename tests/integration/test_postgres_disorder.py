"""Transactions of several daemons that commit out of order, are rolled back, or deadlock.

What rarely happens under load is provoked here: a blocking session locks rows, a deferred trigger
delays a COMMIT, others raise the errors that the server raises.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any, Final

import pytest

from tests.integration.postgres_daemons import (
    Client,
    Crowd,
    Daemon,
    eventually,
    polling,
    registered,
    running,
)
from tests.postgres_server import Databases, Server, connected, rows

SECONDS: Final = 30.0
"""Limit for events that must happen, also on a busy machine."""

WAKE_SECONDS: Final = 10.0
"""A response within this time of the commit is due to neither the sweep nor another poll."""

GIVEN_UP_SECONDS: Final = 10.0
"""How long a daemon waits for the database, see `chatd.store.postgres.retry.DEADLINE_SECONDS`."""

_serial = itertools.count(1)

NAMES: Final = ("ann", "bob", "cat", "dan")

# The commit of a text that begins with "hold" waits until the advisory lock is free.
HELD_COMMITS: Final = """
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(4711);
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON message DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW WHEN (NEW.text LIKE 'hold%') EXECUTE FUNCTION hold();
"""

# Locks are taken slowly, and some commits take far longer than others.
SLOW_COMMITS: Final = """
CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(CASE WHEN random() < 0.1 THEN 0.1 ELSE random() * 0.01 END);
    RETURN NEW;
END $$;
CREATE TRIGGER linger BEFORE UPDATE ON inbox FOR EACH ROW EXECUTE FUNCTION linger();
CREATE CONSTRAINT TRIGGER linger AFTER INSERT ON message DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION linger();
"""

# The first `times` attempts and a random `share` of the others fail. `attempts` and `undone` are
# sequences because those are not rolled back.
CONFLICTS: Final = """
CREATE SEQUENCE attempts;
CREATE SEQUENCE undone;
CREATE TABLE conflict (state text, times int, share float);
CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wanted conflict;
BEGIN
    SELECT * INTO wanted FROM conflict;
    IF nextval('attempts') <= wanted.times OR random() < wanted.share THEN
        PERFORM nextval('undone');
        RAISE EXCEPTION 'made up' USING ERRCODE = wanted.state;
    END IF;
    RETURN NULL;
END $$;
"""
IN_THE_STATEMENT: Final = """
CREATE TRIGGER conflict AFTER INSERT ON message FOR EACH ROW EXECUTE FUNCTION conflict();
"""
IN_THE_COMMIT: Final = """
CREATE CONSTRAINT TRIGGER conflict AFTER INSERT ON message DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION conflict();
"""


@pytest.fixture(scope="module")
def url(own_server: Server) -> Iterator[str]:
    """A database that the tests share; each creates its own accounts."""
    databases = Databases(own_server.url())
    name = databases.create()
    yield own_server.url(name)
    databases.drop(name)


@pytest.fixture(scope="module")
def daemons(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Daemon]]:
    """Three daemons on the database."""
    folder = tmp_path_factory.mktemp("daemons")
    three = [Daemon(folder, url) for _ in range(3)]
    with running(*three):
        yield three


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(20) as threads:
        yield threads


@contextmanager
def transaction(url: str) -> Iterator[Any]:
    """A session in a transaction, which ends with the context."""
    with connected(url) as db:
        rows(db, "BEGIN")
        yield db


@contextmanager
def installed(db: Any, sql: str, trigger: str) -> Iterator[None]:
    """A trigger on `message` within the context."""
    rows(db, sql)
    try:
        yield
    finally:
        rows(db, "SELECT pg_advisory_unlock_all()")
        rows(db, f"DROP TRIGGER {trigger} ON message")
        rows(db, f"DROP FUNCTION {trigger}")


def lock(db: Any, user_id: int) -> None:
    """Lock the row of an inbox, as an append does until it commits."""
    rows(db, "SELECT FROM inbox WHERE user_id = %s FOR UPDATE", user_id)


def waiting(url: str, count: int) -> None:
    """Wait until that many transactions wait for a lock."""

    def found() -> bool:
        with connected(url) as db:
            [[number]] = rows(
                db,
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'",
            )
        return bool(number == count)

    eventually(found, SECONDS, f"{count} wait for locks")


def until_blocked(url: str, holder: Any) -> None:
    """Wait until another session waits for a lock of this one."""
    [[pid]] = rows(holder, "SELECT pg_backend_pid()")
    blocked = "SELECT pid FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"
    with connected(url) as db:
        eventually(lambda: rows(db, blocked, pid), SECONDS, "somebody waits")


def deadlocks(url: str) -> int:
    """Number of deadlocks in the database; exact once all connections to it are closed."""
    alone = (
        "SELECT count(*) = 1 FROM pg_stat_activity"
        " WHERE datname = current_database() AND backend_type = 'client backend'"
    )
    with connected(url) as db:
        # What they count they report when they end.
        eventually(lambda: rows(db, alone)[0][0], SECONDS, "the others have left")
        [[count]] = rows(
            db, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )
    return int(count)


def followed(client: Client, count: int, over: Event) -> list[tuple[int, str]]:
    """The first messages of an inbox, as a client sees them by polling."""
    seen: list[dict[str, Any]] = []
    cursor = "0"
    while len(seen) < count and not over.is_set():
        status, body = client.poll(cursor, 25)
        assert status == 200, body
        seen += body["messages"]
        cursor = body["meta"]["cursor"]
    assert [each["sent_at"] for each in seen] == sorted(each["sent_at"] for each in seen)
    return [(each["seq"], each["message"]) for each in seen]


def accepted(*sends: Future[tuple[int, Any]]) -> None:
    """Check that all were answered 201."""
    for send in sends:
        status, body = send.result(SECONDS)
        assert status == 201, body


class Town:
    """Four users, served by several daemons; all messages are sent by ann."""

    def __init__(self, daemons: list[Daemon], url: str, threads: ThreadPoolExecutor) -> None:
        self.ports = [daemon.port for daemon in daemons]
        self.url = url
        self.threads = threads
        self.people = people = [
            registered(self.ports[0], f"{name}{next(_serial)}") for name in NAMES
        ]
        self.ids = dict(zip(NAMES, (user_id for user_id, _ in people), strict=True))
        self.clients = dict(zip(NAMES, (client for _, client in people), strict=True))
        self._over = Event()

    def __enter__(self) -> Town:
        return self

    def __exit__(self, *_: object) -> None:
        # Where a test has failed nobody waits for what will not come.
        self._over.set()

    def send(self, node: int, name: str, text: str) -> Future[tuple[int, Any]]:
        """Send in a thread."""
        ann = self.clients["ann"].at(self.ports[node])
        return self.threads.submit(ann.send, self.ids[name], text)

    def sent(self, node: int, name: str, text: str) -> None:
        """Send, without having to wait for another transaction."""
        accepted(self.send(node, name, text))

    def together(self, node: int, *names: str) -> list[Future[tuple[int, Any]]]:
        """Sends to several users in one batch: they queue up behind a send that hangs."""
        with transaction(self.url) as session:
            lock(session, self.ids["ann"])
            alone = self.send(node, "ann", "alone")
            waiting(self.url, 1)
            sends = [self.send(node, name, f"to {name}") for name in names]
            time.sleep(0.5)
            # Answered after those that came before it were taken in.
            assert self.clients["ann"].at(self.ports[node]).call("GET", "/api/v1/users/")[0] == 200
        accepted(alone)
        return sends

    def follow(self, name: str, count: int) -> list[Future[list[tuple[int, str]]]]:
        """Follow an inbox at every daemon."""
        return [
            self.threads.submit(followed, self.clients[name].at(port), count, self._over)
            for port in self.ports
        ]

    def everywhere(
        self, name: str, followers: list[Future[list[tuple[int, str]]]], *texts: str
    ) -> None:
        """Check that followers saw exactly these messages, in order and without gaps."""
        for follower in followers:
            assert follower.result(WAKE_SECONDS) == list(enumerate(texts, 1))
        # By the time of their commits, to the microsecond, they have the same order.
        status, body = self.clients[name].call("GET", f"/api/v1/chats/?with={self.ids['ann']}")
        assert status == 200, body
        assert [each["message"] for each in body["messages"]] == list(reversed(texts))

    def ready(self) -> None:
        """Check that every daemon is ready."""
        for port in self.ports:
            status, body = Client(port).call("GET", "/readyz")
            assert status == 200, body


@pytest.fixture
def town(daemons: list[Daemon], url: str, threads: ThreadPoolExecutor) -> Iterator[Town]:
    with Town(daemons, url, threads) as town:
        yield town
    for daemon in daemons:
        # Shown with a test that fails.
        print(daemon.log.read_text())


def pending(*calls: Future[Any]) -> bool:
    """Whether all of these are still waiting for a response."""
    return not any(call.done() for call in calls)


def test_appends_overtake_a_waiting_one_and_all_see_the_same_order(town: Town, url: str) -> None:
    bob, cat = town.follow("bob", 3), town.follow("cat", 3)
    with transaction(url) as session:
        lock(session, town.ids["bob"])
        held = town.send(0, "bob", "held at the first")
        waiting(url, 1)
        # Other inboxes of the other process go on, and polls at the one that hangs are answered.
        for text in ("1", "2", "3"):
            town.sent(1, "cat", text)
        town.everywhere("cat", cat, "1", "2", "3")
        # The same inbox: other processes queue behind the first waiter.
        second = town.send(1, "bob", "held at the second")
        waiting(url, 2)
        third = town.send(2, "bob", "held at the third")
        waiting(url, 3)
        town.ready()
        assert pending(held, second, third, *bob)
        rows(session, "COMMIT")
    accepted(held, second, third)
    # PostgreSQL keeps no order among waiters that find the row updated by the first of them.
    later = sorted((each.result()[1] for each in (second, third)), key=lambda each: each["seq"])
    town.everywhere("bob", bob, "held at the first", *(each["message"] for each in later))


def test_a_batch_that_started_earlier_may_commit_later(town: Town, url: str) -> None:
    """It waits for the lock of its first inbox while its snapshot becomes outdated."""
    bob, cat, dan = town.follow("bob", 1), town.follow("cat", 4), town.follow("dan", 3)
    with transaction(url) as first, transaction(url) as last:
        lock(first, town.ids["bob"])
        batch = town.together(0, "dan", "cat", "bob")
        # It holds none of the inboxes that come after bob's, though dan was asked for first.
        waiting(url, 1)
        town.sent(1, "cat", "overtaking")
        town.sent(2, "cat", "overtaking again")
        town.sent(1, "dan", "overtaking")
        lock(last, town.ids["dan"])
        rows(first, "COMMIT")
        until_blocked(url, last)
        # Now it has bob's and cat's, and waits for dan's: who comes now comes after it.
        behind = town.send(1, "cat", "behind")
        waiting(url, 2)
        also_behind = town.send(2, "dan", "behind")
        waiting(url, 3)
        assert pending(*batch, behind, also_behind, *bob, *cat, *dan)
        rows(last, "COMMIT")
    accepted(*batch, behind, also_behind)
    town.everywhere("bob", bob, "to bob")
    town.everywhere("cat", cat, "overtaking", "overtaking again", "to cat", "behind")
    town.everywhere("dan", dan, "overtaking", "to dan", "behind")


def test_uncommitted_messages_are_invisible_and_then_in_order(town: Town, url: str) -> None:
    """The COMMIT hangs: sequence numbers are assigned, rows are written, nothing is visible."""
    bob, cat = town.follow("bob", 3), town.follow("cat", 2)
    with connected(url) as session, installed(session, HELD_COMMITS, "hold"):
        rows(session, "SELECT pg_advisory_lock(4711)")
        held = [town.send(0, "bob", "hold at the first"), town.send(1, "cat", "hold")]
        waiting(url, 2)
        behind = [town.send(1, "bob", "second"), town.send(2, "bob", "third")]
        # The second process has one batch under way; the third waits for the row of bob.
        waiting(url, 3)
        for port in town.ports:
            status, page = town.clients["bob"].at(port).call("GET", "/api/v1/chats/")
            assert (status, page["meta"]["count"], page["messages"]) == (200, 0, [])
        assert pending(*held, *behind, *bob, *cat)
        rows(session, "SELECT pg_advisory_unlock(4711)")
        accepted(*held, *behind)
    accepted(town.send(2, "cat", "end"))
    [texts] = {tuple(text for _, text in each.result(WAKE_SECONDS)) for each in bob}
    assert texts[0] == "hold at the first"
    assert set(texts[1:]) == {"second", "third"}
    town.everywhere("bob", bob, *texts)
    town.everywhere("cat", cat, "hold", "end")


def test_a_commit_after_the_deadline_wakes_all_polls(town: Town, url: str) -> None:
    """After a 503 the append may still commit, which must wake polls at all daemons."""
    ann, bob, dan = (town.clients[name] for name in ("ann", "bob", "dan"))
    with transaction(url) as session:
        lock(session, town.ids["bob"])
        rows(session, "SELECT FROM token WHERE user_id = %s FOR UPDATE", town.ids["dan"])
        here, there = town.ports[:2]
        revoked = town.threads.submit(dan.at(here).call, "DELETE", "/api/v1/tokens/")
        sent = town.threads.submit(ann.at(here).send, town.ids["bob"], "late", "key")
        assert sent.result(GIVEN_UP_SECONDS + SECONDS)[0] == 503
        assert revoked.result(GIVEN_UP_SECONDS + SECONDS)[0] == 503
        town.ready()
        with (
            polling(bob.at(here), "0", 25) as at_home,
            polling(bob.at(there), "0", 25) as abroad,
            polling(dan.at(here), "now", 25) as session_at_home,
            polling(dan.at(there), "now", 25) as session_abroad,
        ):
            committed = time.monotonic()
            rows(session, "COMMIT")
    for status, body, answered in (at_home, abroad):
        assert status == 200
        assert [each["message"] for each in body["messages"]] == ["late"]
        assert answered - committed < WAKE_SECONDS
    for status, body, answered in (session_at_home, session_abroad):
        assert status == 401, body
        assert answered - committed < WAKE_SECONDS
    for port in town.ports:
        status, body = ann.at(port).send(town.ids["bob"], "late", "key")
        assert (status, body["seq"]) == (200, 1)


def test_commits_of_many_senders_overtake_each_other(
    own_server: Server, own_database: str, tmp_path: Path
) -> None:
    url = own_server.url(own_database)
    daemons = [Daemon(tmp_path, url) for _ in range(3)]
    nodes = [daemon.port for daemon in daemons]
    with running(*daemons):
        people = [registered(nodes[0], f"user{number}") for number in range(4)]
        with connected(url) as db:
            rows(db, SLOW_COMMITS)
        with Crowd(nodes, people, senders=12) as crowd:
            eventually(lambda: len(crowd.acknowledged) >= 150, SECONDS, "150 messages")
        crowd.prove(nodes[0])
        crowd.prove(nodes[2])
    assert crowd.errors == {}
    # Batches of several inboxes never wait for each other in a circle.
    assert deadlocks(url) == 0


@contextmanager
def conflicts(
    url: str, where: str, state: str, *, times: int = 0, share: float = 0
) -> Iterator[Any]:
    """Make appends fail as described at `CONFLICTS`; yields a session."""
    with connected(url) as db:
        rows(db, "DROP TABLE IF EXISTS conflict")
        rows(db, "DROP SEQUENCE IF EXISTS attempts, undone")
        with installed(db, CONFLICTS + where, "conflict"):
            rows(db, "INSERT INTO conflict VALUES (%s, %s, %s)", state, times, share)
            yield db


def counted(db: Any, sequence: str) -> int:
    [[last, is_called]] = rows(db, f"SELECT last_value, is_called FROM {sequence}")
    return int(last) if is_called else 0


STATES: Final = pytest.mark.parametrize("state", ["40001", "40P01"])
PLACES: Final = pytest.mark.parametrize(
    "where", [IN_THE_STATEMENT, IN_THE_COMMIT], ids=["statement", "commit"]
)


def test_rolled_back_appends_are_retried_a_limited_number_of_times(town: Town, url: str) -> None:
    bob = town.follow("bob", 2)
    ann = town.clients["ann"]
    with conflicts(url, IN_THE_COMMIT, "40001", times=4) as db:
        town.sent(0, "bob", "the fifth time")
        assert counted(db, "attempts") == 5
        rows(db, "UPDATE conflict SET times = 1000")
        status, body = ann.send(town.ids["bob"], "in the end", "key")
        assert (status, body["code"]) == (503, "store_unavailable")
        assert counted(db, "undone") > 8
        # The database answers, it is the statement that it cannot carry out.
        town.ready()
    # It was undone each time: nothing is there to be replayed.
    for node, expected in ((1, 201), (0, 200), (2, 200)):
        status, body = ann.at(town.ports[node]).send(town.ids["bob"], "in the end", "key")
        assert (status, body["seq"]) == (expected, 2)
    town.everywhere("bob", bob, "the fifth time", "in the end")


@STATES
@PLACES
def test_clients_do_not_notice_rollbacks(state: str, where: str, town: Town, url: str) -> None:
    with conflicts(url, where, state, share=0.04) as db:
        with Crowd(town.ports, town.people, senders=8) as crowd:
            eventually(lambda: counted(db, "undone") >= 15, SECONDS, "15 were undone")
            town.ready()
    crowd.prove(town.ports[0])
    crowd.prove(town.ports[1])
    assert crowd.errors == {}


def test_a_deadlocked_batch_is_retried(
    own_server: Server, own_database: str, tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    url = own_server.url(own_database)
    # Whose patience ends first looks for circles and is undone: it is to be the daemon.
    daemons = [Daemon(tmp_path, f"{url}&options=-c%20deadlock_timeout%3D2s") for _ in range(2)]
    with running(*daemons), Town(daemons, url, threads) as town:
        bob, dan = town.follow("bob", 2), town.follow("dan", 2)
        with transaction(url) as session:
            rows(session, "SET deadlock_timeout = '20s'")
            lock(session, town.ids["dan"])
            batch = town.together(0, "dan", "bob")
            waiting(url, 1)
            # The batch has bob's inbox and wants dan's, the session has dan's and wants bob's.
            lock(session, town.ids["bob"])
            # It is tried again, from the beginning: it holds nothing while it waits.
            waiting(url, 1)
            behind = town.send(1, "dan", "behind")
            waiting(url, 2)
            town.ready()
            assert pending(*batch, behind, *bob, *dan)
            rows(session, "COMMIT")
        accepted(*batch, behind)
        accepted(town.send(1, "bob", "end"))
        town.everywhere("bob", bob, "to bob", "end")
        [texts] = {tuple(text for _, text in each.result(WAKE_SECONDS)) for each in dan}
        assert set(texts) == {"to dan", "behind"}
        town.everywhere("dan", dan, *texts)
    assert deadlocks(url) == 1
