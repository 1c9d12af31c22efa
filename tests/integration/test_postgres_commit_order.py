"""Transactions of several daemons that commit out of order, are rolled back, or deadlock.

Provokes what is rare under load: a blocking session locks rows, a deferred trigger delays a COMMIT,
other triggers raise the errors of the server.
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

from tests.examples import examples
from tests.integration.postgres_daemons import (
    Client,
    ConcurrentTraffic,
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

GIVE_UP_SECONDS: Final = 10.0
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

# The first `times` messages and a `share` of the transactions fail. It is drawn once a transaction,
# as conflicts are in truth: drawn for each row, a batch of six would fail in most of its attempts,
# and now and then in all of them. `attempts` and `rolled_back` are sequences because sequences are
# not rolled back.
CONFLICTS: Final = """
CREATE SEQUENCE attempts;
CREATE SEQUENCE rolled_back;
CREATE TABLE conflict (state text, times int, share float);
CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wanted conflict;
BEGIN
    SELECT * INTO wanted FROM conflict;
    IF nextval('attempts') <= wanted.times
        OR hashint8(txid_current()) & 1023 < wanted.share * 1024
    THEN
        PERFORM nextval('rolled_back');
        RAISE EXCEPTION 'simulated' USING ERRCODE = wanted.state;
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


def wait_for_blocked(url: str, count: int) -> None:
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


def wait_until_blocking(url: str, holder: Any) -> None:
    """Wait until another session waits for a lock of this one."""
    [[pid]] = rows(holder, "SELECT pg_backend_pid()")
    blocked = "SELECT pid FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"
    with connected(url) as db:
        eventually(lambda: rows(db, blocked, pid), SECONDS, "a session that waits")


def deadlocks(url: str) -> int:
    """Number of deadlocks in the database; exact once all connections to it are closed."""
    alone = (
        "SELECT count(*) = 1 FROM pg_stat_activity"
        " WHERE datname = current_database() AND backend_type = 'client backend'"
    )
    with connected(url) as db:
        # Sessions report their statistics when they end.
        eventually(lambda: rows(db, alone)[0][0], SECONDS, "the others have disconnected")
        [[count]] = rows(
            db, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )
    return int(count)


def followed(client: Client, count: int, stop: Event) -> list[tuple[int, str]]:
    """The first messages of an inbox, as a client sees them by polling."""
    seen: list[dict[str, Any]] = []
    cursor = "0"
    while len(seen) < count and not stop.is_set():
        status, body = client.poll(cursor, 25)
        assert status == 200, body
        seen += body["messages"]
        cursor = body["meta"]["cursor"]
    assert [each["sent_at"] for each in seen] == sorted(each["sent_at"] for each in seen)
    return [(each["seq"], each["message"]) for each in seen]


def assert_accepted(*sends: Future[tuple[int, Any]]) -> None:
    """Check that all responses are 201."""
    for send in sends:
        status, body = send.result(SECONDS)
        assert status == 201, body


class Cluster:
    """Several daemons on one database, and four users; ann sends all messages."""

    def __init__(self, daemons: list[Daemon], url: str, threads: ThreadPoolExecutor) -> None:
        self.ports = [daemon.port for daemon in daemons]
        self.url = url
        self.threads = threads
        self.users = users = [registered(self.ports[0], f"{name}{next(_serial)}") for name in NAMES]
        self.ids = dict(zip(NAMES, (user_id for user_id, _ in users), strict=True))
        self.clients = dict(zip(NAMES, (client for _, client in users), strict=True))
        self._stop = Event()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        # Followers must not wait for more messages after a test has failed.
        self._stop.set()

    def send(self, node: int, name: str, text: str) -> Future[tuple[int, Any]]:
        """Send in a thread."""
        ann = self.clients["ann"].at(self.ports[node])
        return self.threads.submit(ann.send, self.ids[name], text)

    def send_and_wait(self, node: int, name: str, text: str) -> None:
        """Send, without having to wait for another transaction."""
        assert_accepted(self.send(node, name, text))

    def send_together(self, node: int, *names: str) -> list[Future[tuple[int, Any]]]:
        """Sends to several users in one batch: they are queued behind a blocked send."""
        with transaction(self.url) as session:
            lock(session, self.ids["ann"])
            alone = self.send(node, "ann", "alone")
            wait_for_blocked(self.url, 1)
            sends = [self.send(node, name, f"to {name}") for name in names]
            time.sleep(0.5)
            # A request after the sends has been answered, so the sends have been queued.
            assert self.clients["ann"].at(self.ports[node]).call("GET", "/api/v1/users/")[0] == 200
        assert_accepted(alone)
        return sends

    def follow(self, name: str, count: int) -> list[Future[list[tuple[int, str]]]]:
        """Follow an inbox at every daemon."""
        return [
            self.threads.submit(followed, self.clients[name].at(port), count, self._stop)
            for port in self.ports
        ]

    def assert_everywhere(
        self, name: str, followers: list[Future[list[tuple[int, str]]]], *texts: str
    ) -> None:
        """Check that followers saw exactly these messages, in order and without gaps."""
        for follower in followers:
            assert follower.result(WAKE_SECONDS) == list(enumerate(texts, 1))
        # By the time of their commits, to the microsecond, they have the same order.
        status, body = self.clients[name].call("GET", f"/api/v1/chats/?with={self.ids['ann']}")
        assert status == 200, body
        assert [each["message"] for each in body["messages"]] == list(reversed(texts))

    def assert_ready(self) -> None:
        """Check that every daemon is ready."""
        for port in self.ports:
            status, body = Client(port).call("GET", "/readyz")
            assert status == 200, body


