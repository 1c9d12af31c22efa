"""The client against the real routes, domain and database, in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import error
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from twisted.web.client import ResponseNeverReceived

from chatd.api.client_address import TrustedProxies
from chatd.client import APIError, ChatClient, Follow, Gap, HistoryChanged, Message
from chatd.compose import compose_api
from chatd.model import WakeReason
from tests.client.scripted import failure, stub
from tests.doubles import System, cancel, composed, result_of


class Lossy:
    """A network that loses requests (`before`) and answers (`after`), as `fates` say."""

    def __init__(self, http: Any) -> None:
        self._http = http
        self.fates: list[str] = []

    def request(self, *arguments: Any, **options: Any) -> Deferred[Any]:
        fate = self.fates.pop(0) if self.fates else "ok"
        if fate == "before":
            return fail(error.ConnectionRefusedError())
        asked: Deferred[Any] = self._http.request(*arguments, **options)
        if fate == "after":
            lost = ResponseNeverReceived([Failure(error.ConnectionLost())])
            asked.addCallback(lambda _: Failure(lost))
        return asked


class Service:
    """The public API over a `System`, and its clients."""

    def __init__(self, system: System) -> None:
        self.system = system
        resource = compose_api(
            system.components,
            clock=system.clock,
            proxies=TrustedProxies([]),
            retry_jitter=lambda: 3,
        )
        self.http = stub(resource)
        self.network = Lossy(self.http)
        self.begun: list[Deferred[Any]] = []

    def client(self, name: str) -> ChatClient:
        """The client of a new account."""
        client = ChatClient(
            "http://chat.example",
            http=self.network,
            clock=self.system.clock,
            now=lambda: self.system.now() / 1_000_000,
            random=lambda: 0.5,
        )
        self.run(client.register(name, f"{name}@example.org", "password"))
        self.run(client.log_in(name, "password"))
        return client

    def settle(self) -> None:
        for _ in range(4):
            self.system.settle()
            self.http.flush()

    def advance(self, seconds: float) -> None:
        for _ in range(max(1, int(seconds * 10))):
            self.system.clock.advance(0.1)
            self.settle()

    def start(self, call: Any) -> Deferred[Any]:
        begun = Deferred.fromCoroutine(call)
        self.begun.append(begun)
        self.settle()
        return begun

    def run(self, call: Any) -> Any:
        """A call that needs no time, but for that between its tries."""
        begun = self.start(call)
        for _ in range(1000):
            if begun.called:
                break
            self.advance(0.5)
        return result_of(begun)

    def collect(self, follow: Follow) -> list[Message]:
        """A list that what is followed is put into."""
        seen: list[Message] = []

        async def reading() -> None:
            async for message in follow:
                seen.append(message)

        self.start(reading())
        return seen

    def close(self) -> None:
        for begun in self.begun:
            cancel(begun)
        self.settle()


@contextmanager
def serving(folder: Path) -> Iterator[Service]:
    with composed(folder) as system:
        service = Service(system)
        yield service
        service.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path / "data") as running:
        yield running


def test_a_session(service: Service) -> None:
    ann, bob = service.client("ann"), service.client("bob")
    me = service.run(bob.me())
    assert (me.id, me.username) == (2, "bob")
    assert service.run(ann.user(2)).username == "bob"
    assert service.run(ann.user_named("BOB")).id == 2
    cursor = service.run(bob.cursor())
    for number in range(12):
        sent = service.run(ann.send(2, f"{number}"))
        assert (sent.message.seq, sent.replayed) == (number + 1, False)
    page = service.run(bob.page(limit=5))
    assert [message.text for message in page.messages] == ["11", "10", "9", "8", "7"]
    assert (page.count, page.next, page.previous) == (12, 2, None)
    second = service.run(bob.page(2, limit=5, at=page.cursor))
    assert [message.seq for message in second.messages] == [7, 6, 5, 4, 3]
    polled = service.run(bob.poll(cursor, 0, limit=7))
    assert ([message.seq for message in polled.messages], polled.more) == ([*range(1, 8)], True)
    service.advance(1)
    service.run(bob.send(1, "back"))
    talk = service.run(ann.conversation(2, limit=3))
    assert [message.text for message in talk.messages] == ["back", "11", "10"]
    older = service.run(ann.conversation(2, before=talk.older))
    assert [message.text for message in older.messages] == [f"{n}" for n in range(9, -1, -1)]
    assert older.older is None
    service.run(ann.log_out())
    service.run(bob.delete_account())


def test_a_key_is_used_once_across_clients(service: Service) -> None:
    ann, bob = service.client("ann"), service.client("bob")
    first = service.run(ann.send(2, "x", key="k"))
    again = service.run(ann.send(2, "x", key="k"))
    assert (again.message, again.replayed) == (first.message, True)
    reused = failure(service.start(ann.send(2, "y", key="k")), APIError)
    assert reused.code == "idempotency_key_reused"
    assert service.run(bob.page()).count == 1


def test_a_follower_is_told_at_once(service: Service) -> None:
    ann, bob = service.client("ann"), service.client("bob")
    seen = service.collect(bob.follow("now"))
    assert service.system.notifier.held == 1
    service.run(ann.send(2, "hai"))
    service.settle()
    assert [message.text for message in seen] == ["hai"]
    service.advance(70)
    assert service.system.notifier.held == 1
    service.run(ann.send(2, "later"))
    service.settle()
    assert [message.text for message in seen] == ["hai", "later"]


def test_a_follower_that_is_cancelled_leaves_nothing(service: Service) -> None:
    bob = service.client("bob")
    service.collect(bob.follow("now"))
    assert service.system.notifier.held == 1
    cancel(service.begun[-1])
    service.settle()
    assert service.system.notifier.held == 0


def test_logging_out_ends_the_follower(service: Service) -> None:
    bob = service.client("bob")
    service.collect(bob.follow("now"))
    following = service.begun[-1]
    token = bob.token
    service.run(bob.log_out())
    service.settle()
    bob.token = token
    assert failure(following, APIError).status == 401


def test_a_draining_server_is_left_alone_for_a_while(service: Service) -> None:
    ann, bob = service.client("ann"), service.client("bob")
    seen = service.collect(bob.follow("0"))
    service.system.notifier.drain()
    service.settle()
    assert service.system.notifier.held == 0
    service.run(ann.send(2, "hai"))
    service.advance(2.5)
    assert seen == []
    service.advance(2)
    assert [message.text for message in seen] == ["hai"]


def test_followers_beyond_the_bound_share_it_peacefully(service: Service) -> None:
    ann, bob = service.client("ann"), service.client("bob")
    followers = [service.collect(bob.follow("0")) for _ in range(10)]
    service.advance(60)
    polls = service.system.metrics._registry.get_sample_value(
        "chatd_polls_total", {"outcome": WakeReason.SUPERSEDED.value}
    )
    assert polls is not None
    assert 0 < polls < 2 * 60, "they chase each other"
    service.run(ann.send(2, "hai"))
    service.advance(31)
    assert [[message.text for message in seen] for seen in followers] == [["hai"]] * 10


def test_another_history_is_told(service: Service) -> None:
    bob = service.client("bob")
    seen = service.collect(bob.follow("aaaaaaaaaaaaaaaa-3"))
    assert failure(service.begun[-1], HistoryChanged).code == "cursor_epoch"
    assert seen == []


fates = st.lists(st.sampled_from(["ok", "ok", "before", "after"]), max_size=30)


@given(steps=st.lists(st.tuples(fates, st.booleans()), min_size=1, max_size=8))
@settings(max_examples=60)
def test_every_message_is_stored_once_and_seen_once_and_in_order(
    steps: list[tuple[list[str], bool]],
) -> None:
    """Whatever requests and answers are lost."""
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "data") as service:
        ann, bob = service.client("ann"), service.client("bob")
        seen = service.collect(bob.follow("0"))
        for number, (lost, pause) in enumerate(steps, 1):
            service.network.fates += lost
            sending = service.start(ann.send(2, f"{number}"))
            if pause:
                service.advance(31)
            for _ in range(40):
                if sending.called:
                    break
                service.advance(5)
            assert result_of(sending).message.seq == number
        service.network.fates.clear()
        service.advance(40)
        assert [(message.seq, message.text) for message in seen] == [
            (number, f"{number}") for number in range(1, len(steps) + 1)
        ]


def test_a_server_that_loses_messages_is_found_out(service: Service) -> None:
    ann, bob = service.client("ann"), service.client("bob")
    service.run(ann.send(2, "one"))
    service.run(ann.send(2, "two"))
    db = service.system.store._write_db
    db.execute("DELETE FROM message WHERE received_by = 2 AND seq = 1")
    service.system.store._inbox_cache.drop(2)
    service.collect(bob.follow("0"))
    assert failure(service.begun[-1], Gap).expected == 1
