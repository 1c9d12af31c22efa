"""The client against the real routes, domain and database, in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import error
from twisted.internet.defer import Deferred, fail
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed, ResponseNeverReceived

from chatd.api.client_address import TrustedProxies
from chatd.client import (
    APIError,
    ChatClient,
    FollowTransport,
    Gap,
    HistoryChanged,
    Message,
    Sent,
    Unreachable,
)
from chatd.compose.api import compose_api
from chatd.model import WakeReason
from tests.client.scripted import failure, stub
from tests.doubles import System, cancel, composed, result_of, scratch
from tests.examples import examples

MAX_LOSSES_IN_A_ROW: Final = 9
"""Losses in a row after which a call still succeeds: the delays between its attempts
then add up to less than `retry_seconds`."""


class CutBody(Protocol):
    """Passes the first bytes of a body on, and loses the connection before the next."""

    def __init__(self, receiver: Any, size: int) -> None:
        self._receiver = receiver
        self._left = size
        self._lost = False

    def connectionMade(self) -> None:
        self._receiver.makeConnection(self.transport)

    def dataReceived(self, data: bytes) -> None:
        passed = data[: self._left]
        self._left -= len(passed)
        if passed and not self._lost:
            self._receiver.dataReceived(passed)
        if len(passed) < len(data) and not self._lost:
            assert self.transport is not None
            self.transport.loseConnection()
            self._lose(Failure(ResponseFailed([Failure(error.ConnectionLost())])))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._lost:
            self._lose(reason)

    def _lose(self, reason: Failure) -> None:
        self._lost = True
        self._receiver.connectionLost(reason)


class CutResponse:
    """A response whose body is cut after some bytes."""

    def __init__(self, response: Any, size: int) -> None:
        self.code = response.code
        self.headers = response.headers
        self._response = response
        self._size = size

    def deliverBody(self, receiver: Any) -> None:
        self._response.deliverBody(CutBody(receiver, self._size))


Outcome = Literal["ok", "request lost", "response lost"] | int
"""What happens to a request; a number is that of the bytes of its response that arrive."""


class UnreliableNetwork:
    """A network that loses the requests and responses as listed in `outcomes`."""

    def __init__(self, http: Any) -> None:
        self._http = http
        self.outcomes: list[Outcome] = []

    def request(self, *arguments: Any, **options: Any) -> Deferred[Any]:
        outcome = self.outcomes.pop(0) if self.outcomes else "ok"
        if outcome == "request lost":
            return fail(error.ConnectionRefusedError())
        response: Deferred[Any] = self._http.request(*arguments, **options)
        if outcome == "response lost":
            lost = ResponseNeverReceived([Failure(error.ConnectionLost())])
            response.addCallback(lambda _: Failure(lost))
        elif isinstance(outcome, int):
            response.addCallback(CutResponse, outcome)
        return response


class Service:
    """The public API over a `System`, and its clients, which follow by `transport`."""

    def __init__(self, system: System, transport: FollowTransport) -> None:
        self.system = system
        self._transport = transport
        resource = compose_api(
            system.components,
            clock=system.clock,
            proxies=TrustedProxies([]),
            retry_jitter=lambda: 3,
        ).resource
        self.http = stub(resource)
        self.networks: dict[str, UnreliableNetwork] = {}
        self.started: list[Deferred[Any]] = []

    def client(self, name: str) -> ChatClient:
        """A logged-in client for a new account, connected by `networks[name]`."""
        client = self.guest(name)
        self.run(client.register(name, f"{name}@example.org", "password"))
        self.run(client.log_in(name, "password"))
        return client

    def guest(self, name: str) -> ChatClient:
        """A client that is not logged in, connected by `networks[name]`."""
        self.networks[name] = UnreliableNetwork(self.http)
        return ChatClient(
            "http://chat.example",
            http=self.networks[name],
            clock=self.system.clock,
            now=lambda: self.system.now() / 1_000_000,
            random=lambda: 0.5,
        )

    def settle(self) -> None:
        for _ in range(4):
            self.system.settle()
            self.http.flush()

    def advance(self, seconds: float) -> None:
        """Advance the clock, stopping at every delayed call."""
        clock = self.system.clock
        ends = clock.seconds() + seconds
        while clock.seconds() < ends:
            due = [call.getTime() for call in clock.getDelayedCalls()]
            clock.advance(min([ends, *due]) - clock.seconds())
            self.settle()

    def start(self, call: Any) -> Deferred[Any]:
        started = Deferred.fromCoroutine(call)
        self.started.append(started)
        self.settle()
        return started

    def wait_for(self, started: Deferred[Any]) -> None:
        """Advance the clock until the call has ended."""
        for _ in range(1000):
            if started.called:
                break
            self.advance(0.5)

    def run(self, call: Any) -> Any:
        """The result of a call that needs no time except for its retries."""
        started = self.start(call)
        self.wait_for(started)
        return result_of(started)

    def collect(self, client: ChatClient, since: str) -> list[Message]:
        """Follow an inbox; the list to which messages are appended as they arrive."""
        seen: list[Message] = []
        follow = client.follow(since, transport=self._transport)

        async def reading() -> None:
            async for message in follow:
                seen.append(message)

        self.start(reading())
        return seen

    def close(self) -> None:
        for started in self.started:
            cancel(started)
        self.settle()


@contextmanager
def serving(folder: Path, transport: FollowTransport) -> Iterator[Service]:
    with composed(folder) as system:
        service = Service(system, transport)
        yield service
        service.close()


TRANSPORTS: Final[tuple[FollowTransport, ...]] = ("poll", "stream")


@pytest.fixture(params=TRANSPORTS)
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path / "data", request.param) as running:
        yield running


def test_tokens_and_password(service: Service) -> None:
    ann = service.client("ann")
    phone, guest = service.guest("phone"), service.guest("guest")
    service.run(phone.log_in("ann", "password", label="phone", expires_in=3600, scopes=["read"]))
    service.run(guest.log_in("ann", "password"))
    tokens = service.run(ann.tokens())
    assert [(each.label, each.current) for each in tokens] == [
        (None, False),
        ("phone", False),
        (None, True),
    ]
    assert tokens[1].scopes == ("read",)
    with pytest.raises(APIError, match="insufficient_scope"):
        service.run(phone.send(1, "x"))
    service.run(ann.revoke_token(tokens[1].id))
    with pytest.raises(APIError, match="token_not_found"):
        service.run(ann.revoke_token(tokens[1].id))
    assert service.run(ann.change_email("password", "new@example.org")).email == "new@example.org"
    with pytest.raises(APIError, match="wrong_password"):
        service.run(ann.change_password("wrong", "very secret"))
    service.run(ann.change_password("password", "very secret"))
    for gone in (phone, guest):
        with pytest.raises(APIError, match="unauthorized"):
            service.run(gone.me())
    service.run(guest.log_in("ann", "very secret"))
    service.run(guest.revoke_other_tokens())
    with pytest.raises(APIError, match="unauthorized"):
        service.run(ann.me())


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
    conversation = service.run(ann.conversation(2, limit=3))
    assert [message.text for message in conversation.messages] == ["back", "11", "10"]
    older = service.run(ann.conversation(2, before=conversation.older))
    assert [message.text for message in older.messages] == [f"{n}" for n in range(9, -1, -1)]
    assert older.older is None
    service.run(ann.log_out())
    service.run(bob.delete_account())


def test_an_account_is_deleted_with_what_it_has_sent(service: Service) -> None:
    ann, bob = service.client("ann"), service.client("bob")
    service.run(ann.send(2, "secret"))
    assert service.run(ann.delete_account(erase=True)) is True
    assert [message.text for message in service.run(bob.page()).messages] == [""]


def test_messages_are_edited_and_deleted_and_senders_blocked(service: Service) -> None:
    ann, bob = service.client("ann"), service.client("bob")
    for text in ("one", "two"):
        service.run(ann.send(2, text))
    edited = service.run(ann.edit(2, 1, "new"))
    assert (edited.text, edited.edited_at is None) == ("new", False)
    service.run(ann.delete(2, 2))
    found = service.run(bob.page()).messages
    assert found[1] == edited
    assert (found[0].text, found[0].deleted_at is None) == ("", False)
    service.run(bob.block(1))
    assert [each.username for each in service.run(bob.blocks())] == ["ann"]
    assert failure(service.start(ann.send(2, "x")), APIError).code == "blocked"
    service.run(bob.unblock(1))
    assert service.run(ann.send(2, "x")).message.seq == 3


def test_a_key_is_used_once_across_clients(service: Service) -> None:
    ann, bob = service.client("ann"), service.client("bob")
    first = service.run(ann.send(2, "x", key="k"))
    again = service.run(ann.send(2, "x", key="k"))
    assert (again.message, again.replayed) == (first.message, True)
    reused = failure(service.start(ann.send(2, "y", key="k")), APIError)
    assert reused.code == "idempotency_key_reused"
    assert service.run(bob.page()).count == 1


def test_a_follower_receives_messages_immediately(service: Service) -> None:
    ann, bob = service.client("ann"), service.client("bob")
    seen = service.collect(bob, "now")
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
    service.collect(bob, "now")
    assert service.system.notifier.held == 1
    cancel(service.started[-1])
    service.settle()
    assert service.system.notifier.held == 0


def test_logging_out_ends_the_follower(service: Service) -> None:
    bob = service.client("bob")
    service.collect(bob, "now")
    following = service.started[-1]
    token = bob.token
    service.run(bob.log_out())
    service.settle()
    bob.token = token
    assert failure(following, APIError).status == 401


def test_a_follower_waits_before_polling_a_draining_server_again(service: Service) -> None:
    ann, bob = service.client("ann"), service.client("bob")
    seen = service.collect(bob, "0")
    service.system.notifier.drain()
    service.settle()
    assert service.system.notifier.held == 0
    service.run(ann.send(2, "hai"))
    service.advance(2.5)
    assert seen == []
    service.advance(2)
    assert [message.text for message in seen] == ["hai"]


def test_followers_beyond_the_limit_do_not_keep_superseding_each_other(service: Service) -> None:
    ann, bob = service.client("ann"), service.client("bob")
    followers = [service.collect(bob, "0") for _ in range(10)]
    service.advance(60)
    polls = service.system.metrics._registry.get_sample_value(
        "chatd_polls_total", {"outcome": WakeReason.SUPERSEDED.value}
    )
    assert polls is not None
    assert 0 < polls < 2 * 60, "they chase each other"
    service.run(ann.send(2, "hai"))
    service.advance(31)
    assert [[message.text for message in seen] for seen in followers] == [["hai"]] * 10


def test_a_cursor_of_another_history_raises(service: Service) -> None:
    bob = service.client("bob")
    seen = service.collect(bob, "aaaaaaaaaaaaaaaa-3")
    assert failure(service.started[-1], HistoryChanged).code == "cursor_epoch"
    assert seen == []


async def persistent(client: ChatClient, text: str) -> Sent:
    """A send to user 2 that is repeated, with its key, whenever the client gives up."""
    while True:
        with suppress(Unreachable):
            return await client.send(2, text, key=f"key-{text}")


outcomes = st.lists(
    st.sampled_from(["ok", "ok", "request lost", "response lost"]) | st.integers(0, 600),
    max_size=30,
)


@given(
    transport=st.sampled_from(TRANSPORTS),
    steps=st.lists(
        st.tuples(outcomes, outcomes, st.booleans(), st.booleans()), min_size=1, max_size=8
    ),
)
@settings(max_examples=examples(12, deep=300))
def test_every_message_is_stored_once_and_seen_once_and_in_order(
    transport: FollowTransport,
    steps: list[tuple[list[Outcome], list[Outcome], bool, bool]],
) -> None:
    """Whatever requests and responses are lost, as a whole or in part.

    A client that gives up does not know whether its message is stored. Only a caller that
    chose the key can repeat that send safely, so losses go on longer for sends with a key.
    """
    with scratch() as folder, serving(folder / "data", transport) as service:
        ann, bob = service.client("ann"), service.client("bob")
        seen = service.collect(bob, "0")
        for number, (lost_by_ann, lost_by_bob, keyed, pause) in enumerate(steps, 1):
            lost = lost_by_ann if keyed else lost_by_ann[:MAX_LOSSES_IN_A_ROW]
            service.networks["ann"].outcomes = lost
            service.networks["bob"].outcomes += lost_by_bob
            text = f"{number}"
            sending = service.start(persistent(ann, text) if keyed else ann.send(2, text))
            if pause:
                service.advance(31)
            service.wait_for(sending)
            assert result_of(sending).message.seq == number
        service.networks["bob"].outcomes.clear()
        service.advance(40)
        assert [(message.seq, message.text) for message in seen] == [
            (number, f"{number}") for number in range(1, len(steps) + 1)
        ]


def test_a_server_that_loses_messages_raises_gap(service: Service) -> None:
    ann, bob = service.client("ann"), service.client("bob")
    for text in ("one", "two", "three"):
        service.run(ann.send(2, text))
    db = service.system.store._write_db
    db.execute("DELETE FROM message WHERE received_by = 2 AND seq = 2")
    service.system.store._inbox_cache.drop(2)
    service.collect(bob, "0")
    assert failure(service.started[-1], Gap).expected == 2


def test_old_messages_that_were_removed_are_no_gap(service: Service) -> None:
    ann, bob = service.client("ann"), service.client("bob")
    seen = service.collect(bob, "0")
    service.run(ann.send(2, "one"))
    service.run(ann.send(2, "two"))
    service.advance(1)
    one = seen[0]
    system = service.system
    system.wait_for(system.store.admin.remove_old(system.now()))
    service.run(ann.send(2, "three"))
    assert [message.text for message in seen] == ["one", "two", "three"]
    assert [message.text for message in service.collect(bob, "0")] == ["three"]
    epoch = service.run(bob.page()).cursor.partition("-")[0]
    service.collect(bob, f"{epoch}-{one.seq}")
    assert failure(service.started[-1], HistoryChanged).code == "cursor_expired"