@pytest.fixture
def cluster(daemons: list[Daemon], url: str, threads: ThreadPoolExecutor) -> Iterator[Cluster]:
    with Cluster(daemons, url, threads) as cluster:
        yield cluster
    for daemon in daemons:
        # Shown with a test that fails.
        print(daemon.log.read_text())


def pending(*calls: Future[Any]) -> bool:
    """Whether all of these are still waiting for a response."""
    return not any(call.done() for call in calls)


def test_appends_overtake_a_waiting_one(cluster: Cluster, url: str) -> None:
    bob, cat = cluster.follow("bob", 3), cluster.follow("cat", 3)
    with transaction(url) as session:
        lock(session, cluster.ids["bob"])
        held = cluster.send(0, "bob", "held at the first")
        wait_for_blocked(url, 1)
        # Other daemons still append to other inboxes, and the blocked one still wakes polls.
        for text in ("1", "2", "3"):
            cluster.send_and_wait(1, "cat", text)
        cluster.assert_everywhere("cat", cat, "1", "2", "3")
        # The same inbox: other processes queue behind the first waiter.
        second = cluster.send(1, "bob", "held at the second")
        wait_for_blocked(url, 2)
        third = cluster.send(2, "bob", "held at the third")
        wait_for_blocked(url, 3)
        cluster.assert_ready()
        assert pending(held, second, third, *bob)
        rows(session, "COMMIT")
    assert_accepted(held, second, third)
    # PostgreSQL keeps no order among waiters that find the row updated by the first of them.
    later = sorted((each.result()[1] for each in (second, third)), key=lambda each: each["seq"])
    cluster.assert_everywhere("bob", bob, "held at the first", *(each["message"] for each in later))


def test_a_batch_that_started_earlier_may_commit_later(cluster: Cluster, url: str) -> None:
    """It waits for the lock of its first inbox while its snapshot becomes outdated."""
    bob, cat, dan = cluster.follow("bob", 1), cluster.follow("cat", 4), cluster.follow("dan", 3)
    with transaction(url) as first, transaction(url) as last:
        lock(first, cluster.ids["bob"])
        batch = cluster.send_together(0, "dan", "cat", "bob")
        # It has locked no inbox after bob's, although the message to dan came first.
        wait_for_blocked(url, 1)
        cluster.send_and_wait(1, "cat", "overtaking")
        cluster.send_and_wait(2, "cat", "overtaking again")
        cluster.send_and_wait(1, "dan", "overtaking")
        lock(last, cluster.ids["dan"])
        rows(first, "COMMIT")
        wait_until_blocking(url, last)
        # Now it has locked bob's and cat's and waits for dan's: later sends come after it.
        behind = cluster.send(1, "cat", "behind")
        wait_for_blocked(url, 2)
        also_behind = cluster.send(2, "dan", "behind")
        wait_for_blocked(url, 3)
        assert pending(*batch, behind, also_behind, *bob, *cat, *dan)
        rows(last, "COMMIT")
    assert_accepted(*batch, behind, also_behind)
    cluster.assert_everywhere("bob", bob, "to bob")
    cluster.assert_everywhere("cat", cat, "overtaking", "overtaking again", "to cat", "behind")
    cluster.assert_everywhere("dan", dan, "overtaking", "to dan", "behind")


