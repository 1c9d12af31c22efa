"""Transactions of several real processes that finish out of order, are undone, or go in circles.

What the server makes of appends now and then under load is made here on purpose: a blocking session
holds rows, a deferred trigger holds a COMMIT, others raise what the server raises.
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
"""In which what must happen happens, on a busy machine too."""

WAKE_SECONDS: Final = 10.0
"""An answer that came this soon after the commit was not found by a sweep, nor by asking again."""

GIVEN_UP_SECONDS: Final = 10.0
"""How long a daemon waits for the database, see `chatd.store.postgres.retry.DEADLINE_SECONDS`."""

_serial = itertools.count(1)

NAMES: Final = ("ann", "bob", "cat", "dan")

# A commit of a text that begins with "hold" waits until nobody holds the lock any more.
HELD_COMMITS: Final = """
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(4711);
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON message DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW WHEN (NEW.text LIKE 'hold%') EXECUTE FUNCTION hold();
"""

# From one lock to the next it takes a while, and some commits take far longer than others.
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

# `attempts` and `undone` count, which no rollback undoes; `share` of the attempts fail, and the
# first `times`.
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
    """A database that the tests share, each with accounts of its own."""
    databases = Databases(own_server.url())
    name = databases.create()
    yield own_server.url(name)
    databases.drop(name)


@pytest.fixture(scope="module")
def daemons(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Daemon]]:
    """Three processes on it."""
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
    """A session in a transaction; what it holds it lets go in the end, unless it has ended it."""
    with connected(url) as db:
        rows(db, "BEGIN")
        yield db


@contextmanager
def installed(db: Any, sql: str, trigger: str) -> Iterator[None]:
    """Have a trigger on `message` for a while."""
    rows(db, sql)
    try:
        yield
    finally:
        rows(db, "SELECT pg_advisory_unlock_all()")
        rows(db, f"DROP TRIGGER {trigger} ON message")
        rows(db, f"DROP FUNCTION {trigger}")


def lock(db: Any, user_id: int) -> None:
    """Have the inbox's row, as an append has it until its commit."""
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
    """Wait until somebody waits for this very session."""
    [[pid]] = rows(holder, "SELECT pg_backend_pid()")
    blocked = "SELECT pid FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"
    with connected(url) as db:
        eventually(lambda: rows(db, blocked, pid), SECONDS, "somebody waits")


def deadlocks(url: str) -> int:
    """How many the server has had to break in this database; nobody may be connected any more."""
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
    """The first so many messages of an inbox, as one who polls on sees them until it is over."""
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
    """All of these were answered 201."""
    for send in sends:
        status, body = send.result(SECONDS)
        assert status == 201, body


class Town:
    """Four people, whom several processes serve; whoever sends is ann."""

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
        """Send; it must not have to wait for anybody."""
        accepted(self.send(node, name, text))

    def together(self, node: int, *names: str) -> list[Future[tuple[int, Any]]]:
        """Sends to several that are one batch: they queue up while another one hangs."""
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
        """Follow an inbox at every process."""
        return [
            self.threads.submit(followed, self.clients[name].at(port), count, self._over)
            for port in self.ports
        ]

    def everywhere(
        self, name: str, followers: list[Future[list[tuple[int, str]]]], *texts: str
    ) -> None:
        """Who followed has seen exactly these, in this order and without a gap."""
        for follower in followers:
            assert follower.result(WAKE_SECONDS) == list(enumerate(texts, 1))
        # By the time of their commits, to the microsecond, they have the same order.
        status, body = self.clients[name].call("GET", f"/api/v1/chats/?with={self.ids['ann']}")
        assert status == 200, body
        assert [each["message"] for each in body["messages"]] == list(reversed(texts))

    def ready(self) -> None:
        """Every process says that it is well."""
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
    """Whether none of these was answered yet."""
    return not any(call.done() for call in calls)


def test_appends_overtake_one_that_waits_and_all_see_one_order(town: Town, url: str) -> None:
    bob, cat = town.follow("bob", 3), town.follow("cat", 3)
    with transaction(url) as session:
        lock(session, town.ids["bob"])
        held = town.send(0, "bob", "held at the first")
        waiting(url, 1)
        # Other inboxes of the other process go on, and polls at the one that hangs are answered.
        for text in ("1", "2", "3"):
            town.sent(1, "cat", text)
        town.everywhere("cat", cat, "1", "2", "3")
        # The same inbox: whoever came first to the lock comes first, whichever process it is.
        second = town.send(1, "bob", "held at the second")
        waiting(url, 2)
        third = town.send(2, "bob", "held at the third")
        waiting(url, 3)
        town.ready()
        assert pending(held, second, third, *bob)
        rows(session, "COMMIT")
    accepted(held, second, third)
    town.everywhere("bob", bob, "held at the first", "held at the second", "held at the third")


def test_a_batch_that_began_earlier_may_end_up_behind(town: Town, url: str) -> None:
    """It waits at the first of its inboxes, with a snapshot that others then outdate."""
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


def test_what_is_not_committed_yet_is_seen_by_nobody_and_then_in_its_order(
    town: Town, url: str
) -> None:
    """The COMMIT itself hangs: seqs are taken, rows are written, nothing is visible."""
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


def test_what_was_given_up_and_is_committed_later_wakes_everybody(town: Town, url: str) -> None:
    """A 503 says that it may have happened; when it does, the polls of all processes are woken."""
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


def test_a_crowd_whose_commits_overtake_each_other(
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
    """Undo appends as the server does, see `CONFLICTS`; gives a session."""
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


def test_what_the_server_undid_is_done_again_but_not_for_ever(town: Town, url: str) -> None:
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
def test_a_crowd_notices_nothing_of_what_is_undone(
    state: str, where: str, town: Town, url: str
) -> None:
    with conflicts(url, where, state, share=0.04) as db:
        with Crowd(town.ports, town.people, senders=8) as crowd:
            eventually(lambda: counted(db, "undone") >= 15, SECONDS, "15 were undone")
            town.ready()
    crowd.prove(town.ports[0])
    crowd.prove(town.ports[1])
    assert crowd.errors == {}


def test_a_real_deadlock_costs_a_batch_another_try(
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