def test_uncommitted_messages_are_invisible(cluster: Cluster, url: str) -> None:
    """Sequence numbers are assigned and rows written, but the COMMIT is blocked."""
    bob, cat = cluster.follow("bob", 3), cluster.follow("cat", 2)
    with connected(url) as session, installed(session, HELD_COMMITS, "hold"):
        rows(session, "SELECT pg_advisory_lock(4711)")
        held = [cluster.send(0, "bob", "hold at the first"), cluster.send(1, "cat", "hold")]
        wait_for_blocked(url, 2)
        behind = [cluster.send(1, "bob", "second"), cluster.send(2, "bob", "third")]
        # The second daemon has one batch in progress; the third waits for the row of bob.
        wait_for_blocked(url, 3)
        for port in cluster.ports:
            status, page = cluster.clients["bob"].at(port).call("GET", "/api/v1/chats/")
            assert (status, page["meta"]["count"], page["messages"]) == (200, 0, [])
        assert pending(*held, *behind, *bob, *cat)
        rows(session, "SELECT pg_advisory_unlock(4711)")
        assert_accepted(*held, *behind)
    assert_accepted(cluster.send(2, "cat", "end"))
    [texts] = {tuple(text for _, text in each.result(WAKE_SECONDS)) for each in bob}
    assert texts[0] == "hold at the first"
    assert set(texts[1:]) == {"second", "third"}
    cluster.assert_everywhere("bob", bob, *texts)
    cluster.assert_everywhere("cat", cat, "hold", "end")


def test_a_commit_after_the_deadline_wakes_all_polls(cluster: Cluster, url: str) -> None:
    """After a 503 the append may still commit, which must wake polls at all daemons."""
    ann, bob, dan = (cluster.clients[name] for name in ("ann", "bob", "dan"))
    with transaction(url) as session:
        lock(session, cluster.ids["bob"])
        rows(session, "SELECT FROM token WHERE user_id = %s FOR UPDATE", cluster.ids["dan"])
        here, there = cluster.ports[:2]
        revoked = cluster.threads.submit(dan.at(here).call, "DELETE", "/api/v1/tokens/")
        sent = cluster.threads.submit(ann.at(here).send, cluster.ids["bob"], "late", "key")
        assert sent.result(GIVE_UP_SECONDS + SECONDS)[0] == 503
        assert revoked.result(GIVE_UP_SECONDS + SECONDS)[0] == 503
        cluster.assert_ready()
        with (
            polling(bob.at(here), "0", 25) as here_poll,
            polling(bob.at(there), "0", 25) as there_poll,
            polling(dan.at(here), "now", 25) as session_here_poll,
            polling(dan.at(there), "now", 25) as session_there_poll,
        ):
            committed = time.monotonic()
            rows(session, "COMMIT")
    for status, body, responded_at in (here_poll, there_poll):
        assert status == 200
        assert [each["message"] for each in body["messages"]] == ["late"]
        assert responded_at - committed < WAKE_SECONDS
    for status, body, responded_at in (session_here_poll, session_there_poll):
        assert status == 401, body
        assert responded_at - committed < WAKE_SECONDS
    for port in cluster.ports:
        status, body = ann.at(port).send(cluster.ids["bob"], "late", "key")
        assert (status, body["seq"]) == (200, 1)


OVERTAKING: Final = examples(75, deep=150)


def test_commits_of_many_senders_overtake_each_other(
    own_server: Server, own_database: str, tmp_path: Path
) -> None:
    url = own_server.url(own_database)
    daemons = [Daemon(tmp_path, url) for _ in range(3)]
    nodes = [daemon.port for daemon in daemons]
    with running(*daemons):
        users = [registered(nodes[0], f"user{number}") for number in range(4)]
        with connected(url) as db:
            rows(db, SLOW_COMMITS)
        with ConcurrentTraffic(nodes, users, senders=12) as traffic:
            eventually(lambda: traffic.acknowledged >= OVERTAKING, SECONDS, "messages")
        traffic.verify(nodes[0])
        traffic.verify(nodes[2])
    assert traffic.errors == {}
    # Batches lock inboxes in one order, so they never deadlock.
    assert deadlocks(url) == 0


@contextmanager
def conflicts(
    url: str, where: str, state: str, *, times: int = 0, share: float = 0
) -> Iterator[Any]:
    """Make appends fail as described at `CONFLICTS`; yields a session."""
    with connected(url) as db:
        rows(db, "DROP TABLE IF EXISTS conflict")
        rows(db, "DROP SEQUENCE IF EXISTS attempts, rolled_back")
        with installed(db, CONFLICTS + where, "conflict"):
            rows(db, "INSERT INTO conflict VALUES (%s, %s, %s)", state, times, share)
            yield db


def counted(db: Any, sequence: str) -> int:
    [[last, is_called]] = rows(db, f"SELECT last_value, is_called FROM {sequence}")
    return int(last) if is_called else 0


ROLLBACKS: Final = examples(8, deep=45)
STATES: Final = pytest.mark.parametrize("state", ["40001", "40P01"])
PLACES: Final = pytest.mark.parametrize(
    "where", [IN_THE_STATEMENT, IN_THE_COMMIT], ids=["statement", "commit"]
)


def test_rolled_back_appends_are_retried_a_few_times(cluster: Cluster, url: str) -> None:
    bob = cluster.follow("bob", 2)
    ann = cluster.clients["ann"]
    with conflicts(url, IN_THE_COMMIT, "40001", times=4) as db:
        cluster.send_and_wait(0, "bob", "the fifth time")
        assert counted(db, "attempts") == 5
        rows(db, "UPDATE conflict SET times = 1000")
        status, body = ann.send(cluster.ids["bob"], "in the end", "key")
        assert (status, body["code"]) == (503, "store_unavailable")
        assert counted(db, "rolled_back") > 8
        # The database is available, only the statement fails.
        cluster.assert_ready()
    # It was rolled back each time: the key is unused.
    for node, expected in ((1, 201), (0, 200), (2, 200)):
        status, body = ann.at(cluster.ports[node]).send(cluster.ids["bob"], "in the end", "key")
        assert (status, body["seq"]) == (expected, 2)
    cluster.assert_everywhere("bob", bob, "the fifth time", "in the end")


@STATES
@PLACES
def test_clients_do_not_notice_rollbacks(
    state: str, where: str, cluster: Cluster, url: str
) -> None:
    with conflicts(url, where, state, share=0.2) as db:
        with ConcurrentTraffic(cluster.ports, cluster.users, senders=8) as traffic:
            eventually(lambda: counted(db, "rolled_back") >= ROLLBACKS, SECONDS, "rollbacks")
            cluster.assert_ready()
    traffic.verify(cluster.ports[0])
    traffic.verify(cluster.ports[1])
    assert traffic.errors == {}


def test_a_deadlocked_batch_is_retried(
    own_server: Server, own_database: str, tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    url = own_server.url(own_database)
    # The session with the shorter deadlock_timeout is rolled back: it must be the daemon's.
    daemons = [Daemon(tmp_path, f"{url}&options=-c%20deadlock_timeout%3D2s") for _ in range(2)]
    with running(*daemons), Cluster(daemons, url, threads) as cluster:
        bob, dan = cluster.follow("bob", 2), cluster.follow("dan", 2)
        with transaction(url) as session:
            rows(session, "SET deadlock_timeout = '20s'")
            lock(session, cluster.ids["dan"])
            batch = cluster.send_together(0, "dan", "bob")
            wait_for_blocked(url, 1)
            # The batch has locked bob's inbox and waits for dan's, the session the other way round.
            lock(session, cluster.ids["bob"])
            # The batch is retried from the beginning, and holds no lock while it waits.
            wait_for_blocked(url, 1)
            behind = cluster.send(1, "dan", "behind")
            wait_for_blocked(url, 2)
            cluster.assert_ready()
            assert pending(*batch, behind, *bob, *dan)
            rows(session, "COMMIT")
        assert_accepted(*batch, behind)
        assert_accepted(cluster.send(1, "bob", "end"))
        cluster.assert_everywhere("bob", bob, "to bob", "end")
        [texts] = {tuple(text for _, text in each.result(WAKE_SECONDS)) for each in dan}
        assert set(texts) == {"to dan", "behind"}
        cluster.assert_everywhere("dan", dan, *texts)
    assert deadlocks(url) == 1
